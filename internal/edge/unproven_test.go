package edge

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// What a tenant registered, and a client held in vain, is counted, logged once
// and listed with the reason until it is no longer registered.
func TestUnproven(t *testing.T) {
	h := newHouse(t)
	h.addTenant("acme", "us", tenant.Settings{})
	relay := connection.Connection{Tenant: "acme", Name: "relay", Kind: "smtp", Direction: "outbound", TLS: "none",
		ClientCert: []string{h.hands.sum("acme"), h.hands.sum("acme-expired"), h.hands.sum("acme-server-only")}}
	h.addConnection(relay)
	h.open()
	var log bytes.Buffer
	h.edge.c.Log = slog.New(slog.NewTextHandler(&log, nil))
	addr := h.listen(Inbound, "")
	for _, hand := range []string{"acme", "acme-expired", "acme-server-only", "acme-server-only", "platform-server-only", "platform-expired", "none"} {
		c := call(t, addr, "127.0.0.1")
		c.want("220")
		c.ask("EHLO client.example", "250")
		c.ask("STARTTLS", "220")
		c.hand = h.hands.client[hand]
		c.secure()
		c.ask("EHLO client.example", "250")
		c.ask("MAIL FROM:<a@acme.test>", "250")
		c.ask("RCPT TO:<x@elsewhere.example>", "550")
		c.ask("QUIT", "221")
	}
	want := map[string]struct {
		why   string
		times uint64
	}{h.hands.sum("acme-expired"): {"it ended at ", 1}, h.hands.sum("acme-server-only"): {"clientAuth", 2}}
	got := h.edge.Unproven()
	for _, u := range got {
		w := want[u.SHA256]
		if u.Tenant != "acme" || u.Connection != "relay" || u.Times != w.times || w.why == "" || !strings.Contains(u.Why, w.why) || u.Last.IsZero() {
			t.Errorf("%+v, not %+v", u, w)
		}
		if n := strings.Count(log.String(), u.SHA256); n != 1 {
			t.Errorf("%d lines about %s:\n%s", n, u.SHA256, &log)
		}
	}
	if len(got) != len(want) || h.edge.Stats().Unproven != 3 {
		t.Errorf("%d listed, %d counted", len(got), h.edge.Stats().Unproven)
	}
	h.must(h.connections.Remove(t.Context(), "system", "acme", "relay"))
	relay.ClientCert = relay.ClientCert[:2]
	relay.Name = "again"
	h.addConnection(relay)
	if got := h.edge.Unproven(); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
}

// A certificate whose time had not come is proof when it has.
func TestUnprovenEnds(t *testing.T) {
	u := unprovens{book: map[string]*unproven{}}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		why   string
		after time.Duration
		due   bool
	}{
		{"early", 0, true}, {"early", time.Minute, false}, {"late", 2 * time.Minute, true}, {"late", time.Hour, false}, {"late", 2 * time.Hour, true},
	} {
		if due := u.note(Unproven{SHA256: "aa", Why: c.why, Times: 1, Last: start.Add(c.after)}); due != c.due {
			t.Errorf("note %d: %v", i, due)
		}
	}
	if n := u.book["aa"].Times; n != 5 {
		t.Errorf("%d times", n)
	}
	u.prove("aa")
	if len(u.book) != 0 {
		t.Error("it is proof and still noted")
	}
}
