package keeper

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// readJWT verifies a token and gives its claims.
func readJWT(t testing.TB, token string, public *rsa.PublicKey, alg string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal(token)
	}
	part := func(i int, into any) []byte {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if into != nil {
			if err := json.Unmarshal(b, into); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	var head struct{ Alg string }
	claims := map[string]any{}
	part(0, &head)
	part(1, &claims)
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], part(2, nil))
	if alg == "PS256" {
		err = rsa.VerifyPSS(public, crypto.SHA256, sum[:], part(2, nil), &rsa.PSSOptions{SaltLength: 32})
	}
	if err != nil || head.Alg != alg {
		t.Errorf("%s: %v", head.Alg, err)
	}
	return claims
}

// rsaOf is the public key of an identity's certificate.
func rsaOf(t testing.TB, i act.Identity) *rsa.PublicKey {
	t.Helper()
	c, err := x509.ParseCertificate(i.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	k, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok {
		t.Fatalf("%T", c.PublicKey)
	}
	return k
}
