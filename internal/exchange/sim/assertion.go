package sim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// maxJWT bounds a token that is parsed.
const maxJWT = 16 << 10

// jwt is a parsed JSON Web Token in compact form (RFC 7515 7.1), its signature
// not yet judged.
type jwt struct {
	alg        string
	thumbprint []byte // of the certificate, by x5t#S256 or x5t; nil where neither is there
	claims     claims
	signed     string // what the signature is over
	signature  []byte
}

// claims are those that are looked at (RFC 7519 4.1).
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	ID        string   `json:"jti"`
	NotBefore *int64   `json:"nbf"`
	Expires   *int64   `json:"exp"`
}

// audience is one string or a list of them (RFC 7519 4.1.3).
type audience []string

// UnmarshalJSON is part of json.Unmarshaler.
func (a *audience) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*a = audience{one}
		return nil
	}
	var many []string
	err := json.Unmarshal(raw, &many)
	*a = many
	return err
}

func (a audience) has(allowed ...string) bool {
	for _, s := range a {
		for _, ok := range allowed {
			if strings.EqualFold(strings.TrimSuffix(s, "/"), strings.TrimSuffix(ok, "/")) {
				return true
			}
		}
	}
	return false
}

// Why a token is no token.
var (
	errNotJWT  = errors.New("the token is not a JSON Web Token")
	errPadding = errors.New("the token has base64 padding")
)

// parseJWT reads the compact form. Padding is an error of its own: Graph says
// so of a proof (facts 2.3).
func parseJWT(text string) (*jwt, error) {
	if len(text) > maxJWT {
		return nil, errNotJWT
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errNotJWT
	}
	if strings.Contains(text, "=") {
		return nil, errPadding
	}
	var head struct {
		Alg     string `json:"alg"`
		X5tS256 string `json:"x5t#S256"`
		X5t     string `json:"x5t"`
	}
	t := &jwt{signed: parts[0] + "." + parts[1]}
	if err := decodePart(parts[0], &head); err != nil {
		return nil, errNotJWT
	}
	if err := decodePart(parts[1], &t.claims); err != nil {
		return nil, errNotJWT
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, errNotJWT
	}
	t.alg = head.Alg
	for _, print := range []string{head.X5tS256, head.X5t} {
		if print == "" {
			continue
		}
		if t.thumbprint = lenient(print); t.thumbprint == nil {
			return nil, errNotJWT
		}
		break
	}
	return t, nil
}

func decodePart(part string, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// lenient decodes a thumbprint in either alphabet of base64, padded or not:
// MSAL for Go writes the padded standard form (facts 2.1). nil where it is
// none.
func lenient(s string) []byte {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return raw
}

// signedBy verifies the signature: PS256 (RFC 7518 3.5), or RS256 (3.3). The
// algorithm is one of these two whatever the header would like.
func (t *jwt) signedBy(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return false
	}
	sum := sha256.Sum256([]byte(t.signed))
	switch t.alg {
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], t.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], t.signature) == nil
	}
	return false
}

// skew is by how much clocks may differ: five minutes, as Entra allows.
const skew = 5 * time.Minute

// timely reports whether now is within nbf and exp; exp must be there.
func (c *claims) timely(now time.Time) bool {
	if c.Expires == nil || !now.Before(time.Unix(*c.Expires, 0).Add(skew)) {
		return false
	}
	return c.NotBefore == nil || !now.Add(skew).Before(time.Unix(*c.NotBefore, 0))
}
