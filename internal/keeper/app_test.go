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

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

func TestEntraApp(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		one := r.issued(t, "acme", app, 0)
		leaf := r.verify(t, one, x509.ExtKeyUsageClientAuth)
		public, ok := leaf.PublicKey.(*rsa.PublicKey)
		if !ok || public.N.BitLen() != 2048 {
			t.Fatalf("%T", leaf.PublicKey)
		}
		if _, err := r.AssertClient(t.Context(), someone(), act.Assertion{Context: of("acme", app), LifeSeconds: 300}); !fault.Is(err, fault.Missing) {
			t.Errorf("without an active one: %v", err)
		}
		r.to(t, one, act.Staged)
		for _, which := range []string{one.ID, one.SHA256} {
			proof, err := r.ProvePossession(t.Context(), someone(), act.Assertion{Context: of("acme", app), Identity: which, LifeSeconds: 300})
			if err != nil {
				t.Fatal(err)
			}
			if claims := readJWT(t, proof.Token, public, "RS256"); claims["iss"] != anObject {
				t.Errorf("%v", claims)
			}
		}
		r.to(t, one, act.Active)
		got, err := r.AssertClient(t.Context(), someone(), act.Assertion{Context: of("acme", app), LifeSeconds: 300})
		if err != nil {
			t.Fatal(err)
		}
		if claims := readJWT(t, got.Token, public, "PS256"); claims["iss"] != anApp || claims["aud"] != "https://login.partner.example/"+aTenantID+"/oauth2/v2.0/token" {
			t.Errorf("%v", claims)
		}
		if before, after := r.outcome(t, act.AssertClient); before.Subject != one.ID || after.Outcome != carried {
			t.Errorf("%+v %+v", before, after)
		}
		other := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		for name, q := range map[string]act.Assertion{
			"a client's key":  {Context: of("acme", app), Identity: other.ID, LifeSeconds: 300},
			"another purpose": {Context: of("acme", ofClient), LifeSeconds: 300},
		} {
			if _, err := r.AssertClient(t.Context(), someone(), q); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := r.AssertClient(t.Context(), someone(), act.Assertion{Context: of("acme", app), LifeSeconds: 3600}); !fault.Is(err, fault.Invalid) {
			t.Errorf("an hour: %v", err)
		}
	})
}

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
