package keeper

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
)

func TestIssueIdentity(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient)}); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
			t.Errorf("without a binding: %v", err)
		}
		r.boundAll(t, "acme")
		one := r.issued(t, "acme", ofClient, 0)
		before, after := r.outcome(t, act.IssueIdentity)
		if before.Subject != one.ID || before.Outcome != begun || after.Outcome != carried {
			t.Errorf("%+v %+v", before, after)
		}
		if one.Epoch != 1 || one.State != act.Issued || one.Issuer != "builtin" || one.Driver != "software" || len(one.Chain) != 2 {
			t.Errorf("%+v", one)
		}
		n, err := parseName(one.Name, "us", "gate.example")
		if err != nil || n.Epoch != 1 || len(n.Label) < 10 {
			t.Errorf("%+v %v", n, err)
		}
		r.verify(t, one, x509.ExtKeyUsageClientAuth)
		if left := time.Until(one.NotAfter); left > leafLife || left < leafLife-time.Hour {
			t.Errorf("it lives %v", left)
		}
		renewed := r.issued(t, "acme", ofClient, 0)
		if renewed.Epoch != 1 || renewed.Name != one.Name || renewed.SHA256 == one.SHA256 {
			t.Errorf("a renewal: %+v", renewed)
		}
		next := r.issued(t, "acme", ofClient, 2)
		m, err := parseName(next.Name, "us", "gate.example")
		if err != nil || next.Epoch != 2 || m.Label == n.Label {
			t.Errorf("the next epoch: %+v %v", next, err)
		}
		for epoch, kind := range map[uint64]fault.Kind{1: fault.Conflict, 2: fault.Conflict, 4: fault.Conflict} {
			if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient), Epoch: epoch}); !fault.Is(err, kind) {
				t.Errorf("epoch %d: %v", epoch, err)
			}
		}
		r.issued(t, "acme", ofClient, 0)
		if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient)}); !fault.Is(err, fault.Conflict) {
			t.Errorf("a fifth: %v", err)
		}
	})
}

// verify holds a certificate against the region's root.
func (r *rig) verify(t testing.TB, i act.Identity, usage x509.ExtKeyUsage) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(i.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	roots, inters := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(r.Root())
	inter, err := x509.ParseCertificate(i.Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	inters.AddCert(inter)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inters, DNSName: i.Name, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: r.now()}); err != nil {
		t.Error(err)
	}
	return leaf
}

func TestIssueRefuses(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	for name, q := range map[string]act.Issue{
		"no domain":      {Context: of("acme", "dkim")}, // of a connection
		"a server":       {Context: of("acme", "smtp-server")},
		"nonsense":       {Context: of("acme", "fun")},
		"another issuer": {Context: of("acme", ofClient), Issuer: "acme"},
		"a short life":   {Context: of("acme", ofClient), LifeSeconds: 5},
		"a long life":    {Context: of("acme", ofClient), LifeSeconds: 91 * 24 * 3600},
		"a negative one": {Context: of("acme", ofClient), LifeSeconds: -5},
	} {
		if _, err := r.IssueIdentity(t.Context(), someone(), q); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: act.Context{Region: "us", Tenant: hostsTenant, Connection: "x", Purpose: ofClient, Trace: "t"}}); !fault.Is(err, fault.Denied) {
		t.Errorf("the region's own: %v", err)
	}
	r.alarmed(t, alarmRefused, hostsTenant)
	// What was wanted and did not come is retired, with the reason.
	all, err := r.list(t.Context(), act.IdentityQuery{Context: act.Context{Region: "us", Tenant: "acme"}})
	if err != nil || len(all.Identities) != 2 {
		t.Fatalf("%+v %v", all, err)
	}
	for _, i := range all.Identities {
		if i.State != act.Retired || !strings.HasPrefix(i.Explanation, "not issued: ") {
			t.Errorf("%+v", i)
		}
	}
}

func TestCompromisedEpoch(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active, act.Compromised)
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient)}); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.HintOf(err), "epoch 2") {
		t.Errorf("a renewal under a compromised name: %v", err)
	}
	if two := r.issued(t, "acme", ofClient, 2); two.Name == one.Name {
		t.Errorf("%+v", two)
	}
}

// A renewal names its epoch, so that it keeps the name while a standby of the
// next one is there.
func TestRenewNamedEpoch(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		ask := func(q act.Issue) (act.Identity, error) {
			q.Context = of("acme", ofClient)
			return r.IssueIdentity(t.Context(), someone(), q)
		}
		if _, err := ask(act.Issue{Renew: 1}); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
			t.Errorf("a renewal of nothing: %v", err)
		}
		one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		standby := r.issued(t, "acme", ofClient, 2)
		renewed, err := ask(act.Issue{Renew: 1})
		if err != nil || renewed.Name != one.Name || renewed.Epoch != 1 || renewed.SHA256 == one.SHA256 {
			t.Errorf("%+v %v", renewed, err)
		}
		r.verify(t, renewed, x509.ExtKeyUsageClientAuth)
		fresh, err := ask(act.Issue{Renew: 2})
		if err != nil || fresh.Name != standby.Name || fresh.Epoch != 2 {
			t.Errorf("%+v %v", fresh, err)
		}
		r.to(t, fresh, act.Retired)
		if _, err := ask(act.Issue{Renew: 3}); !fault.Is(err, fault.Conflict) {
			t.Errorf("an epoch that there is not: %v", err)
		}
		if _, err := ask(act.Issue{Renew: 2, Epoch: 3}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("both: %v", err)
		}
		r.to(t, renewed, act.Active)
		r.to(t, one, act.Compromised)
		if _, err := ask(act.Issue{Renew: 1}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "compromised") {
			t.Errorf("a name of which a key was stolen: %v", err)
		}
		if _, err := ask(act.Issue{Renew: 2}); err != nil {
			t.Errorf("the standby's: %v", err)
		}
	})
}

// A key of the pool goes to one identity and is gone from the pool.
func TestPool(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other")
		until(t, "the pool is full", func() bool { n, err := r.spares(t.Context()); return err == nil && n == 2 })
		made := map[string]bool{}
		for _, tenant := range []string{"acme", "acme", "other", "other"} {
			leaf := r.verify(t, r.issued(t, tenant, app, 0), x509.ExtKeyUsageClientAuth)
			sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			if made[string(sum[:])] {
				t.Error("two identities have one key")
			}
			made[string(sum[:])] = true
		}
		until(t, "the pool is full again", func() bool { n, err := r.spares(t.Context()); return err == nil && n == 2 })
	}, func(c *Config) { c.Pool = 2 })
}

// A row that a crash left wanted is retired at the start, and says why.
func TestLeftWanted(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		w := wish{id: "01OLD", seat: seat{"acme", "mailbox", ofClient}}
		if _, _, err := r.want(t.Context(), w, builtin); err != nil {
			t.Fatal(err)
		}
		w.id = "01NEW"
		if _, _, err := r.want(t.Context(), w, builtin); err != nil {
			t.Fatal(err)
		}
		w.id = "01OTHER"
		if _, _, err := r.want(t.Context(), w, "acme"); err != nil {
			t.Fatal(err)
		}
		r.sql(t, "UPDATE keeper_identity SET created_at = created_at - 660000000 WHERE id <> '01NEW'")
		if err := r.openIdentities(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.show(t, "01OLD"); got.State != act.Retired || !strings.Contains(got.Explanation, "stopped") {
			t.Errorf("%+v", got)
		}
		if before, after := r.outcome(t, act.MoveIdentity); before.Subject != "01OLD wanted→retired" || before.Actor != "keeper" || after.Outcome != carried {
			t.Errorf("%+v %+v", before, after)
		}
		for _, id := range []string{"01NEW", "01OTHER"} {
			if got := r.show(t, id); got.State != act.Wanted {
				t.Errorf("%+v", got)
			}
		}
	})
}

// What the keeper stopped in the middle of is finished by the next process: who
// asked for it waits for its certificate.
func TestLeftWantedIsFinished(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	if _, _, err := r.want(t.Context(), wish{id: "01LEFT", seat: seat{"acme", "mailbox", ofClient}}, builtin); err != nil {
		t.Fatal(err)
	}
	r.end()
	r = openRig(t, r.dir, r.kek)
	got := r.reached(t, "01LEFT", act.Issued)
	r.verify(t, got, x509.ExtKeyUsageClientAuth)
}

// fakeIssuer signs with the builtin CA, or fails; it advises.
type fakeIssuer struct {
	at    time.Time
	calls atomic.Int64

	mu        sync.Mutex
	authority *authority
	fail      error
	other     bool // gives a certificate of another key
	replaces  []byte
}

func (f *fakeIssuer) set(fail error, other bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.other = fail, other
}

func (f *fakeIssuer) replaced() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replaces
}

func (f *fakeIssuer) Name() string { return "acme" }

func (f *fakeIssuer) Issue(ctx context.Context, r Request) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls.Add(1)
	f.replaces = r.Replaces
	if f.fail != nil {
		return nil, f.fail
	}
	if f.authority == nil {
		return nil, fault.New(fault.Later, "acme", "not yet")
	}
	// As an ACME client does, the key signs the request.
	if _, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{r.Name}}, r.Key); err != nil {
		return nil, err
	}
	if f.other {
		r.Key = f.authority.online.Key.Signer
	}
	return f.authority.Issue(ctx, r)
}

func (f *fakeIssuer) Advice(_ context.Context, chain [][]byte) (time.Time, string, error) {
	if len(chain) != 2 {
		return time.Time{}, "", errors.New("no chain")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, "the CA had an incident", f.fail
}

// reached waits until an identity is in a state.
func (r *rig) reached(t testing.TB, id string, s act.IdentityState) act.Identity {
	t.Helper()
	until(t, "the identity is "+string(s), func() bool { return r.show(t, id).State == s })
	return r.show(t, id)
}

func TestOtherIssuer(t *testing.T) {
	f := &fakeIssuer{at: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	r := newRig(t, func(c *Config) { c.Issuers = []Issuer{f} })
	f.authority = &r.authority
	r.boundAll(t, "acme")
	ask := func() act.Identity {
		got, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient), Issuer: "acme"})
		if err != nil || got.Issuer != "acme" || got.State != act.Wanted {
			t.Fatalf("%+v %v", got, err)
		}
		return got
	}
	got := r.reached(t, ask().ID, act.Issued)
	r.to(t, got, act.Active)
	r.askAdvice(t.Context())
	if got := r.show(t, got.ID); got.Announced == nil || !got.Announced.Equal(f.at) || got.Explanation == "" {
		t.Errorf("%+v", got)
	}
	f.set(nil, true) // another key: it may be the answer to another order, so it is asked again
	id := ask().ID
	until(t, "it was asked", func() bool { return f.calls.Load() >= 2 })
	if got := r.show(t, id); got.State != act.Wanted {
		t.Errorf("%+v", got)
	}
	f.set(fault.New(fault.Denied, "acme", "the name could not be validated"), false)
	r.askAdvice(t.Context())
	if got := r.show(t, got.ID); got.Announced == nil {
		t.Errorf("no advice is no other advice: %+v", got)
	}
	if got := r.reached(t, ask().ID, act.Retired); !strings.Contains(got.Explanation, "validated") {
		t.Errorf("%+v", got)
	}
	until(t, "the alarm is raised", func() bool { return r.hasAlarm(alarmIssuer) })
	f.set(nil, false)
	r.tryAwaited(t.Context(), id, await{})
	renewed := r.show(t, id)
	if renewed.State != act.Issued || renewed.Name != got.Name || !bytes.Equal(f.replaced(), got.Chain[0]) {
		t.Errorf("%+v", renewed)
	}
}

// What an issuer was asked for is asked for again by the next process.
func TestAwaitedAfterAStart(t *testing.T) {
	f := &fakeIssuer{fail: fault.New(fault.Later, "acme", "the CA is away")}
	set := func(c *Config) { c.Issuers = []Issuer{f} }
	r := newRig(t, set)
	f.authority = &r.authority
	r.boundAll(t, "acme")
	got, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient), Issuer: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it was asked", func() bool { return f.calls.Load() > 0 })
	r.end()
	f.set(nil, false)
	again := &fakeIssuer{}
	r = openRig(t, r.dir, r.kek, func(c *Config) {
		c.Issuers = []Issuer{again}
		c.MoreIssuers = func(account crypto.Signer) ([]Issuer, error) {
			if account == nil {
				t.Error("no account")
			}
			return nil, nil
		}
	})
	again.mu.Lock()
	again.authority = &r.authority
	again.mu.Unlock()
	r.tryAwaited(t.Context(), got.ID, await{}) // the first may have come before the line above
	r.reached(t, got.ID, act.Issued)
}

// The key of the account stays the same.
func TestAccountKey(t *testing.T) {
	r := newRig(t)
	one, err := r.account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	r = openRig(t, r.dir, r.kek)
	two, err := r.account(t.Context())
	if err != nil || !samePublic(one.Public(), two.Public()) {
		t.Errorf("%v", err)
	}
}

func TestParseName(t *testing.T) {
	good := sign.Name{Epoch: 3, Label: "abc", Region: "us", Base: "gate.example"}
	if n, err := parseName(good.String(), "us", "gate.example"); err != nil || n != good {
		t.Errorf("%+v %v", n, err)
	}
	for _, bad := range []string{"", "e3.abc.uk.gate.example", "3.abc.us.gate.example", "e03.abc.us.gate.example", "e-3.abc.us.gate.example", "e3.us.gate.example", "abc", "e3.abc.us.gate.example."} {
		if _, err := parseName(bad, "us", "gate.example"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
