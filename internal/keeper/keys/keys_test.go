package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// kek wraps by doing nothing: what is tested here lies under data keys.
type kek struct{}

func (kek) ID() string                 { return "test" }
func (kek) Describe() seal.Description { return seal.Description{} }
func (kek) Wrap(_ context.Context, s seal.Secret, _ []byte) ([]byte, error) {
	return append([]byte(nil), s.Bytes()...), nil
}
func (kek) Unwrap(_ context.Context, b, _ []byte) (seal.Secret, error) {
	return seal.NewSecret(append([]byte(nil), b...)), nil
}

func dataKey(t testing.TB, tenant string) *seal.DataKey {
	t.Helper()
	k, _, err := seal.NewDataKey(t.Context(), kek{}, "us", tenant)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func place(tenant string) seal.Place {
	return seal.Place{Region: "us", Tenant: tenant, Connection: "mailbox", Purpose: "entra-app", Kind: seal.PrivateKey, Epoch: 1}
}

func TestSoftware(t *testing.T) {
	s := dataKey(t, "acme")
	for _, a := range []Algorithm{P256, RSA2048, RSA3072, Ed25519} {
		made, err := Software{}.Make(t.Context(), s, place("acme"), a)
		if err != nil {
			t.Fatal(err)
		}
		k, err := Software{}.Load(t.Context(), s, place("acme"), made.Handle)
		if err != nil || !works(k, made.Public) {
			t.Errorf("%s: %v", a, err)
		}
		next := place("acme")
		next.Epoch++
		if _, err := (Software{}).Load(t.Context(), s, next, made.Handle); !fault.Is(err, fault.Denied) {
			t.Errorf("%s in another epoch: %v", a, err)
		}
	}
	if _, err := (Software{}).Make(t.Context(), s, place("acme"), "rsa-1024"); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("a short one: %v", err)
	}
	secret := place("acme")
	secret.Kind = seal.Password
	blob, err := s.Seal(secret, seal.NewSecret([]byte("no key")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Software{}).Load(t.Context(), s, secret, blob); !fault.Is(err, fault.Invalid) {
		t.Errorf("a password as a key: %v", err)
	}
}

// works signs with one half and verifies with the other.
func works(k crypto.Signer, pub crypto.PublicKey) bool {
	sum := sha256.Sum256([]byte("x"))
	opts := crypto.SignerOpts(crypto.SHA256)
	if _, ok := pub.(ed25519.PublicKey); ok {
		opts = crypto.Hash(0)
	}
	sig, err := k.Sign(rand.Reader, sum[:], opts)
	if err != nil {
		return false
	}
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, sum[:], sig)
	}
	return false
}

// shelf is a storage in memory.
type shelf struct {
	mu     sync.Mutex
	spares []Spare
	fail   error
	full   chan struct{} // told at each Put
}

func (s *shelf) Put(_ context.Context, p Spare) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.spares = append(s.spares, p)
	s.full <- struct{}{}
	return nil
}

func (s *shelf) Take(context.Context) (Spare, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spares) == 0 {
		return Spare{}, fault.New(fault.Missing, "test", "none")
	}
	p := s.spares[0]
	s.spares = s.spares[1:]
	return p, nil
}

func (s *shelf) Count(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spares), s.fail
}

func newPool(t *testing.T, s *shelf, failed func(error)) *Pool {
	t.Helper()
	p, err := NewPool(PoolConfig{
		Region: "us", Algorithm: RSA2048, Size: 3, Sealer: dataKey(t, PoolTenant), Storage: s, Failed: failed, Rest: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPool(t *testing.T) {
	s := &shelf{full: make(chan struct{}, 100)}
	p := newPool(t, s, func(err error) { t.Error(err) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	for range 3 {
		<-s.full
	}
	tenant := dataKey(t, "acme")
	seen := map[string]bool{}
	for range 2 {
		made, err := p.Take(t.Context(), tenant, place("acme"))
		if err != nil {
			t.Fatal(err)
		}
		k, err := Software{}.Load(t.Context(), tenant, place("acme"), made.Handle)
		if err != nil || !works(k, made.Public) || seen[k.Public().(*rsa.PublicKey).N.String()] {
			t.Errorf("%v", err)
		}
		seen[k.Public().(*rsa.PublicKey).N.String()] = true
	}
	for range 2 {
		<-s.full // it is filled again
	}
	cancel()
	<-done
	if n, _ := s.Count(ctx); n != 3 || p.Emptied() != 0 {
		t.Errorf("%d are ready, found empty %d times", n, p.Emptied())
	}
}

func TestEmptyPool(t *testing.T) {
	p := newPool(t, &shelf{}, func(error) {})
	made, err := p.Take(t.Context(), dataKey(t, "acme"), place("acme"))
	if err != nil || made.Public == nil || p.Emptied() != 1 {
		t.Errorf("%v", err)
	}
}

// TestSwappedSpares: a spare under another's id is no key.
func TestSwappedSpares(t *testing.T) {
	s := &shelf{full: make(chan struct{}, 100)}
	p := newPool(t, s, func(error) {})
	if err := p.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.spares[0].Handle = s.spares[1].Handle
	if _, err := p.Take(t.Context(), dataKey(t, "acme"), place("acme")); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	if _, err := p.Take(t.Context(), dataKey(t, "other"), place("acme")); !fault.Is(err, fault.Denied) {
		t.Errorf("under another tenant's key: %v", err)
	}
}

func TestPoolTellsOfFailure(t *testing.T) {
	s := &shelf{fail: errors.New("disk full")}
	told := make(chan error, 100)
	p := newPool(t, s, func(err error) {
		select {
		case told <- err:
		default:
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	for range 2 { // it tries again
		if err := <-told; err == nil {
			t.Error("told of nothing")
		}
	}
	cancel()
	<-done
	if _, err := NewPool(PoolConfig{Region: "us"}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func BenchmarkLoadP256(b *testing.B) {
	s := dataKey(b, "acme")
	made, err := Software{}.Make(b.Context(), s, place("acme"), P256)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (Software{}).Load(b.Context(), s, place("acme"), made.Handle); err != nil {
			b.Fatal(err)
		}
	}
}
