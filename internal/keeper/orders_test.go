package keeper

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/breaker"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// staff are two operators and a stranger.
type staff struct{ anna, bert, eve *operator.Key }

func newStaff(t testing.TB) staff {
	t.Helper()
	key := func(name string) *operator.Key {
		k, err := operator.NewKey(filepath.Join(t.TempDir(), "operator.key"), name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return staff{key("anna"), key("bert"), key("eve")}
}

// known makes a keeper know the two.
func (s staff) known(c *Config) { c.Operators = []operator.Public{s.anna.Public(), s.bert.Public()} }

// signOrder makes an order of some.
func signOrder(t testing.TB, name, subject string, parameters map[string]string, by ...*operator.Key) []byte {
	t.Helper()
	raw, err := operator.Sign(operator.New(name, "us", subject, parameters, time.Now().Add(time.Hour)), by[0])
	for _, k := range by[1:] {
		if err == nil {
			raw, err = operator.Cosign(raw, k, func(operator.Order) bool { return true })
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (r *rig) order(t testing.TB, raw []byte) (act.Ordered, error) {
	t.Helper()
	return r.Order(t.Context(), someone(), act.SignedOrder{Context: act.Context{Region: "us", Purpose: "operator", Trace: "t9"}, Order: raw})
}

// The breaker stays tripped over a restart, until two people lift it; one that
// they opened a campaign for opens more.
func TestBreakerAndCampaign(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r.bindTo(t, "mx.acme.example", "acme/mailbox")
		r.set(t, "acme/mailbox", "u", "p")
		for i := range 5 {
			if _, err := r.open("acme/mailbox"); err != nil {
				t.Fatalf("opening %d: %v", i, err)
			}
		}
		for range 3 {
			if got, err := r.open("acme/mailbox"); !fault.Is(err, fault.Later) || got.Password != "" || !strings.Contains(err.Error(), "tripped") {
				t.Fatalf("beyond the limit: %+v: %v", got, err)
			}
		}
		if !r.hasAlarm(alarmBreaker) {
			t.Error("no alarm")
		}
		r.end()
		r = r.again(t)
		if _, err := r.open("acme/mailbox"); !fault.Is(err, fault.Later) {
			t.Fatalf("started again: %v", err)
		}
		found := 0
		for _, e := range r.entries(t) {
			if e.Act == "breaker" && e.Outcome == string(breaker.Tripped) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("the trip is entered %d times", found)
		}
		if _, err := r.order(t, signOrder(t, operator.LiftBreaker, "", nil, s.anna, s.bert)); err != nil {
			t.Fatal(err)
		}
		campaign := map[string]string{breaker.RateParameter: "100", breaker.UntilParameter: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}
		got, err := r.order(t, signOrder(t, operator.OpenCampaign, "migration", campaign, s.anna, s.bert))
		if err != nil || got.Text == "" || got.Secret != "" {
			t.Fatalf("%+v: %v", got, err)
		}
		for i := range 50 {
			if _, err := r.open("acme/mailbox"); err != nil {
				t.Fatalf("opening %d of the campaign: %v", i, err)
			}
		}
		r.ordersEntered(t)
	}, s.known, func(c *Config) { c.Limit = 5 })
}

// ordersEntered holds that each order has its two beginnings and two ends.
func (r *rig) ordersEntered(t *testing.T) {
	t.Helper()
	count := map[string]int{}
	for _, e := range r.entries(t) {
		if e.Act == "order" || e.Act == operator.OpenCampaign {
			count[e.Act+" "+e.Outcome]++
		}
		if e.Act == operator.OpenCampaign && (e.Actor != "operators anna, bert" || !strings.Contains(e.Subject, "migration rate=100 until=")) {
			t.Errorf("%+v", e)
		}
	}
	if count["order begun"] != 2 || count["order done"] != 2 || count["open-campaign begun"] != 1 || count["open-campaign done"] != 1 {
		t.Errorf("%v", count)
	}
}

// What does not count is refused and entered, and changes nothing.
func TestOrdersThatDoNotCount(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		spent := signOrder(t, operator.Thaw, "", nil, s.anna, s.bert) // conflict: the keeper is not frozen
		if _, err := r.order(t, spent); !fault.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
		other, err := operator.Sign(operator.New(operator.RotateKEK, "uk", "x", nil, time.Now().Add(time.Hour)), s.anna)
		if err != nil {
			t.Fatal(err)
		}
		cases := []struct {
			name string
			raw  []byte
			kind fault.Kind
		}{
			{"one signer of two", signOrder(t, operator.LiftBreaker, "", nil, s.anna), fault.Denied},
			{"a stranger", signOrder(t, operator.RotateKEK, r.kek.ID(), nil, s.eve), fault.Denied},
			{"a stranger besides", signOrder(t, operator.LiftBreaker, "", nil, s.anna, s.bert, s.eve), fault.Denied},
			{"handed in again", spent, fault.Denied},
			{"another region", other, fault.Denied},
			{"an act that nobody knows", signOrder(t, "open-everything", "", nil, s.anna, s.bert), fault.Denied},
			{"no order", []byte("{}"), fault.Invalid},
			{"more tenants than one", signOrder(t, operator.ChangeBinding, "", map[string]string{"tenants": "2", "tenant": "acme", "connection": "mailbox"}, s.anna), fault.Denied},
		}
		for _, c := range cases {
			before := r.ledger.Size()
			if _, err := r.order(t, c.raw); fault.KindOf(err) != c.kind || err == nil || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", c.name, err)
			}
			var first, last ledger.Entry
			for _, e := range r.entries(t)[before:] {
				switch {
				case e.Act == "order" && e.Of == nil:
					first = e
				case e.Act == "order":
					last = e
				}
			}
			if first.Outcome != begun {
				t.Errorf("%s: %+v", c.name, first)
			}
			if last.Of == nil || *last.Of != first.Index || last.Outcome == carried {
				t.Errorf("%s: %+v", c.name, last)
			}
		}
		r.end()
		r = r.again(t)
		if _, err := r.order(t, spent); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "already") {
			t.Errorf("handed in again after a restart: %v", err)
		}
	}, s.known)
}

// A connection goes to another partner with what is sealed for it.
func TestChangeBinding(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r.bindTo(t, "mx.acme.example", "acme/mailbox")
		r.set(t, "acme/mailbox", "u", "p")
		if _, err := r.open("acme/mailbox"); err != nil {
			t.Fatal(err)
		}
		r.openings.write(t.Context())
		to := map[string]string{"tenants": "1", "tenant": "acme", "connection": "mailbox", "host": "new.acme.example", "port": "25", "pin": strings.Repeat("ab", 32)}
		if _, err := r.order(t, signOrder(t, operator.ChangeBinding, "acme/mailbox", to, s.bert)); err != nil {
			t.Fatal(err)
		}
		if got, err := r.open("acme/mailbox"); err != nil || got.Password != "p" {
			t.Errorf("%+v: %v", got, err)
		}
		list, err := r.ListCredentials(t.Context(), someone(), act.Plain{Context: about("list")})
		if err != nil || len(list.Credentials) != 1 || *list.Credentials[0].Opened != 2 {
			t.Errorf("%+v: %v", list, err)
		}
		bound, err := r.boundTo(t.Context(), "test", credentialKey{"acme", "mailbox", purposeAuth})
		if err != nil || !strings.Contains(bound, "new.acme.example") || strings.Contains(bound, "mx.acme") {
			t.Errorf("%s: %v", bound, err)
		}
		to["port"] = "0"
		if _, err := r.order(t, signOrder(t, operator.ChangeBinding, "", to, s.bert)); !fault.Is(err, fault.Invalid) {
			t.Errorf("no port: %v", err)
		}
		to["port"], to["connection"] = "25", "none"
		if _, err := r.order(t, signOrder(t, operator.ChangeBinding, "", to, s.bert)); !fault.Is(err, fault.Missing) {
			t.Errorf("no connection: %v", err)
		}
	}, s.known)
}
