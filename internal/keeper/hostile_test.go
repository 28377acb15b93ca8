package keeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
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

// TestBoundAnew: a gateway may release a connection and bind its name to a host
// of its own. What was there before does not go along.
func TestBoundAnew(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	old := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	stolen := r.to(t, r.issued(t, "acme", ofClient, 2), act.Compromised)
	secret := about(purposeAuth)
	if _, err := r.SetCredential(t.Context(), someone(), act.NewCredential{Context: secret, User: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	evil := act.Bind{Context: about("binding"), Binding: act.Binding{Host: "evil.example", Port: 25, Authority: "evil.example"}}
	if _, err := r.BindConnection(t.Context(), someone(), evil); !fault.Is(err, fault.Conflict) {
		t.Errorf("bound twice: %v", err)
	}
	if _, err := r.ReleaseConnection(t.Context(), someone(), act.Plain{Context: about("binding")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.BindConnection(t.Context(), someone(), evil); err != nil {
		t.Fatal(err)
	}
	for _, one := range []act.Identity{old, stolen} {
		if err := r.shake(t, about(ofClient), one.SHA256); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", one.ID, err)
		}
		for _, to := range []act.IdentityState{act.Staged, act.Active} {
			if _, err := r.MoveIdentity(t.Context(), someone(), act.Move{Context: about(ofClient), Identity: one.ID, To: to}); err == nil {
				t.Errorf("%s is %s again", one.ID, to)
			}
		}
	}
	if _, err := r.OpenCredential(t.Context(), someone(), act.Plain{Context: secret}); !fault.Is(err, fault.Missing) {
		t.Errorf("the credential of before: %v", err)
	}
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: about(ofClient)}); !fault.Is(err, fault.Conflict) {
		t.Errorf("the name of a stolen key: %v", err)
	}
}

// TestHostileFields: what is out of range is refused, and nothing is signed,
// made or opened for it.
func TestHostileFields(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	active := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	entra := r.to(t, r.issued(t, "acme", app, 0), act.Active)
	ctx := t.Context()
	refusedAll := func(what string, errs ...error) {
		t.Helper()
		for i, err := range errs {
			if k := fault.KindOf(err); err == nil || k == fault.Internal {
				t.Errorf("%s, %d: %v", what, i, err)
			}
		}
	}
	for _, n := range []int{0, 1, 20, 31, 33, 47, 49, 64, 4096} {
		_, err := r.HandshakeAsTenant(ctx, someone(), act.Handshake{Context: about(ofClient), Identity: active.SHA256, Scheme: 0x0403, Transcript: make([]byte, n)})
		refusedAll(fmt.Sprintf("a transcript of %d", n), err)
	}
	for _, scheme := range []uint16{0, 0x0201, 0x0401, 0x0503, 0x0804, 0x0807, 0xffff} {
		_, err := r.HandshakeAsTenant(ctx, someone(), act.Handshake{Context: about(ofClient), Identity: active.SHA256, Scheme: scheme, Transcript: make([]byte, 32)})
		refusedAll(fmt.Sprintf("scheme %04x", scheme), err)
	}
	for _, life := range []int{-1 << 62, -1, 0, 601, 1 << 40, 1<<62 + 1} {
		q := act.Assertion{Context: about(app), Identity: entra.ID, LifeSeconds: life}
		_, err1 := r.AssertClient(ctx, someone(), q)
		_, err2 := r.ProvePossession(ctx, someone(), q)
		_, err3 := r.IssueIdentity(ctx, someone(), act.Issue{Context: about(ofClient), LifeSeconds: min(life, -1)})
		refusedAll(fmt.Sprint("life ", life), err1, err2, err3)
	}
	for _, epoch := range []uint64{1, 3, 7, 1 << 63, 1<<64 - 1} {
		_, err1 := r.IssueIdentity(ctx, someone(), act.Issue{Context: about(ofClient), Epoch: epoch})
		_, err2 := r.IssueIdentity(ctx, someone(), act.Issue{Context: about(ofClient), Renew: max(epoch, 2)})
		refusedAll(fmt.Sprint("epoch ", epoch), err1, err2)
	}
	for _, host := range []string{"", "mx.uk.gate.example", "*.us.gate.example", "mx.us.gate.example.", "mx.us.gate.example\x00", "ｍx.us.gate.example", "../mx.us.gate.example"} {
		_, err1 := r.HostCertificate(ctx, someone(), act.Host{Context: about(""), Host: host})
		_, err2 := r.HandshakeAsHost(ctx, someone(), act.HostHandshake{Context: about("smtp-server"), Host: host, Identity: active.SHA256, Scheme: 0x0403, Transcript: make([]byte, 32)})
		refusedAll("host "+host, err1, err2)
	}
	for _, other := range []string{"ACME", "acme ", "acme.", "аcme", "*", "%", ":hosts", "region:hosts", ""} {
		c := about(ofClient)
		c.Tenant = other
		_, err := r.HandshakeAsTenant(ctx, someone(), act.Handshake{Context: c, Identity: active.SHA256, Scheme: 0x0403, Transcript: make([]byte, 32)})
		c.Purpose = purposeAuth
		_, err2 := r.OpenCredential(ctx, someone(), act.Plain{Context: c})
		_, err3 := r.SetCredential(ctx, someone(), act.NewCredential{Context: c, User: "u", Password: "p"})
		refusedAll("tenant "+other, err, err2, err3)
	}
}

// TestRoom: a disk that fills is told of before it is full, and once an hour.
func TestRoom(t *testing.T) {
	now := time.Now()
	r := newRig(t, func(c *Config) { c.Now = func() time.Time { return now } })
	r.end()
	if left, err := freeBytes(r.dir); err != nil || left == 0 {
		t.Errorf("%d %v", left, err)
	}
	disk := func(left uint64) func(string) (uint64, error) {
		return func(string) (uint64, error) { return left, nil }
	}
	n := func() (n int) {
		for _, a := range r.alarms.recent() {
			if a.Kind == alarmDisk && strings.Contains(a.Text, "100 MiB") {
				n++
			}
		}
		return n
	}
	var told time.Time
	for _, step := range []struct {
		after time.Duration
		left  uint64
		want  int
	}{{0, 600 << 20, 0}, {time.Minute, 100 << 20, 1}, {time.Minute, 100 << 20, 1}, {time.Hour, 100 << 20, 2}, {time.Hour, 600 << 20, 2}} {
		now = now.Add(step.after)
		told = r.lookRoom(told, disk(step.left))
		if n() != step.want {
			t.Errorf("%+v: %d", step, n())
		}
	}
}
