package edge

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// drawRecipient makes an accepted recipient of one of a few tenants, inbound
// or on the internet, sometimes with a verdict.
func drawRecipient(t *rapid.T, i int) recipient {
	tenant := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tenant")
	r := recipient{
		tenant: tenant, region: "us", outbound: rapid.Bool().Draw(t, "outbound"), own: rapid.Bool().Draw(t, "own"),
		maxSize: rapid.SampledFrom([]int64{0, 0, 1000, 5000}).Draw(t, "maxSize"),
	}
	r.Local = fmt.Sprint("u", i)
	domain := rapid.IntRange(0, 3).Draw(t, "domain")
	if r.outbound {
		r.Domain = fmt.Sprintf("d%d.example", domain)
		r.route = connection.Route{Destination: fmt.Sprintf("mx:mx%d.example", domain/2)}
	} else {
		r.Domain = fmt.Sprintf("%s%d.test", tenant, domain)
		conn := fmt.Sprint("conn", domain/2)
		r.route = connection.Route{Destination: "t:" + tenant + ":" + conn, Connection: conn}
	}
	switch rapid.IntRange(0, 9).Draw(t, "verdict") {
	case 0:
		r.verdict = mail.Reply{Code: 550, Enhanced: "5.1.2", Text: "no"}
	case 1:
		r.verdict, r.route = mail.Reply{Code: 451, Enhanced: "4.4.3", Text: "later"}, connection.Route{}
	}
	return r
}

// Every accepted recipient is in exactly one item, of its own tenant, route
// and verdict, and nobody else's.
func TestSplitKeepsTenantsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]recipient, rapid.IntRange(1, 40).Draw(t, "n"))
		for i := range all {
			all[i] = drawRecipient(t, i)
		}
		mx := func(_, conn string) bool { return conn == "" || conn == "conn1" }
		seen := map[mail.Recipient]int{}
		for _, g := range split(all, mx) {
			inGroup := 0
			for _, p := range g.parts {
				if mx("", g.connection) {
					for _, to := range p.to {
						if to.Domain != p.domain {
							t.Fatalf("%s travels with %s", to, p.domain)
						}
					}
				}
				for _, to := range p.to {
					seen[to]++
					inGroup++
					checkPlace(t, all, g, to)
				}
			}
			if inGroup != len(g.to) {
				t.Fatalf("the message names %d recipients, its items have %d", len(g.to), inGroup)
			}
		}
		for _, r := range all {
			if seen[r.Recipient] != 1 {
				t.Fatalf("%s is in %d items", r, seen[r.Recipient])
			}
		}
	})
}

func checkPlace(t *rapid.T, all []recipient, g group, to mail.Recipient) {
	for i := range all {
		r := &all[i]
		if r.Recipient != to {
			continue
		}
		if r.tenant != g.tenant || r.outbound != g.outbound || r.own != g.own || r.verdict != g.verdict ||
			r.key().destination != g.destination || r.route.Connection != g.connection {
			t.Fatalf("%+v is in group %+v", *r, g)
		}
		if r.maxSize > 0 && (g.maxSize == 0 || g.maxSize > r.maxSize) {
			t.Fatalf("the group allows %d bytes, %s %d", g.maxSize, to, r.maxSize)
		}
		return
	}
	t.Fatalf("%s was never named", to)
}

func TestWholeReply(t *testing.T) {
	refused := mail.Reply{Code: 550, Enhanced: "5.1.2", Text: "no"}
	deferred := mail.Reply{Code: 451, Enhanced: "4.4.3", Text: "later"}
	for _, c := range []struct {
		name   string
		groups []group
		code   int
	}{
		{"accepted", []group{{}}, 0},
		{"all refused", []group{{verdict: refused}, {verdict: *tooLarge(1)}}, 550},
		{"all deferred", []group{{verdict: deferred}}, 451},
		{"one accepted", []group{{verdict: refused}, {}}, 0},
		{"one accepted first", []group{{}, {verdict: deferred}}, 0},
		{"neither all refused nor all deferred", []group{{verdict: refused}, {verdict: deferred}}, 0},
		{"a loop is kept", []group{{verdict: *looping(), keep: true}}, 0},
		{"a loop is kept beside a refusal", []group{{verdict: refused}, {verdict: *looping(), keep: true}}, 0},
	} {
		got := 0
		if r := whole(c.groups); r != nil {
			got = r.Code
		}
		if got != c.code {
			t.Errorf("%s: %d, want %d", c.name, got, c.code)
		}
	}
}
