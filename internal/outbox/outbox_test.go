package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// book is a ledger as the keeper's: it takes a key once.
type book struct {
	mu      sync.Mutex
	away    bool
	mute    int // answers that get lost after the events were taken
	keys    map[string]bool
	entries []act.Event
}

func (b *book) EnterEvents(_ context.Context, events []act.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return fault.New(fault.Later, "book", "away")
	}
	if len(events) > 500 {
		return fault.New(fault.Invalid, "book", "too many at a time")
	}
	for _, e := range events {
		if !b.keys[e.Key] {
			b.keys[e.Key] = true
			b.entries = append(b.entries, e)
		}
	}
	if b.mute > 0 {
		b.mute--
		return errors.New("the answer was lost")
	}
	return nil
}

func (b *book) subjects() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		all = append(all, e.Subject)
	}
	return all
}

// desk is an outbox, the ledgers of two regions, and what carries.
type desk struct {
	*Carrier
	store   *store.Store
	books   map[string]*book
	mu      sync.Mutex
	tenants map[string]string
}

func newDesk(t *testing.T, c store.Config) *desk {
	d := &desk{store: testpeer.OpenStore(t, c), books: map[string]*book{}, tenants: map[string]string{"acme": "us", "umlaut": "de", "lost": "xx"}}
	for _, r := range []string{"us", "de"} {
		d.books[r] = &book{keys: map[string]bool{}}
	}
	d.again()
	return d
}

// again is a carrier of a gateway that was started again.
func (d *desk) again() {
	d.Carrier = New(Config{
		Outbox: d.store.Outbox(), Regions: []string{"us", "de"}, Log: slog.New(slog.DiscardHandler),
		RegionOf: func(tenant string) (string, bool) {
			d.mu.Lock()
			defer d.mu.Unlock()
			r, ok := d.tenants[tenant]
			return r, ok
		},
		Ledger: func(region string) (Ledger, error) { return d.books[region], nil },
	})
}

func (d *desk) audit(t *testing.T, e store.Event) {
	t.Helper()
	if e.Act == "" {
		e.Act = "test"
	}
	e.Actor = "token:1"
	err := d.store.Control.For(e.Tenant).Change(t.Context(), func(tx store.TenantTx) error { return tx.Audit(e) })
	if err != nil {
		t.Fatal(err)
	}
}

func (d *desk) count(t *testing.T) int64 {
	t.Helper()
	n, _, err := d.store.Outbox().Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Each event comes to the ledger of its tenant's region, in order; what is of
// no region that is kept here, to the first.
func TestToItsRegion(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		d := newDesk(t, c)
		d.audit(t, store.Event{Tenant: "acme", Subject: "a"})
		d.audit(t, store.Event{Tenant: "umlaut", Subject: "b"})
		d.audit(t, store.Event{Tenant: "acme", Subject: "c"})
		d.audit(t, store.Event{Tenant: "lost", Subject: "d"})
		d.audit(t, store.Event{Tenant: "nobody", Subject: "e"})
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		for stop := time.Now().Add(20 * time.Second); d.count(t) > 0 && time.Now().Before(stop); {
			time.Sleep(5 * time.Millisecond)
		}
		end()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if us, de := d.books["us"].subjects(), d.books["de"].subjects(); fmt.Sprint(us, de) != "[a c d e] [b]" {
			t.Errorf("us %v, de %v", us, de)
		}
	})
}

// Events come in the order in which they were written, whatever the clock said.
func TestClockThatJumps(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		d := newDesk(t, c)
		for i, by := range []time.Duration{0, 24 * time.Hour, 0, -24 * time.Hour, time.Hour} {
			d.audit(t, store.Event{Tenant: "acme", Subject: fmt.Sprint(i), Time: time.Now().Add(by)})
		}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		for stop := time.Now().Add(20 * time.Second); d.count(t) > 0 && time.Now().Before(stop); {
			time.Sleep(5 * time.Millisecond)
		}
		end()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if us := d.books["us"].subjects(); fmt.Sprint(us) != "[0 1 2 3 4]" {
			t.Errorf("%v", us)
		}
	})
}

// Whatever step a kill comes after, each event is entered once.
func TestOnceWhateverHappens(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	ctx := t.Context()
	d.audit(t, store.Event{Tenant: "umlaut", Subject: "one"})
	if _, err := d.decide(ctx); err != nil {
		t.Fatal(err)
	}
	// The tenant goes before its event has been brought, and the gateway with it.
	delete(d.tenants, "umlaut")
	d.again()
	d.books["de"].mute = 1
	if _, err := d.bring(ctx, "de"); err == nil {
		t.Fatal("no answer was no error")
	}
	d.again()
	for _, round := range []func(context.Context) (bool, error){
		d.decide,
		func(ctx context.Context) (bool, error) { return d.bring(ctx, "us") },
		func(ctx context.Context) (bool, error) { return d.bring(ctx, "de") },
		func(ctx context.Context) (bool, error) { return d.bring(ctx, "de") },
	} {
		if _, err := round(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if us, de := d.books["us"].subjects(), d.books["de"].subjects(); fmt.Sprint(us, de) != "[] [one]" || d.count(t) != 0 {
		t.Errorf("us %v, de %v, %d wait", us, de, d.count(t))
	}
}

// A region's keeper that is away holds up nobody else's events, and gets its
// own when it is back.
func TestKeeperAway(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	ctx := t.Context()
	d.books["us"].away = true
	for i := range 1203 {
		d.audit(t, store.Event{Tenant: "acme", Subject: fmt.Sprint(i)})
	}
	d.audit(t, store.Event{Tenant: "umlaut", Subject: "b"})
	for more := true; more; {
		var err error
		if more, err = d.decide(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.bring(ctx, "us"); !fault.Is(err, fault.Later) {
		t.Fatal(err)
	}
	if _, err := d.bring(ctx, "de"); err != nil || d.count(t) != 1203 {
		t.Fatalf("%v, %d wait", err, d.count(t))
	}
	d.books["us"].away = false
	rounds := 0
	for more := true; more; rounds++ {
		var err error
		if more, err = d.bring(ctx, "us"); err != nil {
			t.Fatal(err)
		}
	}
	got := d.books["us"].subjects()
	if len(got) != 1203 || got[0] != "0" || got[1202] != "1202" || d.count(t) != 0 || rounds != 3 {
		t.Errorf("%d entered in %d rounds, %d wait", len(got), rounds, d.count(t))
	}
}

// An old copy of the database that is put back brings what it holds under the
// names it had, and what is new under others, though the numbers are the same.
func TestOldCopy(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	row := store.Waiting{Seq: 7, Event: store.Event{Time: at, Actor: "a", Act: "x", Tenant: "t"}}
	keys := map[string]bool{row.Key(): true}
	for _, change := range []func(*store.Waiting){
		func(w *store.Waiting) { w.Seq++ },
		func(w *store.Waiting) { w.Time = w.Time.Add(time.Microsecond) },
		func(w *store.Waiting) { w.Actor, w.Act = "", "ax" },
		func(w *store.Waiting) { w.Tenant, w.Connection = "", "t" },
		func(w *store.Waiting) { w.Outcome = "x" },
	} {
		other := row
		change(&other)
		if keys[other.Key()] {
			t.Errorf("%+v has a key that another has", other)
		}
		keys[other.Key()] = true
	}
	if again := row; !keys[again.Key()] || len(row.Key()) != 35 {
		t.Error(row.Key())
	}
}

// Whatever somebody wrote into an event, it can be sent.
func TestEventsThatCanBeSent(t *testing.T) {
	for _, w := range []store.Waiting{
		{},
		{Event: store.Event{Actor: "a\x00b", Tenant: "\xff", Connection: strings.Repeat("ü", 9000), Subject: strings.Repeat("\xbf", 30000)}},
		{Event: store.Event{Time: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), Purpose: strings.Repeat("é", 6000)}},
	} {
		e := entryOf(w)
		b, err := json.Marshal(e)
		if err != nil || len(b) > 50<<10 || e.Key == "" {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		if e.Purpose != "" && (len(e.Purpose) > longest || !utf8.ValidString(e.Purpose)) {
			t.Errorf("%d bytes", len(e.Purpose))
		}
	}
}

// A request is no larger than the keeper reads.
func TestFitting(t *testing.T) {
	var all []store.Waiting
	for range 500 {
		all = append(all, store.Waiting{Event: store.Event{Actor: "a", Act: "x", Subject: strings.Repeat("\x01", 1000), Purpose: strings.Repeat("\x01", 1000)}})
	}
	n := len(fitting(all))
	if n < 20 || n > 60 {
		t.Errorf("%d events of 12 KB each go together", n)
	}
	if len(fitting(all[:1])) != 1 {
		t.Error("none goes alone")
	}
}
