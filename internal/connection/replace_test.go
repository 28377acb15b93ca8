package connection_test

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

func TestReplaceM365(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) { replaceM365(t, newCloudOn(t, s, nil)) })
}

func replaceM365(t *testing.T, c *cloud) {
	c.connect(t)
	old := c.identities(t)
	p, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	again, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	if err != nil || again.ID != p.ID {
		t.Errorf("asked for twice: %+v, %v", again, err)
	}
	done := c.finish(t)
	if done.State != connection.Done || done.From != old["smtp-client"].Name || done.To == done.From || !strings.HasPrefix(done.To, "e2.") {
		t.Errorf("%+v", done)
	}
	var states []string
	for _, s := range done.Steps {
		states = append(states, string(s.State))
	}
	if got := strings.Join(states, " "); got != "wanted issued offered both-accepted switched draining old-dropped done" {
		t.Error(got)
	}
	c.holds(t, done.To, 2)
	must(t, c.Remove(t.Context(), "token:1", "acme", "mailbox"))
	c.connect(t)
	if _, err := c.Replacement(t.Context(), "acme", "mailbox"); !fault.Is(err, fault.Missing) {
		t.Errorf("a new connection has the replacement of the one before: %v", err)
	}
	if got, _ := c.Identity(t.Context(), "acme", old["smtp-client"].ID); got.State != "retired" {
		t.Errorf("the old identity is %s", got.State)
	}
	c.test(t)
}

// holds sees that the partner takes one name and one key, and the keeper has
// one active identity of each purpose.
func (c *cloud) holds(t testing.TB, name string, epoch uint64) {
	t.Helper()
	if names := c.names(t); len(names) != 1 || names[0] != name {
		t.Errorf("connectors name %v, want %s alone", names, name)
	}
	if n := c.keys(t); n != 1 {
		t.Errorf("%d keys are registered", n)
	}
	now := c.identities(t)
	if now["smtp-client"].Name != name || now["smtp-client"].Epoch != epoch || now["entra-app"].State != "active" {
		t.Errorf("active are %+v", now)
	}
}

// errKilled is what a change meets at a point where it is killed.
var errKilled = fault.New(fault.Later, "test", "killed")

// points are the states of a replacement in which something is done.
func points() []connection.ReplacementState {
	return []connection.ReplacementState{connection.Wanted, connection.Issued, connection.Offered, connection.BothAccepted, connection.Switched, connection.Draining, connection.OldDropped}
}

// TestReplaceKilled stops a replacement before and after the work of each
// state, starts anew on the same database, and finds the same end.
func TestReplaceKilled(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	for n, at := range points() {
		for m, when := range []string{"before", "after"} {
			_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
			must(t, err)
			c.StopAt(func(s connection.ReplacementState, w string) error {
				if s == at && w == when {
					return errKilled
				}
				return nil
			})
			for err = nil; err == nil; _, _, err = c.Step(t.Context(), "acme", "mailbox") {
			}
			if err != error(errKilled) {
				t.Fatal(err)
			}
			c.Registry = c.again(t)
			done := c.finish(t)
			if done.State != connection.Done {
				t.Fatalf("killed %s %s: %+v", when, at, done)
			}
			c.holds(t, done.To, uint64(2*n+m+2))
		}
	}
	c.test(t)
}

// TestUndo leads a replacement back from each state that allows it, also with
// a kill in the middle of going back.
func TestUndo(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	name := c.identities(t)["smtp-client"].Name
	for _, at := range points() {
		_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
		must(t, err)
		for {
			p, err := c.Replacement(t.Context(), "acme", "mailbox")
			must(t, err)
			if p.State == at {
				break
			}
			if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err != nil {
				t.Fatal(err)
			}
		}
		_, err = c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
		if at == connection.OldDropped {
			if !fault.Is(err, fault.Conflict) {
				t.Errorf("undone although the old one was dropped: %v", err)
			}
			break
		}
		must(t, err)
		c.StopAt(func(_ connection.ReplacementState, when string) error {
			if when == "after" {
				return errKilled
			}
			return nil
		})
		if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err != error(errKilled) {
			t.Fatal(err)
		}
		c.Registry = c.again(t)
		if done := c.finish(t); done.State != connection.Undone {
			t.Fatalf("undone from %s: %+v", at, done)
		}
		c.holds(t, name, 1)
	}
}

// TestUndoTells: on the way back the partner takes the new identity until no
// connection that shows it is left, and whoever keeps mail is told of the end.
func TestUndoTells(t *testing.T) {
	var told []string
	c := newCloud(t, func(config *connection.Config) {
		config.Changed = func(_ context.Context, tenant, name string) { told = append(told, tenant+"/"+name) }
	})
	c.connect(t)
	busy, asked, back := 1, "", ""
	c.OnReturn(func(sha256 string) { back = sha256 })
	c.OnRetire(func(_, _, sha256 string) int { asked = sha256; return busy })
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	for range 4 {
		_, _, err := c.Step(t.Context(), "acme", "mailbox")
		must(t, err)
	}
	p, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err == nil || !slices.Contains(c.names(t), p.To) {
		t.Errorf("dropped while a connection shows it: %v, the partner lets in %v", err, c.names(t))
	}
	if now := c.identities(t)["smtp-client"].Name; asked != p.Identities[0].ToSHA || back != p.Identities[0].FromSHA || now != p.From || len(told) > 0 {
		t.Errorf("asked for %s, %s is shown again, active is %s, told %v", asked, back, now, told)
	}
	busy = 0
	if done := c.finish(t); done.State != connection.Undone {
		t.Fatalf("%+v", done)
	}
	c.holds(t, p.From, 1)
	if !slices.Equal(told, []string{"acme/mailbox"}) {
		t.Errorf("told %v", told)
	}
}

// TestCompromise: the stolen keys open nothing any more, who has connections
// that show them is asked to end them, mail goes on under the next name.
func TestCompromise(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	var asked sync.Map
	c.OnRetire(func(tenant, name, sha256 string) int { asked.Store(tenant+" "+name+" "+sha256, true); return 0 })
	old := c.identities(t)
	thief := c.sim.Thief(netip.MustParseAddr("203.0.113.9"))
	app := c.keeper.Stolen(t, old["entra-app"].ID)
	cert, err := x509.ParseCertificate(app.Chain[0])
	must(t, err)
	if _, err := thief.SignIn(t.Context(), c.one.EntraTenant, c.one.AppID, cert, app.Key); err != nil {
		t.Fatalf("the thief's key is no good to begin with: %v", err)
	}
	if err := c.deliverAs(t, c.keeper.Stolen(t, old["smtp-client"].ID)); err != nil {
		t.Fatalf("the thief's certificate is no good to begin with: %v", err)
	}
	for _, purpose := range []string{"smtp-client", "entra-app"} {
		p, err := c.Compromise(t.Context(), "token:1", "acme", old[purpose].ID)
		must(t, err)
		if p.State != connection.Done {
			t.Fatalf("%s: %+v", purpose, p)
		}
		if _, ok := asked.Load("acme " + old[purpose].Connection + " " + old[purpose].SHA256); !ok {
			t.Errorf("%s: who has connections with it was not asked to end them", purpose)
		}
		if got, _ := c.Identity(t.Context(), "acme", old[purpose].ID); got.State != "compromised" {
			t.Errorf("%s is %s", purpose, got.State)
		}
		last, err := c.Compromise(t.Context(), "token:1", "acme", old[purpose].ID)
		if err != nil || last.ID != p.ID {
			t.Errorf("again: %+v, %v", last, err)
		}
	}
	if _, err := thief.SignIn(t.Context(), c.one.EntraTenant, c.one.AppID, cert, app.Key); !fault.Is(err, fault.Denied) {
		t.Errorf("the thief signs in: %v", err)
	}
	if err := c.deliverAs(t, c.keeper.Stolen(t, old["smtp-client"].ID)); err == nil || !strings.Contains(err.Error(), "TenantInboundAttribution") {
		t.Errorf("the thief delivers: %v", err)
	}
	now := c.identities(t)
	c.holds(t, now["smtp-client"].Name, 2)
	c.test(t)
}

// TestCompromiseKilled stops it at each point.
func TestCompromiseKilled(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	epoch := uint64(1)
	for _, at := range []connection.ReplacementState{connection.Wanted, connection.Issued, connection.Repointed} {
		for _, when := range []string{"before", "after"} {
			old := c.identities(t)["smtp-client"]
			c.StopAt(func(s connection.ReplacementState, w string) error {
				if s == at && w == when {
					return errKilled
				}
				return nil
			})
			_, err := c.Compromise(t.Context(), "token:1", "acme", old.ID)
			must(t, err)
			if got, _ := c.Identity(t.Context(), "acme", old.ID); got.State != "compromised" {
				t.Fatalf("killed %s %s it is %s", when, at, got.State)
			}
			c.Registry = c.again(t)
			done := c.finish(t)
			epoch++
			c.holds(t, done.To, epoch)
		}
	}
}

// A compromise in the middle of a replacement takes it over.
func TestCompromiseDuringReplacement(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	for _, at := range []connection.ReplacementState{connection.Offered, connection.Switched, connection.Draining} {
		_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
		must(t, err)
		for {
			p, err := c.Replacement(t.Context(), "acme", "mailbox")
			must(t, err)
			if p.State == at {
				break
			}
			_, _, err = c.Step(t.Context(), "acme", "mailbox")
			must(t, err)
		}
		stolen := c.identities(t)["smtp-client"]
		p, err := c.Compromise(t.Context(), "token:1", "acme", stolen.ID)
		must(t, err)
		if p.State != connection.Done || p.From != stolen.Name {
			t.Fatalf("at %s: %+v", at, p)
		}
		if names := c.names(t); len(names) != 1 || names[0] != p.To {
			t.Errorf("at %s: connectors name %v", at, names)
		}
		if err := c.deliverAs(t, c.keeper.Stolen(t, stolen.ID)); err == nil {
			t.Errorf("at %s: the thief delivers", at)
		}
		if now := c.identities(t)["smtp-client"]; now.Name != p.To {
			t.Errorf("at %s: active is %s, not %s", at, now.Name, p.To)
		}
	}
}

// An operator does not wait until a step has given up on a partner that says
// nothing.
func TestUndoCutsAStepOff(t *testing.T) {
	keeper := custodian.New(t)
	silent := listen(t)
	defer silent.Close()
	h := newHouse(t, openSQLite(t), func(c *connection.Config) {
		c.Now, c.Signers = time.Now, keeper
		c.Keepers = func(string) (connection.Keeper, error) { return keeper, nil }
	})
	host, port := hostPort(t, silent.Addr().String())
	h.add(t, connection.Connection{Tenant: "acme", Name: "mailbox", Host: host, Port: port, TLS: "mutual"})
	_, err := h.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	for range 2 {
		_, _, err = h.Step(t.Context(), "acme", "mailbox")
		must(t, err)
	}
	ended := make(chan error)
	go func() { _, _, err := h.Step(t.Context(), "acme", "mailbox"); ended <- err }()
	peer, err := silent.Accept() // the step is talking to it
	must(t, err)
	defer peer.Close()
	began := time.Now()
	p, err := h.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	if err != nil || p.State != connection.Undoing || time.Since(began) > 5*time.Second {
		t.Errorf("%+v, %v after %v", p, err, time.Since(began))
	}
	if err := <-ended; err == nil {
		t.Error("the step that was cut off says that it was done")
	}
	_, _, err = h.Step(t.Context(), "acme", "mailbox")
	must(t, err)
	if now := h.only(t, "active"); now.Epoch != 1 {
		t.Errorf("active is %+v", now)
	}
}

// A public authority takes its time: the connection and its replacements wait
// for it, and go on by themselves.
func TestPublicIssuer(t *testing.T) {
	c := newCloud(t, nil)
	m := c.mailbox(t)
	m.Issuer = "acme"
	_, setup, err := c.AddGranted(t.Context(), "token:1", m, connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	wanted := c.only(t, "wanted")
	if !setup.OK || len(c.names(t)) != 1 || c.names(t)[0] != wanted.Name {
		t.Errorf("%+v, connectors name %v", setup.Steps, c.names(t))
	}
	c.Finish(t.Context())
	if now := c.only(t, "wanted"); now.ID != wanted.ID {
		t.Error("asked for once more")
	}
	c.keeper.Certify()
	c.Registry = c.again(t)
	must(t, c.Care(t.Context())) // as after a start
	c.test(t)
	_, err = c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	for range 2 {
		if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err == nil {
			t.Fatal("it goes on without a certificate")
		}
	}
	p, err := c.Replacement(t.Context(), "acme", "mailbox")
	must(t, err)
	next := c.only(t, "wanted")
	if p.State != connection.Wanted || !strings.Contains(p.Waiting, "issuer") || c.identities(t)["smtp-client"].ID != wanted.ID {
		t.Errorf("%+v", p)
	}
	c.keeper.Certify()
	if done := c.finish(t); done.State != connection.Done || done.To != next.Name {
		t.Errorf("%+v", done)
	}
	c.holds(t, next.Name, 2)
	if _, err := c.Add(t.Context(), "token:1", connection.Connection{Tenant: "acme", Name: "other", Host: "a.test", Direction: "outbound", TLS: "verified", Issuer: "acme"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an issuer without an identity: %v", err)
	}
}
