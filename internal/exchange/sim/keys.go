package sim

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// keyCredential is one certificate of an application (facts 2.3).
type keyCredential struct {
	KeyID         string
	Type          string
	Usage         string
	DisplayName   string
	CustomID      string // base64; the thumbprint unless it was given
	StartDateTime time.Time
	EndDateTime   time.Time
	DER           []byte
}

// sentKey is a keyCredential as a request carries it.
type sentKey struct {
	KeyID         string     `json:"keyId"`
	Type          string     `json:"type"`
	Usage         string     `json:"usage"`
	DisplayName   *string    `json:"displayName"`
	CustomID      *string    `json:"customKeyIdentifier"`
	StartDateTime *time.Time `json:"startDateTime"`
	EndDateTime   *time.Time `json:"endDateTime"`
	Key           *string    `json:"key"`
	ODataType     string     `json:"@odata.type"`
}

// mostKeys bounds an application's list.
const mostKeys = 100

func (k *keyCredential) certificate() (*x509.Certificate, error) { return x509.ParseCertificate(k.DER) }

// sha1 is the thumbprint that Windows shows; it names and protects nothing.
func (k *keyCredential) sha1() []byte {
	sum := sha1.Sum(k.DER)
	return sum[:]
}

// byThumbprint finds a key by SHA-256 or SHA-1 of its certificate, nil for none.
func (a *application) byThumbprint(print []byte) *keyCredential {
	for i := range a.Keys {
		k := &a.Keys[i]
		sum := sha256.Sum256(k.DER)
		if bytes.Equal(sum[:], print) || bytes.Equal(k.sha1(), print) {
			return k
		}
	}
	return nil
}

// newKey reads a certificate to be registered. Entra takes RSA alone (facts
// 2.1).
func (k *sentKey) newKey() (keyCredential, error) {
	var none keyCredential
	switch {
	case k.Type != "AsymmetricX509Cert":
		return none, refuse("keyCredential.type must be AsymmetricX509Cert")
	case k.Usage != "Verify":
		return none, refuse("keyCredential.usage must be Verify")
	case k.Key == nil:
		return none, refuse("keyCredential.key is missing")
	}
	der, err := base64.StdEncoding.DecodeString(*k.Key)
	if err != nil {
		return none, refuse("keyCredential.key is not base64")
	}
	// The portal and some tools send the PEM text instead of its content.
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return none, refuse("keyCredential.key is not a certificate")
	}
	if _, ok := cert.PublicKey.(*rsa.PublicKey); !ok {
		return none, refuse("keyCredential.key is not a certificate of an RSA key")
	}
	made := keyCredential{KeyID: k.KeyID, Type: k.Type, Usage: k.Usage, DER: der, DisplayName: cert.Subject.String(),
		StartDateTime: cert.NotBefore.UTC(), EndDateTime: cert.NotAfter.UTC()}
	if _, err := uuid.Parse(made.KeyID); err != nil {
		made.KeyID = uuid.NewString()
	}
	made.CustomID = base64.StdEncoding.EncodeToString(made.sha1())
	if k.CustomID != nil {
		made.CustomID = *k.CustomID
	}
	if k.DisplayName != nil {
		made.DisplayName = *k.DisplayName
	}
	if k.StartDateTime != nil && k.StartDateTime.After(made.StartDateTime) {
		made.StartDateTime = k.StartDateTime.UTC()
	}
	if k.EndDateTime != nil && k.EndDateTime.Before(made.EndDateTime) {
		made.EndDateTime = k.EndDateTime.UTC()
	}
	return made, nil
}

// replaceKeys is what PATCH makes of the whole collection: an entry without
// key stays where its keyId is known, everything not named goes.
func (a *application) replaceKeys(sent []sentKey) ([]keyCredential, error) {
	if len(sent) > mostKeys {
		return nil, refuse("keyCredentials has too many entries")
	}
	var next []keyCredential
	for i := range sent {
		old := slices.IndexFunc(a.Keys, func(k keyCredential) bool { return strings.EqualFold(k.KeyID, sent[i].KeyID) })
		if sent[i].Key == nil && old >= 0 {
			next = append(next, a.Keys[old])
			continue
		}
		k, err := sent[i].newKey()
		if err != nil {
			return nil, err
		}
		next = append(next, k)
	}
	return next, nil
}

// shown is the key as Graph shows it; the certificate only where it was asked
// for by $select.
func (k *keyCredential) shown(withKey bool) object {
	o := object{"customKeyIdentifier": k.CustomID, "displayName": k.DisplayName, "startDateTime": k.StartDateTime.Format(time.RFC3339),
		"endDateTime": k.EndDateTime.Format(time.RFC3339), "keyId": k.KeyID, "type": k.Type, "usage": k.Usage, "key": nil}
	if withKey {
		o["key"] = base64.StdEncoding.EncodeToString(k.DER)
	}
	return o
}

// described is how an audit row lists keys.
func described(keys []keyCredential) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, "[KeyIdentifier="+k.KeyID+",KeyType="+k.Type+",KeyUsage="+k.Usage+",DisplayName="+k.DisplayName+"]")
	}
	return out
}

// quoted is a list as JSON inside a JSON string, as the real log has it.
func quoted(all []string) any {
	if all == nil {
		all = []string{}
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return string(raw)
}

// proofAudience is what a proof of possession is for: Azure AD Graph's id.
const proofAudience = "00000002-0000-0000-c000-000000000000"

// proofLife is the most that a proof may be valid for.
const proofLife = 10 * 60

// checkProof judges a proof of possession (facts 2.3): a JWT of any valid
// certificate of the object, with its object id as issuer.
func (a *application) checkProof(text string, now time.Time) error {
	t, err := parseJWT(text)
	if err != nil {
		return &proofError{"Authentication_MissingOrMalformed", "Access Token missing or malformed: " + err.Error() + "."}
	}
	c := &t.claims
	switch {
	case !c.Audience.has(proofAudience):
		return &proofError{"Authentication_MissingOrMalformed", "The proof's audience is not " + proofAudience + "."}
	case !strings.EqualFold(c.Issuer, a.ObjectID):
		return &proofError{"Authentication_MissingOrMalformed", "The proof's issuer is not the object id " + a.ObjectID + "."}
	case c.NotBefore == nil || c.Expires == nil || *c.Expires-*c.NotBefore > proofLife || !c.timely(now):
		return &proofError{"Authentication_ExpiredToken", "The proof must have nbf and exp at most ten minutes apart, with now between them."}
	}
	for i := range a.Keys {
		k := &a.Keys[i]
		if now.Before(k.StartDateTime) || !now.Before(k.EndDateTime) {
			continue
		}
		if cert, err := k.certificate(); err == nil && t.signedBy(cert) {
			return nil
		}
	}
	return &proofError{"Authentication_Unauthorized", "The proof is not signed by a valid certificate of this object."}
}

// proofError is a refusal of a proof in Graph's words.
type proofError struct{ code, text string }

func (e *proofError) Error() string { return e.text }

// errNoKey is a keyId that the object does not have.
func errNoKey(id string) error {
	return fault.New(fault.Invalid, "sim", "No credentials found to be removed: "+id)
}
