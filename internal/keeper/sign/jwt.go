package sign

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxAssertion is the longest life of an assertion or a proof: what Microsoft
// asks for, and what a stolen one is worth.
const maxAssertion = 10 * time.Minute

// graphAudience is the audience of a proof of possession: the application id
// of the directory service itself (Graph, application: addKey).
const graphAudience = "00000002-0000-0000-c000-000000000000"

// Assertion is what a client assertion is made from. Its audience is written
// here, from the authority and the tenant.
type Assertion struct {
	Authority string // host, or host:port, of the token endpoint; from the binding
	Tenant    string // Entra tenant id
	App       string // application id: issuer and subject
	Life      time.Duration
	// Certificate is the SHA-256 of the certificate that Entra knows.
	Certificate [32]byte
}

// AssertClient makes the JWT by which an app signs in (RFC 7523, PS256).
func AssertClient(k Key, a Assertion, now time.Time) (string, error) {
	const op = "sign.AssertClient"
	if err := k.mayJWT(op, a.Life); err != nil {
		return "", err
	}
	if !IsGUID(a.Tenant) || !IsGUID(a.App) || !isHost(a.Authority) {
		return "", invalid(op, "an assertion needs a host and the ids of tenant and app as GUIDs", "Look at the connection's binding.")
	}
	claims := map[string]any{
		"aud": "https://" + a.Authority + "/" + a.Tenant + "/oauth2/v2.0/token",
		"iss": a.App, "sub": a.App, "jti": newGUID(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(a.Life).Unix(),
	}
	return k.jwt(op, "PS256", a.Certificate, claims, pss())
}

// Proof is what a proof of possession is made from.
type Proof struct {
	Object      string // object id (not app id) of the application or service principal
	Life        time.Duration
	Certificate [32]byte
}

// ProvePossession makes the JWT that Graph's addKey and removeKey ask for. It
// is RS256, as in the sample of Graph's "generate proof tokens"; its audience
// is fixed and no token endpoint takes it.
func ProvePossession(k Key, p Proof, now time.Time) (string, error) {
	const op = "sign.ProvePossession"
	if err := k.mayJWT(op, p.Life); err != nil {
		return "", err
	}
	if !IsGUID(p.Object) {
		return "", invalid(op, "a proof needs the object id of the application as a GUID", "Look at the connection's binding.")
	}
	claims := map[string]any{
		"aud": graphAudience, "iss": p.Object,
		"nbf": now.Unix(), "exp": now.Add(p.Life).Unix(),
	}
	return k.jwt(op, "RS256", p.Certificate, claims, crypto.SHA256)
}

func (k Key) mayJWT(op string, life time.Duration) error {
	if err := k.may(op, EntraApp); err != nil {
		return err
	}
	if _, ok := k.Signer.Public().(*rsa.PublicKey); !ok {
		return invalid(op, "Entra takes RSA keys only", "Issue this identity with an RSA key.")
	}
	if life < time.Second || life > maxAssertion {
		return invalid(op, "a token of this kind lives from one second to ten minutes", "Ask for a shorter life.")
	}
	return nil
}

// jwt signs a JWS in its compact form (RFC 7515 3.1). No padding: Graph calls
// a padded proof Authentication_MissingOrMalformed.
func (k Key) jwt(op, alg string, certificate [32]byte, claims map[string]any, opts crypto.SignerOpts) (string, error) {
	e := base64.RawURLEncoding
	head, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		X5t string `json:"x5t#S256"` // RFC 7515 4.1.8
	}{alg, "JWT", e.EncodeToString(certificate[:])})
	if err != nil {
		return "", fault.Wrap(fault.Internal, op, err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fault.Wrap(fault.Internal, op, err)
	}
	input := e.EncodeToString(head) + "." + e.EncodeToString(body)
	sig, err := k.digest(op, []byte(input), opts)
	if err != nil {
		return "", err
	}
	return input + "." + e.EncodeToString(sig), nil
}

// newGUID is a random UUID (RFC 9562 5.4).
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// IsGUID takes 8-4-4-4-12 hexadecimal digits (RFC 9562 4).
func IsGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		hexadecimal := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash && c != '-' || !dash && !hexadecimal {
			return false
		}
	}
	return true
}

// isHost takes a host name or address, with or without a port: nothing that
// could reach into the path of the audience.
func isHost(s string) bool {
	if s == "" || len(s) > 260 {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune(".-:[]", rune(c)) {
			return false
		}
	}
	return true
}
