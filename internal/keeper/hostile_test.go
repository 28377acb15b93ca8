package keeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// TestHostileOutcomes: what a gateway in wrong hands makes as long as it can
// holds no outcome up, and neither does one entry that the ledger refuses.
func TestHostileOutcomes(t *testing.T) {
	r := newRig(t)
	long, tags := strings.Repeat("\x01", 1000), strings.Repeat("<", 256)
	r.out.mu.Lock() // as if a commit took long
	for i := range 1500 {
		r.out.list = append(r.out.list, ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "hostile", Tenant: tags, Connection: tags,
			Trace: fmt.Sprint("t", i), Subject: long, Purpose: long, Outcome: failed + long[:900]})
	}
	r.out.list = append(r.out.list, ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "hostile", Tenant: "a\nb", Subject: strings.Repeat("s", 5000)},
		ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "last"})
	r.out.mu.Unlock()
	r.out.add(ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "added", Tenant: "a\x1bb", Subject: strings.Repeat("s", 5000)})
	found := func(name act.Name) (n int) {
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: string(name)})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	within(t, "the last outcome", func() bool { return found("last") == 1 && found("added") == 1 })
	n := 0
	for from := int64(0); ; {
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: "hostile", From: from})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		n += len(all)
		from = all[len(all)-1].Index + 1
	}
	if n != 1501 {
		t.Errorf("%d outcomes of 1501", n)
	}
}

// TestAlarmFlood: refusals of made-up tenants write neither the ledger full nor
// push another alarm out of the list.
func TestAlarmFlood(t *testing.T) {
	r := newRig(t)
	r.alarm(alarmDecoy, "acme", "the decoy was asked for")
	before := r.ledger.Size()
	for i := range 3000 {
		r.alarm(alarmRefused, fmt.Sprint("made up ", i), "refused\x1b[2J")
	}
	r.alarm(alarmBreaker, "", "tripped")
	within(t, "the last alarm", func() bool {
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: alarmAct, From: before})
		return err == nil && len(all) > 0 && all[len(all)-1].Purpose == alarmBreaker
	})
	if n := r.ledger.Size() - before; n > mostOfKind+5 {
		t.Errorf("%d entries of one flood", n)
	}
	if got := r.alarms.recent(); !r.hasAlarm(alarmDecoy) || len(got) > mostAlarms || got[0].Kind != alarmBreaker {
		t.Errorf("%+v", got)
	}
	for i := range 300 { // of many minutes
		r.alarms.raise(act.Alarm{At: r.now().Add(time.Duration(i) * time.Hour), Kind: alarmRefused, Text: "t"})
	}
	if got := r.alarms.recent(); !r.hasAlarm(alarmDecoy) || !r.hasAlarm(alarmBreaker) || len(got) != mostAlarms {
		t.Errorf("%d: %+v", len(got), got)
	}
}

// TestAlarmsOutlive: an alarm that nobody was there to hear is still told after
// the keeper was started anew, once, and no word of the gateway looks like one.
func TestAlarmsOutlive(t *testing.T) {
	now := time.Now()
	clock := func(c *Config) { c.Now = func() time.Time { return now } }
	r := newRig(t, clock)
	r.alarm(alarmDecoy, "acme", "long ago")
	r.end()
	now = now.Add(23 * time.Hour)
	r = r.again(t, clock)
	r.alarm(alarmDecoy, "acme", "the decoy was asked for")
	if err := r.events(act.Event{Key: "k", Actor: "keeper", Act: alarmAct, Purpose: alarmDecoy, Subject: "asserted", Time: now}); err != nil {
		t.Fatal(err)
	}
	r.end()
	now = now.Add(2 * time.Hour)
	r = r.again(t, clock)
	r.end()
	got := r.alarms.recent()
	if len(got) != 1 || got[0].Kind != alarmDecoy || got[0].Tenant != "acme" || got[0].Text != "the decoy was asked for" || !got[0].At.Equal(now.Add(-2*time.Hour).Truncate(time.Microsecond)) {
		t.Errorf("%+v", got)
	}
}

// logged is what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An alarm waits for a ledger that takes none.
func TestAlarmWaits(t *testing.T) {
	var log logged
	r := newRig(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r.sql(t, "ALTER TABLE ledger_entry RENAME TO away")
	r.alarm(alarmDecoy, "acme", "the decoy was asked for")
	within(t, "a try", func() bool { return strings.Contains(log.String(), "outcomes were not entered") })
	r.sql(t, "ALTER TABLE away RENAME TO ledger_entry")
	r.alarmed(t, alarmDecoy, "acme")
	if n := len(r.alarms.recent()); n != 1 {
		t.Errorf("%d alarms", n)
	}
}
