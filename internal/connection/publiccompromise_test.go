package connection_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// public is a cloud whose mail certificates a public authority issues.
func public(t *testing.T) (*cloud, connection.Identity) {
	t.Helper()
	c := newCloud(t, nil)
	m := c.mailbox(t)
	m.Issuer = "acme"
	_, _, err := c.AddGranted(t.Context(), "token:1", m, connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	return c, c.only(t, "wanted")
}

// TestCompromiseBeforeIssued: the customer was told of the first name already.
func TestCompromiseBeforeIssued(t *testing.T) {
	c, first := public(t)
	p, err := c.Compromise(t.Context(), "token:1", "acme", first.ID)
	must(t, err)
	if p.State != connection.Wanted || !strings.Contains(p.Waiting, "issuer") {
		t.Errorf("%+v", p)
	}
	c.Finish(t.Context())
	c.keeper.Certify()
	if done := c.finish(t); done.State != connection.Done || c.identities(t)["smtp-client"].Epoch != 2 {
		t.Errorf("%+v", done)
	}
	c.Finish(t.Context())
	c.whole(t)
	c.test(t)
}

// TestCompromiseWaitsForNoIssuer: where a good identity is in use, and for the
// other purpose.
func TestCompromiseWaitsForNoIssuer(t *testing.T) {
	c, _ := public(t)
	c.keeper.Certify()
	must(t, c.Care(t.Context()))
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	_, _, err = c.Step(t.Context(), "acme", "mailbox")
	if err == nil {
		t.Fatal("issued at once")
	}
	c.keeper.Certify()
	p := c.goTo(t, connection.KindReplace, connection.Draining)
	p, err = c.Compromise(t.Context(), "token:1", "acme", p.Identities[0].From)
	must(t, err)
	if p.State != connection.Done || !p.OldRefused {
		t.Errorf("of the one before: %+v", p)
	}
	c.whole(t)

	old := c.identities(t)
	for _, purpose := range []string{"smtp-client", "entra-app"} {
		p, err = c.Compromise(t.Context(), "token:1", "acme", old[purpose].ID)
		must(t, err)
	}
	if p.State != connection.Wanted || !strings.Contains(p.Waiting, "issuer") {
		t.Errorf("%+v", p)
	}
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	now := c.identities(t)["entra-app"]
	if now.ID == "" || len(app.Keys) != 1 || !slices.Equal(app.Keys[0].Key, c.keeper.Stolen(t, now.ID).Chain[0]) {
		t.Errorf("the key waits for the certificate of the mail: %d keys, active is %+v", len(app.Keys), now)
	}
	c.keeper.Certify()
	if done := c.finish(t); done.State != connection.Done {
		t.Errorf("%+v", done)
	}
	c.whole(t)
	c.test(t)
}
