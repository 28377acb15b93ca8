package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// eachRig runs f with a keeper on each database.
func eachRig(t *testing.T, f func(t *testing.T, r *rig), set ...func(*Config)) {
	t.Helper()
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		dir := t.TempDir()
		c.Dir = filepath.Join(dir, "db")
		f(t, openRigAt(t, dir, c, newKEK(t, "us"), set...))
	})
}

// edit changes rows behind the keeper's back.
func (r *rig) edit(t testing.TB, statement string, args ...any) {
	t.Helper()
	err := r.door.Change(t.Context(), func(tx store.KeeperTx) error {
		_, err := tx.Exec(store.KeeperSQL(statement), args...)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// beside changes the database while the keeper is not there.
func (r *rig) beside(t testing.TB, change func(store.KeeperTx) error) {
	t.Helper()
	db, err := store.OpenKeeper(t.Context(), r.at)
	if err == nil {
		err = errors.Join(db.Keeper().Change(t.Context(), change), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bindTo binds connections of tenants to a host.
func (r *rig) bindTo(t testing.TB, host string, connections ...string) {
	t.Helper()
	for _, c := range connections {
		tenant, connection, _ := strings.Cut(c, "/")
		b, err := json.Marshal(act.Binding{Host: host, Port: 587, ServerName: host})
		if err != nil {
			t.Fatal(err)
		}
		r.edit(t, string(insertBinding), tenant, connection, string(b), r.now().UnixMicro())
	}
}

func aboutOf(connection, purpose string) act.Context {
	tenant, name, _ := strings.Cut(connection, "/")
	return act.Context{Region: "us", Tenant: tenant, Connection: name, Purpose: purpose, Trace: "t1"}
}

func (r *rig) set(t testing.TB, connection, user, password string) {
	t.Helper()
	_, err := r.SetCredential(t.Context(), someone(), act.NewCredential{Context: aboutOf(connection, purposeAuth), User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open(connection string) (act.Credential, error) {
	return r.OpenCredential(context.Background(), someone(), act.Plain{Context: aboutOf(connection, purposeAuth)})
}

// within waits for a condition.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within ten seconds: " + what)
		}
	}
}

// hasAlarm reports whether an alarm of that kind was raised.
func (r *rig) hasAlarm(kind string) bool {
	for _, a := range r.alarms.recent() {
		if a.Kind == kind {
			return true
		}
	}
	return false
}

func TestCredential(t *testing.T) {
	eachRig(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		admin := aboutOf("acme/mailbox", purposeAdmin)
		_, err := r.SetCredential(ctx, someone(), act.NewCredential{Context: about(purposeAuth), User: "u", Password: "p"})
		if !fault.Is(err, fault.Missing) || !strings.Contains(err.Error(), "bound") {
			t.Errorf("without a binding: %v", err)
		}
		r.bindTo(t, "mx.acme.example", "acme/mailbox", "acme/archive")
		if _, err := r.open("acme/mailbox"); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
			t.Errorf("before it was set: %v", err)
		}
		r.set(t, "acme/mailbox", "user@acme.example", "first")
		r.set(t, "acme/mailbox", "user@acme.example", "a päßword \"with\" everything\n")
		r.set(t, "acme/archive", "", "only a password")
		if _, err := r.SetCredential(ctx, someone(), act.NewCredential{Context: admin, User: "", Password: "token"}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got, err := r.open("acme/mailbox")
			if err != nil || got != (act.Credential{User: "user@acme.example", Password: "a päßword \"with\" everything\n"}) {
				t.Errorf("%+v: %v", got, err)
			}
		}
		if got, err := r.OpenCredential(ctx, someone(), act.Plain{Context: admin}); err != nil || got.Password != "token" {
			t.Errorf("%+v: %v", got, err)
		}
		list, err := r.ListCredentials(ctx, someone(), act.Plain{Context: act.Context{Tenant: "acme"}})
		if err != nil || len(list.Credentials) != 3 {
			t.Fatalf("%+v: %v", list, err)
		}
		for i, want := range []string{"archive smtp-auth 0", "mailbox m365-admin 1", "mailbox smtp-auth 3"} {
			c := list.Credentials[i]
			if got := fmt.Sprintf("%s %s %d", c.Connection, c.Purpose, *c.Opened); got != want || (c.LastOpened != nil) != (*c.Opened > 0) || c.SetAt.IsZero() {
				t.Errorf("%s, want %s: %+v", got, want, c)
			}
		}
		for name, q := range map[string]act.NewCredential{
			"no password": {Context: about(purposeAuth), User: "u"},
			"too long":    {Context: about(purposeAuth), Password: strings.Repeat("x", maxCredential+1)},
		} {
			if _, err := r.SetCredential(ctx, someone(), q); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := r.OpenCredential(ctx, someone(), act.Plain{Context: about("smtp-client")}); !fault.Is(err, fault.Denied) {
			t.Errorf("another purpose: %v", err)
		}
		if _, err := r.RemoveCredential(ctx, someone(), act.Plain{Context: admin}); err != nil {
			t.Error(err)
		}
		if _, err := r.RemoveCredential(ctx, someone(), act.Plain{Context: admin}); !fault.Is(err, fault.Missing) {
			t.Errorf("removed twice: %v", err)
		}
		r.end()
		r = r.again(t)
		if got, err := r.open("acme/mailbox"); err != nil || !strings.HasPrefix(got.Password, "a pä") {
			t.Errorf("started again: %+v: %v", got, err)
		}
	})
}

// A row that was swapped, moved or edited opens nothing, is entered as refused
// and raises the alarm.
func TestSwappedCredentials(t *testing.T) {
	const swap = `UPDATE keeper_credential SET blob = (SELECT blob FROM keeper_credential WHERE tenant = $1 AND connection = $2) WHERE tenant = 'acme' AND connection = 'mailbox'`
	cases := []struct {
		name string
		do   func(t *testing.T, r *rig)
	}{
		{"another tenant's blob", func(t *testing.T, r *rig) { r.edit(t, swap, "globex", "mailbox") }},
		{"another connection's blob", func(t *testing.T, r *rig) { r.edit(t, swap, "acme", "archive") }},
		{"another connection's row", func(t *testing.T, r *rig) {
			r.edit(t, `DELETE FROM keeper_credential WHERE tenant = 'acme' AND connection = 'mailbox'`)
			r.edit(t, `UPDATE keeper_credential SET connection = 'mailbox' WHERE tenant = 'acme' AND connection = 'archive'`)
		}},
		{"another purpose", func(t *testing.T, r *rig) {
			r.edit(t, `DELETE FROM keeper_credential WHERE tenant = 'acme' AND connection = 'mailbox'`)
			r.edit(t, `UPDATE keeper_credential SET purpose = 'smtp-auth', connection = 'mailbox' WHERE tenant = 'acme' AND purpose = 'm365-admin'`)
		}},
		{"the connection's binding edited", func(t *testing.T, r *rig) {
			r.edit(t, `UPDATE keeper_binding SET binding = $1 WHERE tenant = 'acme'`, `{"host":"evil.example","port":587,"server_name":"evil.example"}`)
		}},
		{"both bindings edited", func(t *testing.T, r *rig) {
			r.edit(t, `UPDATE keeper_binding SET binding = $1 WHERE tenant = 'acme'`, `{"host":"evil.example","port":587}`)
			r.edit(t, `UPDATE keeper_credential SET binding = $1 WHERE tenant = 'acme'`, `{"host":"evil.example","port":587}`)
		}},
		{"the marker of another", func(t *testing.T, r *rig) {
			r.edit(t, `UPDATE keeper_credential SET marker = (SELECT marker FROM keeper_credential WHERE tenant = 'acme' AND connection = 'archive' AND purpose = 'smtp-auth')
				WHERE tenant = 'acme' AND connection = 'mailbox'`)
		}},
		{"another tenant's data key", func(t *testing.T, r *rig) {
			r.edit(t, `UPDATE keeper_datakey SET blob = (SELECT blob FROM keeper_datakey WHERE tenant = 'globex') WHERE tenant = 'acme'`)
			r.seals.mu.Lock()
			clear(r.seals.open)
			r.seals.mu.Unlock()
		}},
	}
	eachRig(t, func(t *testing.T, r *rig) {
		for _, c := range cases {
			r.edit(t, `DELETE FROM keeper_credential`)
			r.edit(t, `DELETE FROM keeper_binding`)
			r.bindTo(t, "mx.acme.example", "acme/mailbox", "acme/archive", "acme/admin", "globex/mailbox")
			r.set(t, "acme/mailbox", "u", "mine")
			r.set(t, "acme/archive", "u", "other")
			r.set(t, "globex/mailbox", "u", "theirs")
			if _, err := r.SetCredential(t.Context(), someone(), act.NewCredential{Context: aboutOf("acme/admin", purposeAdmin), Password: "admin"}); err != nil {
				t.Fatal(err)
			}
			if got, err := r.open("acme/mailbox"); err != nil || got.Password != "mine" {
				t.Fatalf("%s, before: %+v: %v", c.name, got, err)
			}
			r.openings.write(t.Context())
			c.do(t, r)
			got, err := r.open("acme/mailbox")
			if !fault.Is(err, fault.Denied) || got != (act.Credential{}) || fault.HintOf(err) == "" {
				t.Errorf("%s: %+v: %v", c.name, got, err)
			}
		}
		within(t, "the refusals are entered", func() bool {
			n := 0
			for _, e := range r.entries(t) {
				if e.Act == string(act.OpenCredential) && strings.HasPrefix(e.Outcome, refused) {
					n++
				}
			}
			return n == len(cases)
		})
		if !r.hasAlarm(alarmRefused) {
			t.Error("no alarm")
		}
	})
}

// A keeper of another region does not open the database at all.
func TestAnotherRegionsKEK(t *testing.T) {
	r := newRig(t)
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")
	r.end()
	db, err := store.OpenKeeper(t.Context(), store.Config{Dir: filepath.Join(r.dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if k, err := New(t.Context(), Config{DB: db, Dir: r.dir, Region: "us", Base: "gate.example", KEKs: append(r.c.KEKs[:0:0], newKEK(t, "us"))}); !fault.Is(err, fault.Later) {
		t.Errorf("with another KEK: %v, %v", k, err)
	}
	// The region's own KEK under another region's name: nothing that is sealed is
	// of that place.
	k, err := New(t.Context(), Config{DB: db, Dir: r.dir, Region: "uk", Base: "gate.example", KEKs: r.c.KEKs})
	if err == nil && k.mayAct() == nil {
		t.Error("the keeper of another region took the database")
	}
}
