package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"
)

// peak is the most that lies on the heap while f runs, above what lay there
// before, in bytes.
func peak(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // what is garbage is soon gone
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() int64 {
		metrics.Read(heap)
		return int64(heap[0].Value.Uint64())
	}
	runtime.GC()
	before, most := read(), int64(0)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(time.Millisecond); ; {
			most = max(most, read()-before)
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return most
}

// raced reports whether the race detector is in this binary.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestLedgerMemory: an export of 200,000 entries, 54 MB, goes from the ledger
// through the keeper's socket, the API and the verifier, all of which are in
// this process, without lying in memory anywhere. The race detector makes
// entering them ten times as slow, so that there are fewer under it.
func TestLedgerMemory(t *testing.T) {
	const bound = 6 << 20
	entries := 200_000
	if raced() {
		entries = 40_000
	}
	d := newDesk(t, "us")
	d.cells["us"].fill(entries)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"export", []string{"ledger", "export", d.path("export"), "--json"}},
		{"verify", []string{"ledger", "verify", "--json"}},
	} {
		var r ran
		most := peak(func() { r = d.cli(c.args...) })
		r.ok(t, nil)
		if v := readVerified(t, r); c.name == "verify" && v.Entries != int64(entries) {
			t.Errorf("%+v", v)
		}
		t.Logf("%s of %d entries: at most %.1f MiB on the heap", c.name, entries, float64(most)/(1<<20))
		if most > bound {
			t.Errorf("%s: %d bytes on the heap at once, of at most %d", c.name, most, bound)
		}
	}
	info, err := os.Stat(d.path("export"))
	must(t, err)
	if t.Logf("the export has %.1f MiB", float64(info.Size())/(1<<20)); info.Size() < bound*3/2 {
		t.Errorf("an export of %d bytes shows nothing", info.Size())
	}
}
