package keeper

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	aTenantID = "11111111-2222-3333-4444-555555555555"
	anApp     = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	anObject  = "99999999-8888-7777-6666-555555555555"
	ofClient  = "smtp-client"
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
func (r *rig) sql(t testing.TB, q store.KeeperSQL, args ...any) {
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
func (r *rig) alarmed(t testing.TB, kind, tenant string) {
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

func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 s: " + what)
		}
	}
}
