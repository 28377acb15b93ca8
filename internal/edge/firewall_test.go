package edge

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Small, large, and with a header section longer than what a body keeps in
// memory: a stranger's message arrives without the fields and otherwise byte
// for byte, a tenant's own keeps them for the tenant and for the world.
func TestFirewall(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"acme", "globex"} {
		h.addTenant(n, "us", tenant.Settings{})
		h.addDomain(n, n+".test", "none")
		h.addMailbox(n)
	}
	h.open()
	filler := strings.Repeat("X-Filler: "+strings.Repeat("x", 400)+"\r\n", 200)
	line := "X-MS-Exchange-Organization-SCL: 5\r\n..a line of the body\r\n"
	parts := func(fillers, lines int) []string { // every second one is to go
		return []string{
			"", "X-MS-Exchange-Organization-SCL: -1\r\nx-ms-exchange-crosspremises-a:\r\n folded\r\n\tagain\r\n",
			"X-MS-Exchange-CrossTenant-id: 1\r\nSubject: X-MS-Journal-Report: no\r\n" + strings.Repeat(filler, fillers), "X-MS-Journal-Report \t:\r\n",
			"X-MS-Has-Attach:\r\n", "X-MS-EXCHANGE-ORGANIZATION-AuthAs\r\n : Internal\r\n",
			"\r\n" + strings.Repeat(line, lines), "",
		}
	}
	for _, c := range []struct {
		name           string
		fillers, lines int
	}{{"small", 0, 1}, {"large", 0, 20_000}, {"long header", 2, 1}, {"both", 2, 20_000}} {
		all := parts(c.fillers, c.lines)
		content, rest := strings.Join(all, ""), ""
		for i := 0; i < len(all); i += 2 {
			rest += all[i]
		}
		s := h.visit(Inbound)
		_, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test", "c@globex.test"}, content)
		s.Close()
		for _, id := range idsOf(r) {
			it := h.itemOf(id)
			h.holds(c.name+" from a stranger", it, rest)
			_, steps, err := h.trace.Show(t.Context(), it.Tenant, id)
			h.must(err)
			if !strings.Contains(*steps[0].Text, "were taken off") {
				t.Errorf("%s: the trace says %q", c.name, *steps[0].Text)
			}
		}
		if len(idsOf(r)) != 2 {
			t.Fatalf("%s: %v", c.name, r)
		}
	}

	h.addConnection(connection.Connection{Tenant: "acme", Name: "exchange", Kind: "smtp", Direction: "outbound", Networks: []string{"192.0.2.7/32"}, TLS: "none", Host: "127.0.0.1", Port: 2602})
	for _, lines := range []int{1, 20_000} {
		all := parts(0, lines)
		content, rest := strings.Join(all, ""), all[0]+all[2]+all[4]+all[6]
		s := h.visit(Inbound)
		_, r := deliver(t.Context(), s, "a@acme.test", []string{"b@acme.test", "x@example.net", "c@globex.test"}, content)
		s.Close()
		if len(idsOf(r)) != 3 {
			t.Fatal(r)
		}
		for _, id := range idsOf(r) {
			it := h.itemOf(id)
			want := content
			if it.Tenant == "globex" {
				want = rest
			}
			h.holds("from acme's own system for "+it.Tenant, it, want)
		}
	}
}

func (h *house) holds(name string, it queue.Item, want string) {
	h.t.Helper()
	if got := h.body(it); got != want {
		h.t.Errorf("%s: %d bytes, want %d, beginning\n%.300q\nwant\n%.300q", name, len(got), len(want), got, want)
	}
	if it.Size != int64(len(it.Prefix)+len(want)) {
		h.t.Errorf("%s: size %d, want %d and a prefix of %d", name, it.Size, len(want), len(it.Prefix))
	}
}

// What is ordinary costs no second look.
func TestFirewallLeavesOthersAlone(t *testing.T) {
	h := newHouse(t)
	h.addTenant("acme", "us", tenant.Settings{})
	h.addDomain("acme", "acme.test", "none")
	h.addMailbox("acme")
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	for _, content := range []string{"", "\r\n", "Subject: x\r\n\r\nX-MS-Exchange-Organization-SCL: -1\r\n", "X-MS-Has-Attach: yes\r\nX-MS-Exchange-CrossTenant-id: 1\r\n\r\n"} {
		_, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test"}, content)
		it := h.itemOf(idsOf(r)[0])
		if h.body(it) != content || it.Cut != nil {
			t.Errorf("%q became %q, cut %v", content, h.body(it), it.Cut)
		}
	}
}
