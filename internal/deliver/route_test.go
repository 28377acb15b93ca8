package deliver

import (
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

func wayTo(tenant, conn, address string) way {
	return newWay(connection.Candidate{Host: address, Tenant: tenant, Connection: conn, Target: smtp.Target{Address: address}})
}

func addresses(ways []way) string {
	s := ""
	for _, w := range ways {
		s += w.Target.Address + " "
	}
	return s
}

func TestOrderShunsWhatFailed(t *testing.T) {
	table := newRouteTable()
	r := &route{ways: []way{wayTo("acme", "", "a"), wayTo("acme", "", "b"), wayTo("acme", "", "c")}}
	now := time.Now()
	expect := func(when time.Duration, want string) {
		t.Helper()
		if got := addresses(table.order(r, now.Add(when))); got != want {
			t.Errorf("after %v the order is %s, want %s", when, got, want)
		}
	}
	expect(0, "a b c ")
	table.failed(r.ways[0].sameness, now)
	expect(time.Second, "b c a ")
	expect(shunAge+time.Second, "a b c ")   // one tries it again
	expect(shunAge+2*time.Second, "b c a ") // and the others do not
	table.worked(r.ways[0].sameness)
	expect(shunAge+3*time.Second, "a b c ")
}

func TestOrderSharesKnowledgeOfTheInternet(t *testing.T) {
	table := newRouteTable()
	now := time.Now()
	table.failed(wayTo("acme", "", "a").sameness, now)
	other := &route{ways: []way{wayTo("zenith", "", "a"), wayTo("zenith", "", "b")}}
	if got := addresses(table.order(other, now)); got != "b a " {
		t.Errorf("another tenant tries %s", got)
	}
	table.failed(wayTo("acme", "mailbox", "x").sameness, now)
	own := &route{ways: []way{wayTo("zenith", "mailbox", "x"), wayTo("zenith", "mailbox", "y")}}
	if got := addresses(table.order(own, now)); got != "x y " {
		t.Errorf("a tenant's own system is shunned for another's failure: %s", got)
	}
}

func TestOrderAndTablesAreBounded(t *testing.T) {
	table := newRouteTable()
	r := &route{}
	for i := range 3 * maxTries {
		r.ways = append(r.ways, wayTo("acme", "", fmt.Sprint(i)))
	}
	now := time.Now()
	if n := len(table.order(r, now)); n != maxTries {
		t.Errorf("%d ways are tried", n)
	}
	for i := range 2 * maxRoutes {
		table.put(routeKey{destination: fmt.Sprint(i)}, r)
		table.failed(wayTo("acme", "", fmt.Sprint(i)).sameness, now)
	}
	if len(table.routes) > maxRoutes || len(table.shunned) > maxRoutes {
		t.Errorf("%d routes and %d shunned ways are remembered", len(table.routes), len(table.shunned))
	}
	if n := len(table.order(r, now)); n != maxTries {
		t.Errorf("%d ways are tried when some are shunned", n)
	}
}
