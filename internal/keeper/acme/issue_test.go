package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/wfe"
	proto "github.com/mholt/acmez/v3/acme"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/testpeer/pebble"
)

func TestIssue(t *testing.T) {
	r := newRig(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"e1.acme.us.gate.example": newKey(t), "mx.us.gate.example": rsaKey} {
		before := r.got.Load()
		chain, err := r.Issue(t.Context(), name, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf := parsed(t, chain[0])
		if len(chain) != 2 || !slices.Equal(leaf.DNSNames, []string{name}) || !leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%d certificates, %v", len(chain), leaf.DNSNames)
		}
		if r.got.Load() == before {
			t.Error("nobody asked for the challenge")
		}
		if got, _ := act.Purposes(chain); !slices.Equal(got, []string{"serverAuth"}) {
			t.Errorf("%v", got)
		}
	}
	if len(r.tokens) != 0 {
		t.Errorf("challenges are left: %v", r.tokens)
	}
	if _, ok := r.Challenge("unknown"); ok {
		t.Error("a challenge that nobody gave")
	}
}

// Many at a time, on one account, which is asked for once.
func TestIssueTogether(t *testing.T) {
	r := newRig(t)
	var registered atomic.Int64
	count := func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/sign-me-up") {
			registered.Add(1)
		}
		return false
	}
	r.ca.Front.Store(&count)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			if _, err := r.Issue(t.Context(), "e"+string(rune('1'+n))+".acme.us.gate.example", newKey(t), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// The CA may have refused a nonce, so that it was asked more than once in turn.
	if n := registered.Load(); n < 1 || n > 3 || r.account == nil || len(r.tokens) != 0 {
		t.Errorf("registered %d times: %v, %v", n, r.account, r.tokens)
	}
}

// A renewal says what it replaces, once; a CA that lost the account is told of
// it again.
func TestRenew(t *testing.T) {
	r := newRig(t)
	const name = "e1.acme.us.gate.example"
	first, err := r.Issue(t.Context(), name, newKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	replaces := r.orders(t, "")
	second, err := r.Issue(t.Context(), name, newKey(t), first[0])
	if err != nil {
		t.Fatal(err)
	}
	told(t, replaces, parsed(t, first[0]))
	// Once more is too often for the CA, and no reason for it not to issue.
	replaces = r.orders(t, ari(t, first[0]))
	if _, err := r.Issue(t.Context(), name, newKey(t), first[0]); err != nil {
		t.Errorf("replaced twice: %v", err)
	}
	told(t, replaces, parsed(t, first[0]))
	told(t, replaces, nil)
	if _, err := r.Issue(t.Context(), name, newKey(t), builtin(t, name)); err != nil {
		t.Errorf("of another issuer: %v", err)
	}
	deactivated := `{"status":"deactivated"}`
	r.instead("/sign-me-up", jsonOf(deactivated))
	if _, err := r.another(t).Issue(t.Context(), name, newKey(t), nil); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "deactivated") {
		t.Errorf("an account that is no more: %v", err)
	}
	r.ca.Front.Store(nil)
	if r.another(t); issueOf(t, r, name) == nil {
		return
	}
	lost := *r.account
	lost.Location += "0"
	r.account = &lost
	if _, err := r.Issue(t.Context(), name, newKey(t), second[0]); err != nil || r.account.Location == lost.Location {
		t.Errorf("a lost account: %v", err)
	}
}

// told is that the next order names the certificate, or none.
func told(t *testing.T, replaces <-chan string, c *x509.Certificate) {
	t.Helper()
	want := ""
	if c != nil {
		want = ari(t, c.Raw)
	}
	for {
		select {
		case got := <-replaces:
			if got == want {
				return
			}
		default:
			t.Errorf("no order replaces %q", want)
			return
		}
	}
}

func ari(t *testing.T, der []byte) string {
	t.Helper()
	id, err := proto.ARIUniqueIdentifier(parsed(t, der))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func issueOf(t *testing.T, r *rig, name string) [][]byte {
	t.Helper()
	chain, err := r.Issue(t.Context(), name, newKey(t), nil)
	if err != nil {
		t.Error(err)
	}
	return chain
}

// builtin is a certificate of another CA.
func builtin(t *testing.T, name string) []byte {
	t.Helper()
	return forged(t, name, newKey(t), func(c *x509.Certificate) { c.AuthorityKeyId = []byte{1, 2, 3} })
}

func TestProfile(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Profile = "short" })
	chain, err := r.Issue(t.Context(), "e1.acme.us.gate.example", newKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if leaf := parsed(t, chain[0]); leaf.NotAfter.Sub(leaf.NotBefore) > 7*24*time.Hour {
		t.Errorf("it lives until %v", leaf.NotAfter)
	}
}

func TestDNSChallenge(t *testing.T) {
	r := newRig(t)
	c := r.config
	c.DNS = r.ca.Zone
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(t.Context(), "e1.acme.us.gate.example", newKey(t), nil); err != nil {
		t.Fatal(err)
	}
	if left, most := r.ca.Zone.Texts(); most != 1 || left != 0 || r.got.Load() != 0 {
		t.Errorf("%d records at a time, %d are left, %d fetched by HTTP", most, left, r.got.Load())
	}
	r.ca.Zone.Lock(errors.New("the zone is locked"))
	if _, err := i.Issue(t.Context(), "e2.acme.us.gate.example", newKey(t), nil); !fault.Is(err, fault.Later) {
		t.Errorf("%v", err)
	}
	// What was published in part is taken away, and a refusal is one.
	if left, _ := r.ca.Zone.Texts(); left != 0 {
		t.Errorf("%d records are left", left)
	}
	r.ca.Zone.Lock(fault.New(fault.Denied, "zone", "the zone is not ours").WithHint("Ask for it."))
	if _, err := i.Issue(t.Context(), "e2.acme.us.gate.example", newKey(t), nil); !fault.Is(err, fault.Denied) || fault.HintOf(err) != "Ask for it." {
		t.Errorf("%v", err)
	}
}

// slowZone publishes, and then waits for servers that never come.
type slowZone struct {
	*pebble.Zone
	published chan struct{}
}

func (z slowZone) Publish(ctx context.Context, fqdn, value string) error {
	if err := z.Zone.Publish(ctx, fqdn, value); err != nil {
		return err
	}
	close(z.published)
	<-ctx.Done()
	return ctx.Err()
}

func (z slowZone) Withdraw(ctx context.Context, fqdn, value string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return z.Zone.Withdraw(ctx, fqdn, value)
}

// An issuance that is given up, as by a keeper that stops, is over when its
// record is gone.
func TestDNSChallengeGivenUp(t *testing.T) {
	r := newRig(t)
	zone := slowZone{r.ca.Zone, make(chan struct{})}
	r.config.DNS = zone
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-zone.published; cancel() }()
	if _, err := r.issuer(t).Issue(ctx, "e1.acme.us.gate.example", newKey(t), nil); !fault.Is(err, fault.Later) {
		t.Errorf("%v", err)
	}
	if left, most := r.ca.Zone.Texts(); left != 0 || most != 1 {
		t.Errorf("%d records are left of %d", left, most)
	}
	// A CA that refuses in the end: no record stays either.
	r.config.DNS = r.ca.Zone
	r.instead("/finalize", func(w http.ResponseWriter, _ *http.Request) { problem(w, 403, "caa", "no", "") })
	if _, err := r.another(t).Issue(t.Context(), "e1.acme.us.gate.example", newKey(t), nil); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	if left, _ := r.ca.Zone.Texts(); left != 0 {
		t.Errorf("%d records are left", left)
	}
}

func TestExternalAccount(t *testing.T) {
	r := newRig(t)
	key := make([]byte, 32)
	rand.Read(key)
	if err := r.ca.DB.AddExternalAccountKeyByID("kid-1", base64.RawURLEncoding.EncodeToString(key)); err != nil {
		t.Fatal(err)
	}
	strict := httptest.NewTLSServer(r.ca.Handler(1, true))
	t.Cleanup(strict.Close)
	r.config.Directory = strict.URL + wfe.DirectoryPath
	r.config.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: strict.Certificate().Raw})
	for _, c := range []struct {
		external *External
		kind     fault.Kind
		said     string
	}{
		{nil, fault.Denied, "externalAccountRequired"},
		{&External{ID: "kid-1", Key: []byte("another")}, fault.Denied, "refused"},
		{&External{ID: "kid-1", Key: key}, fault.Denied, "connection"}, // the account is taken; nobody listens on port 1
	} {
		r.config.External = c.external
		_, err := r.issuer(t).Issue(t.Context(), "e1.acme.us.gate.example", newKey(t), nil)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.said) || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", c.external, err)
		}
	}
}

// What can't become a certificate costs no request.
func TestRefusedHere(t *testing.T) {
	r := newRig(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const good = "e1.acme.us.gate.example"
	for what, c := range map[string]struct {
		name     string
		key      crypto.Signer
		replaces []byte
	}{
		"Ed25519": {good, ed, nil}, "P-384": {good, p384, nil}, "no key": {good, nil, nil},
		"no name": {"", newKey(t), nil}, "one label": {"localhost", newKey(t), nil}, "wildcard": {"*.gate.example", newKey(t), nil},
		"capitals": {"MX.gate.example", newKey(t), nil}, "a dot at its end": {good + ".", newKey(t), nil},
		"an address": {"a@gate.example", newKey(t), nil}, "a long label": {strings.Repeat("a", 64) + ".example", newKey(t), nil},
		"a hyphen": {"-a.example", newKey(t), nil}, "a long name": {strings.Repeat("a.", 130) + "example", newKey(t), nil},
		"no certificate": {good, newKey(t), []byte("junk")},
	} {
		if _, err := r.Issue(t.Context(), c.name, c.key, c.replaces); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := r.ca.Asked.Load(); n != 0 {
		t.Errorf("the CA was asked %d times", n)
	}
}

func TestSettings(t *testing.T) {
	key := newKey(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const dir = "https://ca.example/directory"
	for name, c := range map[string]Config{
		"http":        {Directory: "http://ca.example/directory", Account: key},
		"nothing":     {Account: key},
		"no account":  {Directory: dir},
		"Ed25519":     {Directory: dir, Account: ed},
		"no roots":    {Directory: dir, Account: key, Roots: []byte("junk")},
		"half an EAB": {Directory: dir, Account: key, External: &External{ID: "x"}},
	} {
		if _, err := New(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if i, err := New(Config{Directory: dir, Account: key}); err != nil || i.Name() != "acme" {
		t.Errorf("%v", err)
	}
}
