package edge

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// visit is a session without a wire.
func (h *house) visit(kind Kind) smtp.Session {
	h.t.Helper()
	s, refusal := h.edge.Backend(kind, "").Connect(context.Background(), &smtp.Conn{
		ID: "1", Listener: string(kind), Hello: "client.example", ESMTP: true,
		Remote: netip.MustParseAddrPort("192.0.2.7:4711"), StartedAt: time.Now(),
	})
	if refusal != nil {
		h.t.Fatal(refusal)
	}
	return s
}

// deliver runs a transaction; recipients that are refused are left out.
func deliver(ctx context.Context, s smtp.Session, from string, to []string, content string) (accepted []string, r mail.Reply) {
	a, _ := mail.ParseAddress(from)
	if r := s.Mail(ctx, a, mail.FromParams{}); r != nil {
		return nil, *r
	}
	for _, text := range to {
		a, _ := mail.ParseAddress(text)
		if s.Rcpt(ctx, mail.Recipient{Address: a}) == nil {
			accepted = append(accepted, text)
		}
	}
	defer s.Reset()
	if accepted == nil {
		return nil, mail.Reply{Code: 554}
	}
	return accepted, s.Data(ctx, strings.NewReader(content))
}

func idsOf(r mail.Reply) []string {
	list, ok := strings.CutPrefix(r.Text, "Accepted as ")
	if !ok {
		return nil
	}
	return strings.Split(list, ", ")
}

// Whatever the envelope, each accepted recipient ends up in exactly one item,
// of the tenant whose domain it is, and no message names another tenant's.
func TestEnvelopesKeepTenantsApart(t *testing.T) {
	h := newHouse(t)
	names := []string{"acme", "globex", "hooli"}
	var addresses []string
	for _, n := range names {
		h.addTenant(n, "us", tenant.Settings{})
		for _, d := range []string{n + ".test", "branch." + n + ".test"} {
			h.addDomain(n, d, "none")
			for u := range 4 {
				addresses = append(addresses, fmt.Sprintf("u%d@%s", u, d))
			}
		}
		h.addMailbox(n)
	}
	h.addConnection(connection.Connection{Tenant: "hooli", Name: "branch", Kind: "smtp", Direction: "inbound", Host: "127.0.0.2", Port: 25, TLS: "none", Domains: []string{"branch.hooli.test"}})
	addresses = append(addresses, "x@elsewhere.example", "y@sub.acme.test", "z@test")
	h.limits = Limits{UnknownPerSession: none, MessagesPerIPMinute: none, MessagesPerNetworkMinute: none, RecipientsPerIPMinute: none, RecipientsPerNetworkMinute: none}
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	rapid.Check(t, func(t *rapid.T) {
		to := rapid.SliceOfNDistinct(rapid.SampledFrom(addresses), 1, 20, rapid.ID[string]).Draw(t, "to")
		accepted, r := deliver(context.Background(), s, "a@example.org", to, "Subject: x\r\n\r\nbody\r\n")
		seen := map[string]string{}
		for _, id := range idsOf(r) {
			page, _, err := h.queue.List(context.Background(), queue.Filter{Message: id, Limit: 100})
			if err != nil || len(page) == 0 {
				t.Fatalf("message %s: %d items, %v", id, len(page), err)
			}
			for _, it := range page {
				for _, rcpt := range it.Recipients {
					if seen[rcpt] != "" {
						t.Fatalf("%s is in two items", rcpt)
					}
					seen[rcpt] = it.Tenant
				}
			}
		}
		if len(seen) != len(accepted) {
			t.Fatalf("accepted %v, queued %v, reply %v", accepted, seen, r)
		}
		for _, a := range accepted {
			if owner := seen[a]; !strings.HasSuffix(a, "@"+owner+".test") && !strings.HasSuffix(a, "@branch."+owner+".test") {
				t.Fatalf("%s went to %q", a, owner)
			}
		}
	})
}

// Our own mark three times: the tenant's server sends us what we deliver to
// it. Another tenant in the same envelope is not touched, nor is a message
// that was here twice.
func TestOwnLoop(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"acme", "globex"} {
		h.addTenant(n, "us", tenant.Settings{})
		h.addDomain(n, n+".test", "none")
		h.addMailbox(n)
	}
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	content := "Subject: round and round\r\n\r\n"
	for hop := range 4 {
		_, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test"}, content)
		if r.Code != 250 {
			t.Fatalf("hop %d: %v", hop, r)
		}
		it := h.itemOf(idsOf(r)[0])
		want := queue.Ready
		if hop == 3 {
			want = queue.Failed
		}
		if it.State != want {
			t.Fatalf("hop %d: state %s", hop, it.State)
		}
		content = string(it.Prefix) + content
	}
	_, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test", "c@globex.test"}, content)
	for _, id := range idsOf(r) {
		it := h.itemOf(id)
		if failed := it.State == queue.Failed; failed != (it.Tenant == "acme") {
			t.Errorf("%s: %s %v", it.Tenant, it.State, it.Last)
		}
		if it.State == queue.Failed && it.Last.Enhanced != "5.4.6" {
			t.Errorf("%v", it.Last)
		}
	}
}

func (h *house) itemOf(message string) queue.Item {
	h.t.Helper()
	for _, it := range h.items() {
		if it.Message == message {
			return it
		}
	}
	h.t.Fatalf("no item of %s", message)
	return queue.Item{}
}

// What cannot be committed is not accepted, and nothing of it stays.
func TestFailedPut(t *testing.T) {
	h := newHouse(t)
	h.addTenant("acme", "us", tenant.Settings{})
	h.addDomain("acme", "acme.test", "none")
	h.addMailbox("acme")
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	for _, content := range []string{"Subject: small\r\n\r\n", "Subject: large\r\n\r\n" + strings.Repeat("a line of a large body\r\n", 5000)} {
		ctx, cancel := context.WithCancel(context.Background())
		from, _ := mail.ParseAddress("a@example.org")
		to, _ := mail.ParseAddress("b@acme.test")
		if s.Mail(ctx, from, mail.FromParams{}) != nil || s.Rcpt(ctx, mail.Recipient{Address: to}) != nil {
			t.Fatal("refused")
		}
		cancel()
		if r := s.Data(ctx, strings.NewReader(content)); r.Code != 451 {
			t.Errorf("%v", r)
		}
		s.Reset()
	}
	if items := h.items(); len(items) != 0 {
		t.Errorf("%d items stayed", len(items))
	}
	if st := h.edge.Stats(); st.Accepted != 0 || st.Deferred != 2 {
		t.Errorf("%+v", st)
	}
}

// The body that is queued is the one that came, small and large, for every
// tenant.
func TestBodiesArrive(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"acme", "globex"} {
		h.addTenant(n, "us", tenant.Settings{})
		h.addDomain(n, n+".test", "none")
		h.addMailbox(n)
	}
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	for _, n := range []int{1, 5000} {
		content := "Subject: x\r\n\r\n" + strings.Repeat("a line of a body\r\n", n)
		_, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test", "c@globex.test"}, content)
		ids := idsOf(r)
		if len(ids) != 2 {
			t.Fatalf("%v", r)
		}
		for _, id := range ids {
			it := h.itemOf(id)
			if got := h.body(it); got != content || it.Size != int64(len(content)+len(it.Prefix)) {
				t.Errorf("%s: %d bytes of %d, size %d", it.Tenant, len(got), len(content), it.Size)
			}
		}
	}
}

// The steps of one tenant's trace tell nothing of another tenant's user.
func TestTraceOfNeighbour(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"acme", "globex"} {
		h.addTenant(n, "us", tenant.Settings{})
		h.addDomain(n, n+".test", "none")
		h.addMailbox(n)
	}
	h.addUser("acme", "alice@acme.test")
	h.open()
	s := h.visit(Submission)
	defer s.Close()
	if r := s.(smtp.Authenticator).Auth(t.Context(), "alice@acme.test", h.passwords["alice@acme.test"]); r != nil {
		t.Fatal(r)
	}
	_, r := deliver(t.Context(), s, "info@acme.test", []string{"b@acme.test", "c@globex.test"}, "From: info@acme.test\r\n\r\n")
	if len(idsOf(r)) != 2 {
		t.Fatal(r)
	}
	for _, id := range idsOf(r) {
		it := h.itemOf(id)
		_, steps, err := h.trace.Show(t.Context(), it.Tenant, id)
		if err != nil || len(steps) < 2 || steps[0].Step != "received" || steps[1].Step != "accepted" {
			t.Fatalf("%+v %v", steps, err)
		}
		told := *steps[0].Text
		if steps[0].Peer != nil {
			told += *steps[0].Peer
		}
		for _, secret := range []string{"alice", "192.0.2.7", "authentication"} {
			if strings.Contains(told, secret) != (it.Tenant == "acme") {
				t.Errorf("%s reads %q", it.Tenant, told)
			}
		}
		if it.Tenant == "globex" && (strings.Contains(string(it.Prefix), "192.0.2.7") || it.Own) {
			t.Errorf("%s own %v", it.Prefix, it.Own)
		}
	}
}

// A refusal in the dialogue is counted and can be found, by the tenant whose
// recipient it was, or by the operator.
func TestRefusalsAreTraced(t *testing.T) {
	h := newHouse(t)
	h.addTenant("acme", "us", tenant.Settings{})
	h.addDomain("acme", "acme.test", "list")
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	deliver(t.Context(), s, "a@example.org", []string{"x@elsewhere.example", "nobody@acme.test"}, "")
	s.Refused("DATA", mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "no recipients"})
	if st := h.edge.Stats(); st.Refused != 3 || st.Connects != 1 || st.Sessions != 1 {
		t.Errorf("%+v", st)
	}
	for owner, want := range map[string][]string{
		"":     {"DATA 503", "RCPT 550 x@elsewhere.example", "RCPT 550 nobody@acme.test"},
		"acme": {"RCPT 550 nobody@acme.test"},
	} {
		page, _, err := h.trace.Refusals(t.Context(), trace.Filter{Tenant: owner, Limit: 10})
		h.must(err)
		var got []string
		for _, r := range page {
			got = append(got, strings.TrimSpace(fmt.Sprint(r.Command, " ", r.Code, " ", r.To)))
			if r.Peer != "192.0.2.7" || r.Hello != "client.example" || r.Count != 1 {
				t.Errorf("%+v", r)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q reads %q, want %q", owner, got, want)
		}
	}
}

func TestEveryConnectionLeaves(t *testing.T) {
	h := newHouse(t)
	h.limits = Limits{ConnectionsPerIP: 1}
	h.open()
	for range 5 {
		h.visit(Inbound).Close()
	}
	if st := h.edge.Stats(); st.Sessions != 0 || st.Connects != 5 {
		t.Errorf("%+v", st)
	}
}

var mx = dns.MX{Host: "mx.example.net", Preference: 10}

// A smart host takes all recipients at once; the internet one domain at a time.
func TestSmartHost(t *testing.T) {
	h := newHouse(t)
	h.addTenant("acme", "us", tenant.Settings{})
	h.addDomain("acme", "acme.test", "none")
	h.addConnection(connection.Connection{Tenant: "acme", Name: "out", Kind: "smtp", Direction: "outbound", Host: "127.0.0.1", Port: 25, TLS: "none", Networks: []string{"192.0.2.0/24"}})
	h.dns.MXs["example.net"] = []dns.MX{mx}
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	_, r := deliver(t.Context(), s, "a@acme.test", []string{"x@example.net", "y@example.com", "z@example.org"}, "\r\n")
	ids := idsOf(r)
	if len(ids) != 1 {
		t.Fatal(r)
	}
	it := h.itemOf(ids[0])
	var to []string
	for _, r := range it.Recipients {
		to = append(to, r.String())
	}
	if !slices.Equal(to, []string{"x@example.net", "y@example.com", "z@example.org"}) || it.Connection != "out" || len(h.items()) != 1 {
		t.Errorf("%v %s", to, it.Destination)
	}
}

// Below the mark of free space nothing is taken in.
func TestDiskFull(t *testing.T) {
	h := newHouse(t)
	h.store = openStoreWith(t, store.Config{Reserve: 1 << 60})
	h.open()
	s := h.visit(Inbound)
	defer s.Close()
	if _, r := deliver(t.Context(), s, "a@example.org", []string{"b@acme.test"}, ""); r.Code != 452 || r.Enhanced != "4.3.1" {
		t.Errorf("%v", r)
	}
}
