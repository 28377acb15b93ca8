package connection_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// apartCloud has standbys under a KEK of their own.
func apartCloud(t *testing.T) *cloud {
	t.Helper()
	c := standbyCloud(t)
	c.keeper.Apart = true
	return c
}

// away takes the KEK of standbys away.
func (c *cloud) standbysAway() { c.keeper.SetStandbysAway("the KEK of standbys is away") }

// apart reports whether an identity's key lies under the KEK of standbys.
func (c *cloud) apart(t testing.TB, id string) bool {
	t.Helper()
	i, err := c.keeper.Identity(t.Context(), id)
	must(t, err)
	if shown, err := c.Identity(t.Context(), "acme", id); err != nil || shown.Apart != i.Apart {
		t.Errorf("%+v is shown as %+v: %v", i, shown, err)
	}
	return i.Apart
}

// TestStandbyApartUsed: what is made ahead is sealed apart, and nothing else.
func TestStandbyApartUsed(t *testing.T) {
	c := apartCloud(t)
	ready := c.standby(t)
	for purpose, i := range c.identities(t) {
		if c.apart(t, i.ID) || !c.apart(t, ready[purpose].ID) {
			t.Errorf("%s: the active one is apart, or its standby %s is not", purpose, ready[purpose].ID)
		}
	}
	made := c.count(t)
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	if done := c.finish(t); done.State != connection.Done || done.To != ready["smtp-client"].Name || c.count(t) != made {
		t.Errorf("%+v; %d identities of %d", done, c.count(t), made)
	}
	for _, i := range c.identities(t) {
		if c.apart(t, i.ID) {
			t.Errorf("in use and still apart: %+v", i)
		}
	}
	_, err = c.Rotate(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID, false)
	must(t, err)
	c.finish(t)
	for _, i := range c.identities(t) {
		if c.apart(t, i.ID) {
			t.Errorf("a renewal is sealed apart: %+v", i)
		}
	}
}

// TestStandbysAway: a replacement and a compromise get a new identity where the
// standby can't be opened, none is made meanwhile, and when the KEK is back the
// standby that was passed over is followed by another.
func TestStandbysAway(t *testing.T) {
	for _, kind := range []string{connection.KindReplace, connection.KindCompromise} {
		t.Run(kind, func(t *testing.T) {
			c := apartCloud(t)
			ready := c.standby(t)
			made := c.count(t)
			c.standbysAway()
			if kind == connection.KindReplace {
				_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", kind)
				must(t, err)
				if done := c.finish(t); done.State != connection.Done {
					t.Errorf("%+v", done)
				}
			} else {
				begun := time.Now()
				p, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID)
				must(t, err)
				if p.State != connection.Done || time.Since(begun) > 10*time.Second {
					t.Errorf("after %v: %+v", time.Since(begun), p)
				}
			}
			if now := c.identities(t)["smtp-client"]; now.Epoch != 3 || now.ID == ready["smtp-client"].ID {
				t.Errorf("%+v", now)
			}
			c.holds(t, c.identities(t)["smtp-client"].Name, 3)
			c.test(t)
			if kind == connection.KindReplace && c.count(t) != made+2 {
				t.Errorf("%d identities of %d", c.count(t), made)
			}
			made = c.count(t)
			must(t, c.MakeStandby(t.Context(), "acme", "mailbox"))
			if c.count(t) != made {
				t.Error("a standby was made")
			}
			c.keeper.SetStandbysAway("")
			if next := c.standby(t)["smtp-client"]; next.Epoch != 4 || !c.apart(t, next.ID) {
				t.Errorf("%+v", next)
			}
		})
	}
}

// A standby that a public authority has still to issue can't ask for it while
// its key can't be opened: nobody waits for that.
func TestWantedStandbyAway(t *testing.T) {
	c := newCloud(t, func(config *connection.Config) { config.Standby = true })
	c.keeper.Apart = true
	m := c.mailbox(t)
	m.Issuer = "acme"
	_, _, err := c.AddGranted(t.Context(), "token:1", m, connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	c.keeper.Certify()
	must(t, c.Care(t.Context()))
	must(t, c.MakeStandby(t.Context(), "acme", "mailbox"))
	wanted := c.inState(t, string(act.Wanted))["smtp-client"]
	if !c.apart(t, wanted.ID) {
		t.Fatalf("%+v", wanted)
	}
	c.standbysAway()
	_, err = c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	made := c.count(t) + 2 // one of each purpose
	for range 2 {
		if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err == nil || !strings.Contains(err.Error(), "waiting for the issuer") || c.count(t) > made {
			t.Errorf("%v; %d identities of %d", err, c.count(t), made)
		}
	}
	all, err := c.Identities(t.Context(), "acme")
	must(t, err)
	fresh := ""
	for _, i := range all {
		if i.State == string(act.Wanted) && i.ID != wanted.ID && i.Purpose == "smtp-client" {
			fresh = i.ID
		}
	}
	if fresh == "" || c.apart(t, fresh) {
		t.Errorf("no other identity was asked for: %+v", all)
	}
}

// TestFirstBesideAStandby: a connection that has lost its active identity is not
// left without one because of a standby that can't be opened.
func TestFirstBesideAStandby(t *testing.T) {
	c := apartCloud(t)
	c.standby(t)
	c.standbysAway()
	for _, i := range c.identities(t) {
		_, err := c.keeper.MoveIdentity(t.Context(), act.Identity{ID: i.ID}, act.Retired)
		must(t, err)
	}
	must(t, c.Care(t.Context()))
	for _, i := range c.identities(t) {
		if i.Epoch != 3 {
			t.Errorf("%+v", i)
		}
	}
	if len(c.identities(t)) != 2 {
		t.Errorf("active are %+v", c.identities(t))
	}
}
