package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	guid  = "0f8fad5b-d9cb-469f-a165-70867728950e"
	guid2 = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
)

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func now() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }

func exchange(t testing.TB) ServerKeyExchange {
	t.Helper()
	pub, err := ecKey(t).PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	x := ServerKeyExchange{Curve: tls.CurveP256, Public: pub.Bytes()}
	copy(x.ServerRandom[24:], downgrade)
	return x
}

// every makes a signature by each act that a kind of key has.
func every(t *testing.T, s crypto.Signer) map[Use]func(Key) error {
	t.Helper()
	hash := make([]byte, 32)
	scheme := tls.PSSWithSHA256
	if _, ok := s.(*ecdsa.PrivateKey); ok {
		scheme = tls.ECDSAWithP256AndSHA256
	}
	x := exchange(t)
	return map[Use]func(Key) error{
		TLSClient: func(k Key) error { _, err := CertificateVerify(k, Client, scheme, hash); return err },
		TLSServer: func(k Key) error {
			if _, err := SignServerKeyExchange(k, scheme, x); err != nil {
				return err
			}
			_, err := CertificateVerify(k, Server, scheme, hash)
			return err
		},
		EntraApp: func(k Key) error {
			if _, err := ProvePossession(k, Proof{Object: guid, Life: time.Minute}, now()); err != nil {
				return err
			}
			_, err := AssertClient(k, Assertion{Authority: "login.example", Tenant: guid, App: guid2, Life: time.Minute}, now())
			return err
		},
		DKIM: func(k Key) error { _, err := SignDKIM(k, Domain{"acme.example", "s1"}, letter()); return err },
		ARC: func(k Key) error {
			_, err := SealARC(k, Domain{"acme.example", "s1"}, Chain{Validation: "none", Results: "gate.example; spf=pass", Mail: letter()})
			return err
		},
		Issuer: func(k Key) error {
			_, err := NewRoot(k, "us", "gate.example", time.Hour*48, now())
			return err
		},
	}
}

// TestOneUseOnly asks every act with a key of every use: only its own signs.
func TestOneUseOnly(t *testing.T) {
	for _, s := range []crypto.Signer{ecKey(t), rsaKey(t)} {
		for asked, f := range every(t, s) {
			_, elliptic := s.(*ecdsa.PrivateKey)
			if elliptic && (asked == EntraApp || asked == DKIM || asked == ARC) {
				if err := f(Key{s, asked}); !fault.Is(err, fault.Invalid) {
					t.Errorf("%s with an ECDSA key: %v", asked, err)
				}
				continue
			}
			for _, has := range []Use{TLSClient, TLSServer, EntraApp, DKIM, ARC, Issuer, ""} {
				err := f(Key{s, has})
				if has == asked && err != nil {
					t.Errorf("%s with its own key: %v", asked, err)
				}
				if has != asked && !fault.Is(err, fault.Denied) {
					t.Errorf("%s with a key for %q: %v", asked, has, err)
				}
			}
		}
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CertificateVerify(Key{p384, TLSClient}, Client, tls.ECDSAWithP384AndSHA384, make([]byte, 48)); !fault.Is(err, fault.Invalid) {
		t.Errorf("P-384: %v", err)
	}
}

// verify13 and verify12 are written from the RFCs, beside the code that signs.
func verify13(pub crypto.PublicKey, role string, hash, sig []byte) bool {
	msg := strings.Repeat("\x20", 64) + "TLS 1.3, " + role + " CertificateVerify" + "\x00" + string(hash)
	return verifies(pub, []byte(msg), sig)
}

func verifies(pub crypto.PublicKey, msg, sig []byte) bool {
	sum := sha256.Sum256(msg)
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(pub, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: 32}) == nil
	}
	return false
}

func TestCertificateVerify(t *testing.T) {
	ec, rs := ecKey(t), rsaKey(t)
	for _, n := range []int{32, 48} {
		hash := bytes.Repeat([]byte{7}, n)
		for role, use := range map[Role]Use{Client: TLSClient, Server: TLSServer} {
			for _, c := range []struct {
				s      crypto.Signer
				scheme tls.SignatureScheme
			}{{ec, tls.ECDSAWithP256AndSHA256}, {rs, tls.PSSWithSHA256}} {
				sig, err := CertificateVerify(Key{c.s, use}, role, c.scheme, hash)
				if err != nil || !verify13(c.s.Public(), string(role), hash, sig) {
					t.Errorf("%s %s: %v", role, c.scheme, err)
				}
				other := "client"
				if role == Client {
					other = "server"
				}
				if verify13(c.s.Public(), other, hash, sig) {
					t.Errorf("a %s's signature counts as a %s's", role, other)
				}
			}
		}
	}
	for name, err := range map[string]error{
		"short hash":      second(CertificateVerify(Key{ec, TLSClient}, Client, tls.ECDSAWithP256AndSHA256, make([]byte, 31))),
		"a whole message": second(CertificateVerify(Key{ec, TLSClient}, Client, tls.ECDSAWithP256AndSHA256, make([]byte, 130))),
		"PKCS #1":         second(CertificateVerify(Key{rs, TLSClient}, Client, tls.PKCS1WithSHA256, make([]byte, 32))),
		"another role":    second(CertificateVerify(Key{ec, TLSClient}, "both", tls.ECDSAWithP256AndSHA256, make([]byte, 32))),
		"another's":       second(CertificateVerify(Key{ec, TLSClient}, Client, tls.PSSWithSHA256, make([]byte, 32))),
	} {
		if !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[A any](_ A, err error) error { return err }

// TestOldAndNewHandshakesDiffer: whatever randoms a client and a gateway in
// wrong hands choose, what is signed for TLS 1.2 is never what is signed for
// TLS 1.3, since they differ at offset 64.
func TestOldAndNewHandshakesDiffer(t *testing.T) {
	x := exchange(t)
	copy(x.ClientRandom[:], strings.Repeat(" ", 32))
	copy(x.ServerRandom[:], strings.Repeat(" ", 32))
	old := x.bytes()
	for _, role := range []Role{Client, Server} {
		young := certificateVerify(role, make([]byte, 32))
		if !bytes.Equal(old[:64], young[:64]) {
			t.Fatal("the test is not at its hardest: the first 64 bytes should be alike")
		}
		if old[64] != 3 || young[64] != 'T' {
			t.Errorf("offset 64 holds %d and %q", old[64], young[64])
		}
	}
	if _, err := SignServerKeyExchange(Key{ecKey(t), TLSServer}, tls.ECDSAWithP256AndSHA256, x); !fault.Is(err, fault.Invalid) {
		t.Errorf("a server's random without the sentinel: %v", err)
	}
}

func TestServerKeyExchange(t *testing.T) {
	k := ecKey(t)
	x := exchange(t)
	sig, err := SignServerKeyExchange(Key{k, TLSServer}, tls.ECDSAWithP256AndSHA256, x)
	msg := append(append(append([]byte{}, x.ClientRandom[:]...), x.ServerRandom[:]...), 3, 0, 23, 65)
	if err != nil || !verifies(k.Public(), append(msg, x.Public...), sig) {
		t.Errorf("%v", err)
	}
	offCurve, curve, short := x, x, x
	offCurve.Public = append([]byte{4}, make([]byte, 64)...)
	curve.Curve = 21
	short.Public = x.Public[:40]
	for name, bad := range map[string]ServerKeyExchange{"off the curve": offCurve, "another curve": curve, "half a point": short} {
		if _, err := SignServerKeyExchange(Key{k, TLSServer}, tls.ECDSAWithP256AndSHA256, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func openJWT(t *testing.T, token string) (head, claims map[string]any, input string, sig []byte) {
	t.Helper()
	p := strings.Split(token, ".")
	if len(p) != 3 || strings.Contains(token, "=") {
		t.Fatalf("no compact JWS: %s", token)
	}
	for i, into := range []*map[string]any{&head, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(p[i])
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sig, err := base64.RawURLEncoding.DecodeString(p[2])
	if err != nil {
		t.Fatal(err)
	}
	return head, claims, p[0] + "." + p[1], sig
}

func TestAssertClient(t *testing.T) {
	k := rsaKey(t)
	a := Assertion{Authority: "login.example:8443", Tenant: guid, App: guid2, Life: 5 * time.Minute, Certificate: sha256.Sum256([]byte("c"))}
	token, err := AssertClient(Key{k, EntraApp}, a, now())
	if err != nil {
		t.Fatal(err)
	}
	head, claims, input, sig := openJWT(t, token)
	if !verifies(k.Public(), []byte(input), sig) {
		t.Error("the signature is no PS256")
	}
	want := base64.RawURLEncoding.EncodeToString(a.Certificate[:])
	if head["alg"] != "PS256" || head["x5t#S256"] != want {
		t.Errorf("%v", head)
	}
	if claims["aud"] != "https://login.example:8443/"+guid+"/oauth2/v2.0/token" || claims["iss"] != guid2 || claims["sub"] != guid2 ||
		claims["exp"].(float64)-claims["nbf"].(float64) != 300 {
		t.Errorf("%v", claims)
	}
	again, err := AssertClient(Key{k, EntraApp}, a, now())
	if err != nil {
		t.Fatal(err)
	}
	if _, second, _, _ := openJWT(t, again); second["jti"] == claims["jti"] || !IsGUID(second["jti"].(string)) {
		t.Errorf("jti %v after %v", second["jti"], claims["jti"])
	}
	for name, change := range map[string]func(*Assertion){
		"a path":        func(a *Assertion) { a.Authority = "login.example/x?" },
		"no authority":  func(a *Assertion) { a.Authority = "" },
		"another user":  func(a *Assertion) { a.Authority = "u@evil.example" },
		"tenant name":   func(a *Assertion) { a.Tenant = "common" },
		"app with path": func(a *Assertion) { a.App = guid2[:35] + "/" },
		"too long":      func(a *Assertion) { a.Life = 11 * time.Minute },
		"no life":       func(a *Assertion) { a.Life = 0 },
	} {
		b := a
		change(&b)
		if _, err := AssertClient(Key{k, EntraApp}, b, now()); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProvePossession(t *testing.T) {
	k := rsaKey(t)
	token, err := ProvePossession(Key{k, EntraApp}, Proof{Object: guid, Life: 10 * time.Minute}, now())
	if err != nil {
		t.Fatal(err)
	}
	head, claims, input, sig := openJWT(t, token)
	sum := sha256.Sum256([]byte(input))
	if err := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, sum[:], sig); err != nil || head["alg"] != "RS256" {
		t.Errorf("%v %v", err, head)
	}
	if claims["aud"] != graphAudience || claims["iss"] != guid || claims["exp"].(float64)-claims["nbf"].(float64) != 600 {
		t.Errorf("%v", claims)
	}
	// What a token endpoint looks for is not in it, and the other way round.
	if claims["sub"] != nil || verifies(k.Public(), []byte(input), sig) {
		t.Error("a proof passes for an assertion")
	}
}

func TestEd25519SignsMailOnly(t *testing.T) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CertificateVerify(Key{k, TLSClient}, Client, tls.Ed25519, make([]byte, 32)); !fault.Is(err, fault.Invalid) {
		t.Errorf("TLS: %v", err)
	}
	if _, err := AssertClient(Key{k, EntraApp}, Assertion{Authority: "a", Tenant: guid, App: guid, Life: time.Minute}, now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("JWT: %v", err)
	}
}
