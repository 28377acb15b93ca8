package keeper

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

func sighted(code string) act.Sighting {
	return act.Sighting{Context: act.Context{Region: "us", Purpose: purposeSighting, Trace: "T"}, Code: code,
		At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), From: "192.0.2.7", Note: "imap login\x1b[2J"}
}

// count is how many entries there are of an act.
func (r *rig) count(t *testing.T, name string) (n int) {
	t.Helper()
	for _, e := range r.entries(t) {
		if e.Act == name {
			n++
		}
	}
	return n
}

// A decoy's partner reports its use: an alarm and an entry, bounded in number.
func TestSighting(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		credential, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/journal"), s.anna))
		if err != nil {
			t.Fatal(err)
		}
		q := plant("globex/journal")
		q["kind"] = "identity"
		identity, err := r.order(t, signOrder(t, operator.PlantDecoy, "", q, s.anna))
		if err != nil || identity.Report == credential.Report {
			t.Fatalf("%+v: %v", identity, err)
		}
		for _, code := range []string{credential.Report, identity.Report} {
			if !strings.HasPrefix(code, "us.") || strings.Contains(code, "journal") {
				t.Errorf("the code %q", code)
			}
			for range 50 { // as a partner's hook would, at each try of a thief
				if _, err := r.ReportSighting(t.Context(), someone(), sighted(code)); err != nil {
					t.Fatal(err)
				}
			}
		}
		var alarms []act.Alarm
		for _, a := range r.alarms.recent() {
			if a.Kind == alarmDecoy {
				alarms = append(alarms, a)
			}
		}
		if len(alarms) != 2 || !strings.Contains(alarms[1].Text, "acme/journal was used at its partner, at 2026-03-01T12:00:00Z from 192.0.2.7 (imap login[2J)") {
			t.Errorf("%+v", alarms)
		}
		if n := r.count(t, string(act.ReportSighting)); n != 4 { // before and after, of each
			t.Errorf("%d entries", n)
		}
		r.end()
		r = r.again(t) // a code outlives the process, the KEK's rotation and a restored copy: it is no row
		if _, err := r.ReportSighting(t.Context(), someone(), sighted(credential.Report)); err != nil || !r.hasAlarm(alarmDecoy) {
			t.Errorf("after a restart: %v", err)
		}
		if _, err := r.order(t, signOrder(t, operator.ReleaseDecoy, "", plant("acme/journal"), s.anna)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReportSighting(t.Context(), someone(), sighted(credential.Report)); !fault.Is(err, fault.Missing) {
			t.Errorf("after its release: %v", err)
		}
	}, s.known)
}

// What is no code raises nothing, and writes nothing: it comes from strangers.
func TestSightingOfStrangers(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		got, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/journal"), s.anna))
		if err != nil {
			t.Fatal(err)
		}
		dk, err := r.seals.key(t.Context(), authorityTenant)
		if err != nil {
			t.Fatal(err)
		}
		// Something else that is sealed under the same data key.
		other, err := uses{n: 1}.seal(dk, r.authority.place(1))
		if err != nil {
			t.Fatal(err)
		}
		before := len(r.entries(t))
		i := len(got.Report) / 2
		for name, code := range map[string]string{
			"nothing": "", "a region": "us.", "no base64": "us.%%%", "changed": got.Report[:i] + flip(got.Report[i]) + got.Report[i+1:],
			"cut": got.Report[:len(got.Report)-4], "another region's": "uk" + got.Report[2:], "another seal": "us." + encode(other), "long": "us." + strings.Repeat("A", 4000),
		} {
			if _, err := r.ReportSighting(t.Context(), someone(), sighted(code)); !fault.Is(err, fault.Missing) || err.Error() != noCode().Error() {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := len(r.entries(t)); after != before || r.hasAlarm(alarmDecoy) || r.hasAlarm(alarmRefused) {
			t.Errorf("%d entries, then %d", before, after)
		}
	}, s.known)
}

// A code that somebody made up opens nothing.
func FuzzReportCode(f *testing.F) {
	r := newRig(f)
	good, err := r.reportCode(f.Context(), tripwire{"acme", "journal"})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "us.", good, good[:20], "us.AAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, code string) {
		if w, err := r.readCode(t.Context(), code); (err == nil) != (code == good) {
			t.Errorf("%q: %+v, %v", code, w, err)
		}
	})
}

// flip is another character of the alphabet of codes.
func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// A report that met a ledger that took no entry is not counted as told: the
// partner's next one is entered, and rings.
func TestSightingNotEntered(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	got, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/journal"), s.anna))
	if err != nil {
		t.Fatal(err)
	}
	r.edit(t, `CREATE TRIGGER refused BEFORE INSERT ON ledger_entry BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	if _, err := r.ReportSighting(t.Context(), someone(), sighted(got.Report)); !fault.Is(err, fault.Later) || r.hasAlarm(alarmDecoy) {
		t.Fatalf("without an entry: %v", err)
	}
	r.edit(t, `DROP TRIGGER refused`)
	if _, err := r.ReportSighting(t.Context(), someone(), sighted(got.Report)); err != nil || !r.hasAlarm(alarmDecoy) {
		t.Errorf("told again: %v", err)
	}
	if n := r.count(t, string(act.ReportSighting)); n != 2 {
		t.Errorf("%d entries", n)
	}
}
