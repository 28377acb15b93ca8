package connection_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
)

// hand is something that the customer's administrator does while our
// identities are being changed.
type hand struct {
	name string
	do   func(t testing.TB, c *cloud)
}

func (c *cloud) removeInbounds(t testing.TB, which func(admin.Inbound) bool) {
	t.Helper()
	all, err := c.admin.Inbounds(t.Context())
	must(t, err)
	for _, i := range all {
		if which(i) {
			must(t, c.admin.RemoveInbound(t.Context(), i.Name))
		}
	}
}

func (c *cloud) setInbounds(t testing.TB, change admin.InboundChange) {
	t.Helper()
	all, err := c.admin.Inbounds(t.Context())
	must(t, err)
	for _, i := range all {
		_, err := c.admin.SetInbound(t.Context(), i.Name, change)
		must(t, err)
	}
}

// keepKeysOf leaves the keys on the application's list of which it is true.
func (c *cloud) keepKeysOf(t testing.TB, keep func(n, of int) bool) {
	t.Helper()
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	var keys []graph.Key
	for n, k := range app.Keys {
		if keep(n, len(app.Keys)) {
			keys = append(keys, graph.Key{KeyID: k.KeyID, Type: k.Type, Usage: k.Usage})
		}
	}
	must(t, c.graph.SetKeys(t.Context(), app.ID, keys))
}

func hands() []hand {
	return []hand{
		{"every connector deleted", func(t testing.TB, c *cloud) {
			c.removeInbounds(t, func(admin.Inbound) bool { return true })
		}},
		{"the first deleted", func(t testing.TB, c *cloud) {
			c.removeInbounds(t, func(i admin.Inbound) bool { return i.Name == c.one.ConnectorName })
		}},
		{"the second deleted", func(t testing.TB, c *cloud) {
			c.removeInbounds(t, func(i admin.Inbound) bool { return i.Name != c.one.ConnectorName })
		}},
		{"switched off", func(t testing.TB, c *cloud) { c.setInbounds(t, admin.InboundChange{Enabled: ptrTo(false)}) }},
		{"another name", func(t testing.TB, c *cloud) {
			c.setInbounds(t, admin.InboundChange{TlsSenderCertificateName: ptrTo("mx.elsewhere.test")})
		}},
		{"comments edited", func(t testing.TB, c *cloud) { c.setInbounds(t, admin.InboundChange{Comment: ptrTo("mine")}) }},
		{"every key removed", func(t testing.TB, c *cloud) { c.keepKeysOf(t, func(int, int) bool { return false }) }},
		{"the oldest key removed", func(t testing.TB, c *cloud) { c.keepKeysOf(t, func(n, _ int) bool { return n > 0 }) }},
		{"the newest key removed", func(t testing.TB, c *cloud) { c.keepKeysOf(t, func(n, of int) bool { return n < of-1 }) }},
		{"Graph is busy", func(t testing.TB, c *cloud) {
			must(t, c.sim.Switch(c.one.EntraTenant, func(s *sim.Switches) { s.GraphThrottle, s.RetryAfter = 3, sim.Duration(time.Millisecond) }))
		}},
	}
}

// TestReplaceByHand: whatever the customer's administrator does at any state, a
// replacement comes to its end, an undo comes back, and both leave his side in
// order. A state in which nothing is asked of it finds out later.
func TestReplaceByHand(t *testing.T) {
	for _, h := range hands() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t, nil)
			c.connect(t)
			for _, at := range points() {
				for _, undo := range []bool{false, true} {
					if undo && at == connection.OldDropped {
						continue
					}
					c.goTo(t, connection.KindReplace, at)
					h.do(t, c)
					want := connection.Done
					if undo {
						_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
						must(t, err)
						want = connection.Undone
					}
					if done := c.finish(t); done.State != want {
						t.Fatalf("at %s: %+v", at, done)
					}
					if at == connection.OldDropped || undo && at == connection.Wanted {
						s, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{}) // nothing looked at it any more
						must(t, err)
						if !s.OK {
							t.Errorf("%+v", s.Steps)
						}
					}
					c.whole(t)
					if t.Failed() {
						t.Fatalf("at %s, undo %v", at, undo)
					}
				}
			}
			c.test(t)
		})
	}
}

// TestOthersConnectorStays: ours was deleted, and the only one that is left is
// another gateway's.
func TestOthersConnectorStays(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	c.goTo(t, connection.KindReplace, connection.Issued)
	c.removeInbounds(t, func(admin.Inbound) bool { return true })
	_, err := c.admin.NewInbound(t.Context(), admin.InboundChange{Name: ptrTo("Others"), ConnectorType: ptrTo("Partner"), SenderDomains: &[]string{"partner.test"},
		TlsSenderCertificateName: ptrTo("mx.elsewhere.test"), RequireTls: ptrTo(true), RestrictDomainsToCertificate: ptrTo(true)})
	must(t, err)
	if done := c.finish(t); done.State != connection.Done {
		t.Errorf("%+v", done)
	}
	if i, err := c.admin.Inbound(t.Context(), "Others"); err != nil || i.TlsSenderCertificateName != "mx.elsewhere.test" {
		t.Errorf("the other gateway's is %+v, %v", i, err)
	}
	must(t, c.admin.RemoveInbound(t.Context(), "Others"))
	c.whole(t)
	c.test(t)
}

// TestSignInRefused: a replacement waits while the tenant lets our application
// sign in from nowhere, and an undo leads back.
func TestSignInRefused(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	c.goTo(t, connection.KindReplace, connection.Issued)
	from := func(addresses ...string) {
		must(t, c.sim.Switch(c.one.EntraTenant, func(s *sim.Switches) { s.AllowedAddresses = addresses }))
	}
	from("192.0.2.1")
	for range 3 {
		_, _, _ = c.Step(t.Context(), "acme", "mailbox")
	}
	if p, err := c.Replacement(t.Context(), "acme", "mailbox"); err != nil || p.State != connection.Offered || !strings.Contains(p.Fix, "Conditional Access") {
		t.Errorf("%+v, %v", p, err)
	}
	_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	if done := c.finish(t); done.State != connection.Undone {
		t.Errorf("%+v", done)
	}
	from()
	c.whole(t)
	c.test(t)
}
