package connection_test

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// setToken gives the keeper an administrator's token, good or not; "" takes it
// away.
func (c *cloud) setToken(t testing.TB, token string) {
	t.Helper()
	if token == "" {
		must(t, c.keeper.RemoveSecret(t.Context(), "acme", "mailbox", "m365-admin"))
		return
	}
	must(t, c.keeper.SetSecret(t.Context(), "acme", "mailbox", "m365-admin", client.Credential{User: "administrator", Password: token}))
}

// goTo begins a replacement and brings it into a state.
func (c *cloud) goTo(t testing.TB, kind string, at connection.ReplacementState) connection.Replacement {
	t.Helper()
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", kind)
	must(t, err)
	for {
		p, err := c.Replacement(t.Context(), "acme", "mailbox")
		must(t, err)
		if p.State == at {
			return p
		}
		_, _, err = c.Step(t.Context(), "acme", "mailbox")
		must(t, err)
	}
}

// whole sees that nothing is left half changed: one name and one key, each of
// the active identity, nothing else that the keeper would show, and no way in
// for what was stolen.
func (c *cloud) whole(t testing.TB) {
	t.Helper()
	now := c.identities(t)
	if names := c.names(t); len(names) != 1 || names[0] != now["smtp-client"].Name {
		t.Errorf("connectors name %v, active is %q", names, now["smtp-client"].Name)
	}
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	if len(app.Keys) != 1 || now["entra-app"].ID == "" || !slices.Equal(app.Keys[0].Key, c.keeper.Stolen(t, now["entra-app"].ID).Chain[0]) {
		t.Errorf("%d keys are registered, active is %+v", len(app.Keys), now["entra-app"])
	}
	all, err := c.Identities(t.Context(), "acme")
	must(t, err)
	for _, i := range all {
		switch i.State {
		case "staged", "retiring":
			t.Errorf("%s is left %s", i.Name, i.State)
		case "compromised":
			c.refused(t, i)
		}
	}
}

// refused sees that a thief with a compromised identity comes in nowhere.
func (c *cloud) refused(t testing.TB, i connection.Identity) {
	t.Helper()
	stolen := c.keeper.Stolen(t, i.ID)
	if i.Purpose == "smtp-client" {
		if err := c.deliverAs(t, stolen); err == nil || !strings.Contains(err.Error(), "TenantInboundAttribution") {
			t.Errorf("the thief delivers as %s: %v", i.Name, err)
		}
		return
	}
	cert, err := x509.ParseCertificate(stolen.Chain[0])
	must(t, err)
	if _, err := c.sim.Thief(netip.MustParseAddr("203.0.113.9")).SignIn(t.Context(), c.one.EntraTenant, c.one.AppID, cert, stolen.Key); !fault.Is(err, fault.Denied) {
		t.Errorf("the thief signs in with %s: %v", i.SHA256, err)
	}
}

// TestCompromiseTakesOver: a compromise of either identity, in any state of a
// replacement of both, leaves none half changed: the other one's is led to its
// end, or back where it was to be undone.
func TestCompromiseTakesOver(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		c := newCloudOn(t, s, nil)
		c.connect(t)
		for _, undo := range []bool{false, true} {
			for _, at := range points() {
				for _, purpose := range []string{"smtp-client", "entra-app"} {
					if undo && at == connection.OldDropped {
						continue
					}
					open := c.goTo(t, connection.KindReplace, at)
					if undo {
						_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
						must(t, err)
					}
					p, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)[purpose].ID)
					must(t, err)
					if p.State != connection.Done || !p.OldRefused || p.ID == open.ID {
						t.Errorf("%s at %s, undo %v: %+v", purpose, at, undo, p)
					}
					c.whole(t)
					if t.Failed() {
						t.Fatalf("%s at %s, undo %v", purpose, at, undo)
					}
				}
			}
		}
		c.test(t)
	})
}

// TestCompromiseOfNext: what is stolen is the next identity, before or after
// the partner was told of it. He lets it in no more, and nobody waits.
func TestCompromiseOfNext(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	for _, at := range points()[1:] {
		for _, purpose := range []string{"smtp-client", "entra-app"} {
			p := c.goTo(t, connection.KindReplace, at)
			for _, pair := range p.Identities {
				if pair.Purpose == purpose {
					done, err := c.Compromise(t.Context(), "token:1", "acme", pair.To)
					must(t, err)
					if done.State != connection.Done || !done.OldRefused {
						t.Errorf("%s at %s: %+v", purpose, at, done)
					}
				}
			}
			c.whole(t)
			if t.Failed() {
				t.Fatalf("%s at %s", purpose, at)
			}
		}
	}
	c.test(t)
}

// TestCompromiseOfBoth: the second one comes while the first one still waits
// for the partner.
func TestCompromiseOfBoth(t *testing.T) {
	for _, c := range []struct{ one, two string }{{"smtp-client", "entra-app"}, {"entra-app", "smtp-client"}} {
		t.Run(c.one, func(t *testing.T) { compromiseOfBoth(t, c.one, c.two) })
	}
}

func compromiseOfBoth(t *testing.T, one, two string) {
	c := newCloud(t, nil)
	c.connect(t)
	old := c.identities(t)
	c.setToken(t, "of yesterday")
	for _, purpose := range []string{one, two} {
		p, err := c.Compromise(t.Context(), "token:1", "acme", old[purpose].ID)
		must(t, err)
		if p.State == connection.Done || p.Waiting == "" {
			t.Errorf("%+v", p)
		}
	}
	c.setToken(t, c.one.AdminToken)
	if done := c.finish(t); done.State != connection.Done || !done.OldRefused || len(done.Identities) != 2 {
		t.Errorf("%+v", done)
	}
	c.whole(t)
	c.test(t)
	for _, i := range old {
		p, err := c.Compromise(t.Context(), "token:1", "acme", i.ID)
		if err != nil || p.State != connection.Done {
			t.Errorf("asked for again: %+v, %v", p, err)
		}
	}
}

// TestCompromiseOfActiveAndNext: first the one in use, then its successor.
func TestCompromiseOfActiveAndNext(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	old := c.identities(t)["smtp-client"]
	c.setToken(t, "of yesterday")
	p, err := c.Compromise(t.Context(), "token:1", "acme", old.ID)
	must(t, err)
	_, err = c.Compromise(t.Context(), "token:1", "acme", p.Identities[0].To)
	must(t, err)
	c.setToken(t, c.one.AdminToken)
	if done := c.finish(t); done.State != connection.Done || c.identities(t)["smtp-client"].Epoch != 3 {
		t.Errorf("%+v", done)
	}
	c.whole(t)
}

// TestCompromiseOfRenewed: a key that was renewed away lives on under the name
// that is in use, until that changes.
func TestCompromiseOfRenewed(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	old := c.identities(t)["smtp-client"]
	_, err := c.Rotate(t.Context(), "token:1", "acme", old.ID, false)
	must(t, err)
	c.finish(t)
	if err := c.deliverAs(t, c.keeper.Stolen(t, old.ID)); err != nil {
		t.Fatalf("the thief's certificate is no good to begin with: %v", err)
	}
	p, err := c.Compromise(t.Context(), "token:1", "acme", old.ID)
	must(t, err)
	if now := c.identities(t)["smtp-client"]; p.State != connection.Done || now.Epoch != 2 {
		t.Errorf("%+v, active is %+v", p, now)
	}
	c.whole(t)
}

// TestCompromiseCutOff: the keeper refuses the identity, and whoever had it do
// so died before anything else was written down.
func TestCompromiseCutOff(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	for _, at := range append(points(), connection.Undoing, "") {
		for _, which := range []string{"from", "to"} {
			id := c.identities(t)["smtp-client"].ID
			if at != "" {
				from := at
				if at == connection.Undoing {
					from = connection.Switched
				}
				p := c.goTo(t, connection.KindReplace, from)
				if at == connection.Undoing {
					_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
					must(t, err)
				}
				if id = p.Identities[0].From; which == "to" && p.Identities[0].To != "" {
					id = p.Identities[0].To
				}
			}
			of, err := c.keeper.Identity(t.Context(), id)
			must(t, err)
			_, err = c.keeper.MoveIdentity(t.Context(), of, act.Compromised)
			must(t, err)
			c.Registry = c.again(t)
			must(t, c.Care(t.Context()))
			if done := c.finish(t); done.State != connection.Done || done.Kind != connection.KindCompromise {
				t.Fatalf("%s at %q: %+v", which, at, done)
			}
			c.whole(t)
			if t.Failed() {
				t.Fatalf("%s at %q", which, at)
			}
		}
	}
	c.test(t)
}

// TestCompromiseByHand: without a grant, or with one that is not taken any
// more, the customer's administrator does it, and it goes on by itself then.
func TestCompromiseByHand(t *testing.T) {
	for what, token := range map[string]string{"no token": "", "an old token": "of yesterday"} {
		t.Run(what, func(t *testing.T) {
			c := newCloud(t, nil)
			c.connect(t)
			c.setToken(t, token)
			old := c.identities(t)
			for _, purpose := range []string{"smtp-client", "entra-app"} {
				_, err := c.Compromise(t.Context(), "token:1", "acme", old[purpose].ID)
				must(t, err)
			}
			p, err := c.Replacement(t.Context(), "acme", "mailbox")
			must(t, err)
			if p.State != connection.Issued || !strings.Contains(p.Fix, "administrator") {
				t.Fatalf("%+v", p)
			}
			if hint := strings.Contains(strings.Join(p.Notes, " "), "--admin-token-file"); hint != (token != "") {
				t.Errorf("notes: %v", p.Notes)
			}
			next := c.inState(t, "staged")
			_, err = c.admin.SetInbound(t.Context(), c.one.ConnectorName, admin.InboundChange{TlsSenderCertificateName: ptrTo(next["smtp-client"].Name)})
			must(t, err)
			app, err := c.graph.Application(t.Context(), c.one.AppID)
			must(t, err)
			// He has forgotten to take the old one off: our own key does it.
			keys := []graph.Key{{KeyID: app.Keys[0].KeyID, Type: app.Keys[0].Type, Usage: app.Keys[0].Usage}, {Type: "AsymmetricX509Cert", Usage: "Verify", Key: c.keeper.Stolen(t, next["entra-app"].ID).Chain[0]}}
			must(t, c.graph.SetKeys(t.Context(), app.ID, keys))
			if done := c.finish(t); done.State != connection.Done || done.OldRefused {
				t.Errorf("%+v", done) // nobody could look at the connectors
			}
			c.whole(t)
		})
	}
}

func ptrTo[T any](v T) *T { return &v }

// TestSetUpDuringCompromise: a new token is taken at any time, and used at once.
func TestSetUpDuringCompromise(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	c.setToken(t, "of yesterday")
	_, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["entra-app"].ID)
	must(t, err)
	if s, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{Hold: true}); err != nil || !strings.Contains(s.App, "BEGIN CERTIFICATE") {
		t.Errorf("to be printed: %+v, %v", s, err)
	}
	if _, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{AdminToken: c.one.AdminToken, Once: true}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a token for once: %v", err)
	}
	if _, err = c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{AdminToken: c.one.AdminToken}); err != nil {
		t.Error(err)
	}
	if done := c.finish(t); done.State != connection.Done || !done.OldRefused {
		t.Errorf("%+v", done)
	}
	c.whole(t)
}

// TestCompromiseOfStandby is written down and changes nothing.
func TestCompromiseOfStandby(t *testing.T) {
	c := standbyCloud(t)
	ready := c.standby(t)
	old := c.identities(t)
	for _, i := range ready {
		p, err := c.Compromise(t.Context(), "token:1", "acme", i.ID)
		if err != nil || p.State != connection.Done || len(p.Notes) != 1 {
			t.Errorf("%+v, %v", p, err)
		}
		again, err := c.Compromise(t.Context(), "token:1", "acme", i.ID)
		if err != nil || again.ID != p.ID {
			t.Errorf("again: %+v, %v", again, err)
		}
	}
	must(t, c.Care(t.Context()))
	if now := c.identities(t); now["smtp-client"].ID != old["smtp-client"].ID || now["entra-app"].ID != old["entra-app"].ID {
		t.Errorf("active are %+v", now)
	}
	c.whole(t)
	c.standby(t)
}
