//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

var pss = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}

func verifies(pub crypto.PublicKey, digest, sig []byte, opts crypto.SignerOpts) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, sig)
	case *rsa.PublicKey:
		if opts == pss {
			return rsa.VerifyPSS(k, crypto.SHA256, digest, sig, pss) == nil
		}
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, sig) == nil
	}
	return false
}

func TestSign(t *testing.T) {
	r := newRig(t)
	sum, other := sha256.Sum256([]byte("x")), sha256.Sum256([]byte("y"))
	for _, c := range []struct {
		a    keys.Algorithm
		opts []crypto.SignerOpts
	}{
		{keys.P256, []crypto.SignerOpts{crypto.SHA256}},
		{keys.RSA2048, []crypto.SignerOpts{crypto.SHA256, pss}},
		{keys.RSA3072, []crypto.SignerOpts{crypto.SHA256, pss}},
	} {
		made, k := r.key(t, c.a)
		for _, opts := range c.opts {
			sig, err := k.Sign(rand.Reader, sum[:], opts)
			if err != nil || !verifies(made.Public, sum[:], sig, opts) || verifies(made.Public, other[:], sig, opts) {
				t.Errorf("%s %T: %v", c.a, opts, err)
			}
		}
		for name, bad := range map[string]crypto.SignerOpts{
			"sha-1": crypto.SHA1, "nothing": nil, "a long salt": &rsa.PSSOptions{SaltLength: 64, Hash: crypto.SHA256},
			"any salt": &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256},
		} {
			if _, err := k.Sign(rand.Reader, sum[:], bad); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
				t.Errorf("%s with %s: %v", c.a, name, err)
			}
		}
		certificate(t, k)
	}
	for _, a := range []keys.Algorithm{keys.Ed25519, "rsa-1024", ""} {
		if _, err := r.driver.Make(t.Context(), r.sealer, place(), a); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// certificate signs one with the key, as the online issuer does.
func certificate(t *testing.T, k crypto.Signer) {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil || c.CheckSignatureFrom(c) != nil {
		t.Errorf("%v", err)
	}
}

// Nothing reads a private half, or the KEK, out of the token.
func TestNotExtractable(t *testing.T) {
	r := newRig(t)
	_, ec := r.key(t, keys.P256)
	_, rs := r.key(t, keys.RSA2048)
	if _, err := r.kek.Wrap(t.Context(), seal.NewSecret([]byte("key")), nil); err != nil {
		t.Fatal(err)
	}
	r.inToken(t, func(l *link) error {
		for _, c := range []struct {
			signer crypto.Signer
			secret []crypto11.AttributeType
		}{
			{ec, []crypto11.AttributeType{crypto11.CkaValue}},
			{rs, []crypto11.AttributeType{crypto11.CkaPrivateExponent, crypto11.CkaPrime1, crypto11.CkaPrime2}},
		} {
			k, err := l.FindKeyPair(c.signer.(*signer).id, nil)
			if err != nil {
				return err
			}
			for _, a := range c.secret {
				refuses(t, l, k, a)
			}
			has(t, l, k, map[crypto11.AttributeType]bool{
				crypto11.CkaExtractable: false, crypto11.CkaSensitive: true, crypto11.CkaToken: true, crypto11.CkaPrivate: true,
				crypto11.CkaDecrypt: false, crypto11.CkaUnwrap: false, crypto11.CkaNeverExtractable: true,
			})
		}
		kek, err := l.FindKey(nil, []byte("sallyport-kek-us"))
		if err != nil {
			return err
		}
		refuses(t, l, kek, crypto11.CkaValue)
		has(t, l, kek, map[crypto11.AttributeType]bool{crypto11.CkaExtractable: false, crypto11.CkaSensitive: true, crypto11.CkaWrap: false})
		return nil
	})
}

func refuses(t *testing.T, l *link, k any, a crypto11.AttributeType) {
	t.Helper()
	got, err := l.GetAttribute(k, a)
	var code pkcs11.Error
	if !errors.As(err, &code) || code != pkcs11.CKR_ATTRIBUTE_SENSITIVE || got != nil && len(got.Value) > 0 {
		t.Errorf("attribute %x: %v", a, err)
	}
}

func has(t *testing.T, l *link, k any, want map[crypto11.AttributeType]bool) {
	t.Helper()
	for a, v := range want {
		got, err := l.GetAttribute(k, a)
		if err != nil || len(got.Value) != 1 || (got.Value[0] != 0) != v {
			t.Errorf("attribute %x: %v, %v", a, got, err)
		}
	}
}

// A handle is worth something only in its own row, and only to this driver.
func TestMovedRow(t *testing.T) {
	r := newRig(t)
	made, _ := r.key(t, keys.P256)
	for name, change := range map[string]func(*seal.Place){
		"connection": func(p *seal.Place) { p.Connection = "archive" },
		"purpose":    func(p *seal.Place) { p.Purpose = "dkim" },
		"epoch":      func(p *seal.Place) { p.Epoch++ },
		"partner":    func(p *seal.Place) { p.Binding.Host = "thief.example" },
		"tenant":     func(p *seal.Place) { p.Tenant = "other" },
	} {
		p := place()
		change(&p)
		if _, err := r.driver.Load(t.Context(), r.sealer, p, made.Handle); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.driver.(keys.Remover).Remove(t.Context(), r.sealer, p, made.Handle); !fault.Is(err, fault.Denied) {
			t.Errorf("%s, to be removed: %v", name, err)
		}
	}
	if n, ok := r.driver.(interface{ Name() string }); !ok || n.Name() != "pkcs11" {
		t.Error("rows could not say whose key it is")
	}
	soft, err := keys.Software{}.Make(t.Context(), r.sealer, place(), keys.P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.driver.Load(t.Context(), r.sealer, place(), soft.Handle); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("a software key: %v", err)
	}
	p := place()
	p.Kind = seal.Password
	if _, err := r.driver.Make(t.Context(), r.sealer, p, keys.P256); !fault.Is(err, fault.Invalid) {
		t.Errorf("a password: %v", err)
	}
}

func TestRemove(t *testing.T) {
	r := newRig(t)
	made, k := r.key(t, keys.RSA2048)
	_, other := r.key(t, keys.P256)
	remover := r.driver.(keys.Remover)
	for range 2 { // what is gone is removed already
		if err := remover.Remove(t.Context(), r.sealer, place(), made.Handle); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(nil)
	if _, err := other.Sign(nil, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	before := r.generation()
	if _, err := k.Sign(nil, sum[:], crypto.SHA256); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
		t.Errorf("signed after: %v", err)
	}
	if _, err := r.driver.Load(t.Context(), r.sealer, place(), made.Handle); !fault.Is(err, fault.Missing) {
		t.Errorf("loaded after: %v", err)
	}
	if r.generation() != before {
		t.Error("a key that is not there made the others log in again")
	}
	if _, err := other.Sign(nil, sum[:], crypto.SHA256); err != nil {
		t.Errorf("another key: %v", err)
	}
	r.inToken(t, func(l *link) error {
		left, err := l.FindAllKeyPairs()
		if len(left) != 1 {
			t.Errorf("%d pairs are left", len(left))
		}
		return err
	})
}

// An object that somebody put in the place of another signs nothing.
func TestReplacedInToken(t *testing.T) {
	r := newRig(t)
	_, k := r.key(t, keys.P256)
	id := k.(*signer).id
	r.inToken(t, func(l *link) error {
		if err := l.destroy(id); err != nil {
			return err
		}
		_, err := l.GenerateECDSAKeyPairWithLabel(id, []byte("sallyport"), elliptic.P256())
		return err
	})
	sum := sha256.Sum256(nil)
	if sig, err := k.Sign(nil, sum[:], crypto.SHA256); !fault.Is(err, fault.Denied) || sig != nil || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestManySign(t *testing.T) {
	r := newRig(t)
	made, k := r.key(t, keys.P256)
	rsaMade, rs := r.key(t, keys.RSA2048)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				sum := sha256.Sum256([]byte{byte(i), byte(j)})
				sig, err := k.Sign(nil, sum[:], crypto.SHA256)
				if err != nil || !verifies(made.Public, sum[:], sig, crypto.SHA256) {
					t.Error(err)
				}
				if sig, err = rs.Sign(nil, sum[:], pss); err != nil || !verifies(rsaMade.Public, sum[:], sig, pss) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkSign(b *testing.B) {
	r := newRig(b)
	sum := sha256.Sum256(nil)
	for _, a := range []keys.Algorithm{keys.P256, keys.RSA2048} {
		_, k := r.key(b, a)
		b.Run(string(a), func(b *testing.B) {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkMake(b *testing.B) {
	r := newRig(b)
	for _, a := range []keys.Algorithm{keys.P256, keys.RSA2048} {
		b.Run(string(a), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.driver.Make(b.Context(), r.sealer, place(), a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzHandle(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	b, err := handle{id: make([]byte, idBytes), public: k.Public()}.bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(handleLabel))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHandle("fuzz", b)
		if err != nil {
			return
		}
		again, err := h.bytes()
		if err != nil || len(h.id) != idBytes || !usable(h.public) {
			t.Errorf("%v: %v", h, err)
		}
		if same, err := parseHandle("fuzz", again); err != nil || !bytes.Equal(same.id, h.id) {
			t.Errorf("%v", err)
		}
	})
}
