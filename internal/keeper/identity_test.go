package keeper

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	aTenantID = "11111111-2222-3333-4444-555555555555"
	anApp     = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	anObject  = "99999999-8888-7777-6666-555555555555"
	client    = "smtp-client"
	app       = "entra-app"
)

// eachStore runs a test on both databases.
func eachStore(t *testing.T, f func(t *testing.T, r *rig), set ...func(*Config)) {
	t.Helper()
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		f(t, newRig(t, append([]func(*Config){func(k *Config) { onStore(t, k, c) }}, set...)...))
	})
}

// onStore puts a keeper on another database than the rig's own.
func onStore(t testing.TB, k *Config, c store.Config) {
	t.Helper()
	if c.URL == "" {
		return
	}
	db, err := store.OpenKeeper(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	k.DB = db
}

// of is the context of a tenant's mailbox.
func of(tenant, purpose string) act.Context {
	return act.Context{Region: "us", Tenant: tenant, Connection: "mailbox", Purpose: purpose, Trace: "t1"}
}

func aBinding() act.Binding {
	return act.Binding{Host: "mail.partner.example", Port: 25, CA: strings.Repeat("ab", 32), Authority: "login.partner.example",
		EntraTenant: aTenantID, App: anApp, AppObject: anObject}
}

func (r *rig) boundAll(t testing.TB, tenants ...string) {
	t.Helper()
	for _, tenant := range tenants {
		if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: of(tenant, "binding"), Binding: aBinding()}); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) issued(t testing.TB, tenant, purpose string, epoch uint64) act.Identity {
	t.Helper()
	got, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of(tenant, purpose), Epoch: epoch})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r *rig) to(t testing.TB, i act.Identity, states ...act.IdentityState) act.Identity {
	t.Helper()
	for _, s := range states {
		got, err := r.tryMove(t, i, s)
		if err != nil {
			t.Fatalf("%s to %s: %v", i.ID, s, err)
		}
		i = got
	}
	return i
}

func (r *rig) tryMove(t testing.TB, i act.Identity, s act.IdentityState) (act.Identity, error) {
	t.Helper()
	return r.MoveIdentity(t.Context(), someone(), act.Move{Context: of(i.Tenant, i.Purpose), Identity: i.ID, To: s})
}

// show is the state of an identity now.
func (r *rig) show(t testing.TB, id string) act.Identity {
	t.Helper()
	got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: act.Context{Region: "us", Purpose: "list", Trace: "t"}, Identity: id})
	if err != nil || len(got.Identities) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	return got.Identities[0]
}

func (r *rig) shake(t testing.TB, c act.Context, sum string) error {
	t.Helper()
	_, err := r.HandshakeAsTenant(t.Context(), someone(), act.Handshake{Context: c, Identity: sum, Scheme: 0x0403, Transcript: make([]byte, 32)})
	return err
}

// sql changes rows behind the keeper's back.
func (r *rig) exec(t testing.TB, q store.KeeperSQL, args ...any) {
	t.Helper()
	err := r.door.Change(t.Context(), func(tx store.KeeperTx) error {
		n, err := tx.Exec(q, args...)
		if err == nil && n == 0 {
			err = errors.New("nothing was changed")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// told waits until an alarm of a kind is there and entered.
func (r *rig) raised(t testing.TB, kind, tenant string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: "alarm", Tenant: tenant, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found {
			if e.Purpose == kind {
				return
			}
		}
	}
	t.Errorf("no alarm %s of %q: %+v", kind, tenant, r.alarms.recent())
}

// outcome waits for the outcome of the last act of a name.
func (r *rig) outcome(t testing.TB, name act.Name) (before, after ledger.Entry) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: string(name), Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found {
			if e.Of == nil {
				before = e
			}
		}
		for _, e := range found {
			if e.Of != nil && *e.Of == before.Index {
				return before, e
			}
		}
	}
	t.Fatalf("%s has no outcome", name)
	return
}

func TestIssueIdentity(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", client)}); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
			t.Errorf("without a binding: %v", err)
		}
		r.boundAll(t, "acme")
		one := r.issued(t, "acme", client, 0)
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
		renewed := r.issued(t, "acme", client, 0)
		if renewed.Epoch != 1 || renewed.Name != one.Name || renewed.SHA256 == one.SHA256 {
			t.Errorf("a renewal: %+v", renewed)
		}
		next := r.issued(t, "acme", client, 2)
		m, err := parseName(next.Name, "us", "gate.example")
		if err != nil || next.Epoch != 2 || m.Label == n.Label {
			t.Errorf("the next epoch: %+v %v", next, err)
		}
		for epoch, kind := range map[uint64]fault.Kind{1: fault.Conflict, 2: fault.Conflict, 4: fault.Conflict} {
			if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", client), Epoch: epoch}); !fault.Is(err, kind) {
				t.Errorf("epoch %d: %v", epoch, err)
			}
		}
		r.issued(t, "acme", client, 0)
		if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", client)}); !fault.Is(err, fault.Conflict) {
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
		"dkim":           {Context: of("acme", "dkim")},
		"arc":            {Context: of("acme", "arc")},
		"a server":       {Context: of("acme", "smtp-server")},
		"nonsense":       {Context: of("acme", "fun")},
		"another issuer": {Context: of("acme", client), Issuer: "acme"},
		"a short life":   {Context: of("acme", client), LifeSeconds: 5},
		"a long life":    {Context: of("acme", client), LifeSeconds: 91 * 24 * 3600},
		"a negative one": {Context: of("acme", client), LifeSeconds: -5},
	} {
		if _, err := r.IssueIdentity(t.Context(), someone(), q); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: act.Context{Region: "us", Tenant: hostsTenant, Connection: "x", Purpose: client, Trace: "t"}}); !fault.Is(err, fault.Denied) {
		t.Errorf("the region's own: %v", err)
	}
	r.raised(t, alarmRefused, hostsTenant)
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
	one := r.to(t, r.issued(t, "acme", client, 0), act.Active, act.Compromised)
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", client)}); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.HintOf(err), "epoch 2") {
		t.Errorf("a renewal under a compromised name: %v", err)
	}
	if two := r.issued(t, "acme", client, 2); two.Name == one.Name {
		t.Errorf("%+v", two)
	}
}

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
		other := r.to(t, r.issued(t, "acme", client, 0), act.Active)
		for name, q := range map[string]act.Assertion{
			"a client's key":  {Context: of("acme", app), Identity: other.ID, LifeSeconds: 300},
			"another purpose": {Context: of("acme", client), LifeSeconds: 300},
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

// A key of the pool goes to one identity and is gone from the pool.
func TestPool(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other")
		untilTrue(t, "the pool is full", func() bool { n, err := r.spares(t.Context()); return err == nil && n == 2 })
		made := map[string]bool{}
		for _, tenant := range []string{"acme", "acme", "other", "other"} {
			leaf := r.verify(t, r.issued(t, tenant, app, 0), x509.ExtKeyUsageClientAuth)
			sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			if made[string(sum[:])] {
				t.Error("two identities have one key")
			}
			made[string(sum[:])] = true
		}
		untilTrue(t, "the pool is full again", func() bool { n, err := r.spares(t.Context()); return err == nil && n == 2 })
	}, func(c *Config) { c.Pool = 2 })
}

func untilTrue(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 s: " + what)
		}
	}
}

// TestMoves walks the whole table, and everything that is not in it.
func TestMoves(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	all := []act.IdentityState{act.Wanted, act.Issued, act.Staged, act.Active, act.Retiring, act.Retired, act.Compromised}
	one := r.issued(t, "acme", client, 0)
	for _, from := range all {
		for _, to := range all {
			r.exec(t, "UPDATE keeper_identity SET state = $1 WHERE id = $2", string(from), one.ID)
			r.signers.drop("acme", "mailbox")
			got, err := r.tryMove(t, one, to)
			may := mayMove(from, to) == nil && !(from == act.Wanted && to == act.Issued)
			switch {
			case may && (err != nil || got.State != to || r.show(t, one.ID).State != to):
				t.Errorf("%s to %s: %+v %v", from, to, got, err)
			case !may && (!fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" || r.show(t, one.ID).State != from):
				t.Errorf("%s to %s: %v, and it is %s", from, to, err, r.show(t, one.ID).State)
			}
			if before, after := r.outcome(t, act.MoveIdentity); may && (before.Subject != one.ID+" "+string(from)+"→"+string(to) || after.Outcome != carried) || !may && !strings.HasPrefix(after.Outcome, failed) {
				t.Errorf("%s to %s: %+v %+v", from, to, before, after)
			}
		}
	}
}

func TestTwoGates(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		a := r.to(t, r.issued(t, "acme", client, 0), act.Active)
		b := r.to(t, r.issued(t, "acme", client, 2), act.Staged)
		c := r.issued(t, "acme", client, 0)
		for _, s := range []act.IdentityState{act.Staged, act.Active} {
			if _, err := r.tryMove(t, c, s); !fault.Is(err, fault.Conflict) {
				t.Errorf("a third becomes %s: %v", s, err)
			}
		}
		r.to(t, b, act.Active)
		if r.show(t, a.ID).State != act.Retiring || r.show(t, b.ID).State != act.Active {
			t.Errorf("%s and %s", r.show(t, a.ID).State, r.show(t, b.ID).State)
		}
		if before, _ := r.outcome(t, act.MoveIdentity); before.Subject != b.ID+" staged→active, "+a.ID+" active→retiring" {
			t.Error(before.Subject)
		}
		r.to(t, a, act.Active) // undone
		if r.show(t, a.ID).State != act.Active || r.show(t, b.ID).State != act.Retiring {
			t.Errorf("%s and %s", r.show(t, a.ID).State, r.show(t, b.ID).State)
		}
		r.to(t, b, act.Retired)
		r.to(t, c, act.Active)
		if r.show(t, a.ID).State != act.Retiring {
			t.Error(r.show(t, a.ID).State)
		}
	})
}

// TestWrongFits: what does not fit is refused, entered and alarmed.
func TestWrongFits(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme", "other")
	if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: act.Context{Region: "us", Tenant: "acme", Connection: "second", Purpose: "binding", Trace: "t"}, Binding: aBinding()}); err != nil {
		t.Fatal(err)
	}
	active := r.to(t, r.issued(t, "acme", client, 0), act.Active)
	if err := r.shake(t, of("acme", client), active.SHA256); err != nil {
		t.Fatal(err)
	}
	decoy, err := r.issue(t.Context(), wish{id: "01DECOY", seat: seat{"other", "mailbox", client}, decoy: true})
	if err != nil {
		t.Fatal(err)
	}
	r.to(t, decoy.told(), act.Active)
	compromised := r.to(t, r.issued(t, "acme", client, 0), act.Staged)
	if err := r.shake(t, of("acme", client), compromised.SHA256); err != nil {
		t.Fatal(err)
	}
	r.to(t, compromised, act.Compromised)
	host, err := r.HostCertificate(t.Context(), someone(), act.Host{Context: about(""), Host: "mx.us.gate.example"})
	if err != nil {
		t.Fatal(err)
	}
	second := of("acme", client)
	second.Connection = "second"
	entra := r.to(t, r.issued(t, "acme", app, 0), act.Active)
	for name, c := range map[string]struct {
		about act.Context
		sum   string
	}{
		"another tenant's":     {of("other", client), active.SHA256},
		"another connection's": {second, active.SHA256},
		"another purpose":      {of("acme", client), entra.SHA256},
		"a host's":             {of("acme", client), sumOf(host.Chain[0])},
		"retired":              {of("acme", client), r.to(t, r.issued(t, "acme", client, 2), act.Retired).SHA256},
		"compromised":          {of("acme", client), compromised.SHA256},
		"only issued":          {of("acme", client), r.issued(t, "acme", client, 0).SHA256},
		"a decoy":              {of("other", client), decoy.sha256},
	} {
		r.alarms.mu.Lock()
		r.alarms.told = nil
		r.alarms.mu.Unlock()
		if err := r.shake(t, c.about, c.sum); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if before, after := r.outcome(t, act.HandshakeAsTenant); before.Outcome != begun || !strings.HasPrefix(after.Outcome, refused) || before.Tenant != c.about.Tenant {
			t.Errorf("%s: %+v %+v", name, before, after)
		}
		r.raised(t, alarmRefused, c.about.Tenant)
		if _, err := r.TenantCertificate(t.Context(), someone(), act.Which{Context: c.about, Identity: c.sum}); !fault.Is(err, fault.Denied) {
			t.Errorf("the certificate of %s: %v", name, err)
		}
	}
	r.raised(t, alarmDecoy, "other")
	if err := r.shake(t, of("acme", client), strings.Repeat("0", 64)); !fault.Is(err, fault.Missing) {
		t.Errorf("unknown: %v", err)
	}
	if err := r.shake(t, of("acme", client), active.ID); !fault.Is(err, fault.Invalid) {
		t.Errorf("an id: %v", err)
	}
}

// TestSwappedRows: what was sealed for one place opens at no other, whatever
// else of the row was edited to match.
func TestSwappedIdentities(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme", "other")
	a := r.to(t, r.issued(t, "acme", client, 0), act.Active)
	b := r.to(t, r.issued(t, "other", client, 0), act.Active)
	second := r.to(t, r.issued(t, "acme", client, 0), act.Staged)
	for name, c := range map[string]struct {
		q    store.KeeperSQL
		args []any
		mend store.KeeperSQL
	}{
		"a handle of another tenant": {"UPDATE keeper_identity SET handle = (SELECT handle FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{b.ID, a.ID}, ""},
		"a handle of the same place": {"UPDATE keeper_identity SET handle = (SELECT handle FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{second.ID, a.ID}, ""},
		"an epoch":                   {"UPDATE keeper_identity SET epoch = 7 WHERE id = $1", []any{a.ID}, ""},
		"a binding":                  {"UPDATE keeper_identity SET binding = $1 WHERE id = $2", []any{bindingText(act.Binding{Host: "evil.example", Port: 25}), a.ID}, ""},
		"a marker of another tenant": {"UPDATE keeper_identity SET marker = (SELECT marker FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{b.ID, a.ID}, ""},
		"a chain":                    {"UPDATE keeper_identity SET chain = (SELECT chain FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{second.ID, a.ID}, ""},
		"a row of another tenant":    {"UPDATE keeper_identity SET tenant = 'other' WHERE id = $1", []any{a.ID}, ""},
		"a row of another purpose":   {"UPDATE keeper_identity SET purpose = 'entra-app' WHERE id = $1", []any{a.ID}, ""},
	} {
		was, err := r.row(t.Context(), selectByID, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		r.exec(t, c.q, c.args...)
		r.signers.drop("acme", "mailbox")
		now, err := r.row(t.Context(), selectByID, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		err = r.shake(t, act.Context{Region: "us", Tenant: now.tenant, Connection: now.connection, Purpose: now.purpose, Trace: "t"}, a.SHA256)
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		r.exec(t, "DELETE FROM keeper_identity WHERE id = $1", a.ID)
		r.exec(t, insertIdentity, was.values()...)
		r.signers.drop("acme", "mailbox")
		r.signers.drop("other", "mailbox")
		if err := r.shake(t, of("acme", client), a.SHA256); err != nil {
			t.Fatalf("mended after %s: %v", name, err)
		}
	}
	// The connection's binding edited alone.
	r.exec(t, "UPDATE keeper_binding SET binding = $1 WHERE tenant = 'acme'", bindingText(act.Binding{Host: "evil.example", Port: 25}))
	r.signers.drop("acme", "mailbox")
	if err := r.shake(t, of("acme", client), a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("an edited binding: %v", err)
	}
}

// A row of one region opens in no other, even under the same KEK.
func TestAnotherRegion(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	a := r.to(t, r.issued(t, "acme", client, 0), act.Active)
	row, err := r.row(t.Context(), selectByID, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := r.seals.row(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	uk := openRig(t, t.TempDir(), r.kek, func(c *Config) { c.Region, c.Hosts = "uk", nil })
	uk.exec(t, insertIdentity, row.values()...)
	uk.exec(t, insertDataKey, "acme", wrapped.KEK, wrapped.Blob)
	uk.exec(t, insertBinding, "acme", "mailbox", row.binding, int64(1))
	c := of("acme", client)
	c.Region = "uk"
	if err := uk.shake(t, c, a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	// With a data key of its own neither.
	uk.exec(t, "DELETE FROM keeper_datakey WHERE tenant = 'acme'")
	if err := uk.shake(t, c, a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
}

func TestListIdentities(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other", "third")
		want := map[string][]string{}
		for _, tenant := range []string{"acme", "other", "third"} {
			for range 3 {
				want[tenant] = append(want[tenant], r.issued(t, tenant, client, 0).ID)
			}
		}
		read := func(c act.Context, limit int) (ids []string, pages int) {
			for after := ""; ; pages++ {
				got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: c, After: after, Limit: limit})
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range got.Identities {
					ids = append(ids, i.ID)
				}
				if after = got.Next; after == "" {
					return ids, pages + 1
				}
			}
		}
		region := act.Context{Region: "us", Purpose: "list", Trace: "t"}
		all, pages := read(region, 2)
		if len(all) != 10 || pages != 5 {
			t.Errorf("%d in %d pages", len(all), pages)
		}
		for tenant, ids := range want {
			c := region
			c.Tenant = tenant
			if got, _ := read(c, 2); strings.Join(got, " ") != strings.Join(ids, " ") {
				t.Errorf("%s: %v, not %v", tenant, got, ids)
			}
			c.Connection = "another"
			if got, _ := read(c, 0); len(got) != 0 {
				t.Errorf("%v", got)
			}
		}
		host := region
		host.Connection = "mx.us.gate.example"
		got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: host})
		if err != nil || len(got.Identities) != 1 || got.Identities[0].Tenant != "" || got.Identities[0].Purpose != "smtp-server" || got.Identities[0].State != act.Active {
			t.Errorf("%+v %v", got, err)
		}
		c := region
		c.Tenant = "other"
		if got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: c, Identity: want["acme"][0]}); err != nil || len(got.Identities) != 0 {
			t.Errorf("another tenant's: %+v %v", got, err)
		}
		for _, q := range []act.IdentityQuery{{Context: region, Limit: 201}, {Context: region, Limit: -1}, {Context: region, After: "none"}} {
			if _, err := r.ListIdentities(t.Context(), someone(), q); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}

// A page is cut by its size too.
func TestLongPage(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("x", 40<<10)
	for i := range 15 {
		id := identity{id: string(rune('a' + i)), tenant: "acme", connection: "mailbox", purpose: client, chain: long, sha256: string(rune('a' + i)), handle: []byte{1}, marker: []byte{1}}
		r.exec(t, insertIdentity, id.values()...)
	}
	got, err := r.list(t.Context(), act.IdentityQuery{Context: of("acme", "list")})
	if err != nil || len(got.Identities) != 10 || got.Next != "j" {
		t.Errorf("%d, next %q: %v", len(got.Identities), got.Next, err)
	}
}

// A row that a crash left wanted is retired at the start, and says why.
func TestLeftWanted(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		w := wish{id: "01OLD", seat: seat{"acme", "mailbox", client}}
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
		r.exec(t, "UPDATE keeper_identity SET created_at = created_at - 660000000 WHERE id <> '01NEW'")
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

// fakeIssuer signs with the builtin CA, or fails; it advises.
type fakeIssuer struct {
	*authority
	fail  error
	other bool // gives a certificate of another key
	at    time.Time
}

func (f *fakeIssuer) Name() string { return "acme" }

func (f *fakeIssuer) Issue(ctx context.Context, r Request) ([][]byte, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	// As an ACME client does, the key signs the request.
	if _, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{r.Name}}, r.Key); err != nil {
		return nil, err
	}
	if f.other {
		r.Key = f.k.authority.online.Key.Signer
	}
	return f.authority.Issue(ctx, r)
}

func (f *fakeIssuer) Advice(_ context.Context, chain [][]byte) (time.Time, string, error) {
	if len(chain) != 2 {
		return time.Time{}, "", errors.New("no chain")
	}
	return f.at, "the CA had an incident", f.fail
}

func TestOtherIssuer(t *testing.T) {
	f := &fakeIssuer{at: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	r := newRig(t, func(c *Config) { c.Issuers = []Issuer{f} })
	f.authority = &r.authority
	r.boundAll(t, "acme")
	ask := act.Issue{Context: of("acme", client), Issuer: "acme"}
	got, err := r.IssueIdentity(t.Context(), someone(), ask)
	if err != nil || got.Issuer != "acme" || got.State != act.Issued {
		t.Fatalf("%+v %v", got, err)
	}
	r.to(t, got, act.Active)
	r.askAdvice(t.Context())
	if got := r.show(t, got.ID); got.Announced == nil || !got.Announced.Equal(f.at) || got.Explanation == "" {
		t.Errorf("%+v", got)
	}
	f.other = true
	if _, err := r.IssueIdentity(t.Context(), someone(), ask); !fault.Is(err, fault.Later) {
		t.Errorf("another key: %v", err)
	}
	f.fail = fault.New(fault.Later, "acme", "the CA is away")
	r.askAdvice(t.Context())
	if got := r.show(t, got.ID); got.Announced == nil {
		t.Errorf("no advice is no other advice: %+v", got)
	}
	if _, err := r.IssueIdentity(t.Context(), someone(), ask); err != f.fail {
		t.Errorf("%v", err)
	}
	all, err := r.list(t.Context(), act.IdentityQuery{Context: of("acme", "list")})
	if err != nil || len(all.Identities) != 3 {
		t.Fatalf("%+v %v", all, err)
	}
	for _, i := range all.Identities {
		if i.ID != got.ID && (i.State != act.Retired || i.Explanation == "") {
			t.Errorf("%+v", i)
		}
	}
}

func TestMarker(t *testing.T) {
	r := newRig(t)
	dk, err := r.seals.key(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	place := seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: client}
	size := 0
	for range 50 {
		for _, decoy := range []bool{true, false} {
			b, err := markerOf(dk, place, decoy)
			if err != nil {
				t.Fatal(err)
			}
			if size == 0 {
				size = len(b)
			}
			if got, err := readMarker(dk, place, b); got != decoy || err != nil || len(b) != size {
				t.Errorf("%v %v, %d bytes", got, err, len(b))
			}
		}
	}
	short, err := dk.Seal(seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: client, Kind: seal.Marker}, seal.NewSecret([]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readMarker(dk, place, short); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
}

// TestLifeDocumented compares docs/states.md with the table.
func TestLifeDocumented(t *testing.T) {
	var want strings.Builder
	want.WriteString("| from | to |\n|---|---|\n")
	for _, s := range life() {
		want.WriteString("| " + string(s.from) + " | " + string(s.to) + " |\n")
	}
	doc, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("docs/states.md has not this table:\n%s", want.String())
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
