package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPowerCut looks at each system call of a gateway under load (and of its
// PostgreSQL): every 250 follows the sync of what it promises. Then it cuts the
// power at random moments: from the record it rebuilds what a disk may hold
// that dropped what was not synced, starts a gateway on that, and looks for
// every message that had been answered with 250.
func TestPowerCut(t *testing.T) {
	cuts, duration := 5, 1500*time.Millisecond
	if chaos() {
		cuts, duration = 20, 5*time.Second
	}
	eachRecording(t, duration, func(t *testing.T, r *recording) {
		t.Run("synced", r.synced)
		first := r.sink.reset()
		r.sink.delay = 0
		for i := range cuts {
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			at := r.from + rng.Int64N(r.to-r.from)
			s := survivals(rng)[i%4]
			name := fmt.Sprintf("after %d ms, %.0f %% survives", (at-r.from)/1000, s.odds*100)
			t.Run(name, func(t *testing.T) { r.afterCut(t, at, s, first) })
		}
	})
}

// survivals are what may be left of what was not synced: nothing, all (as
// after kill -9), or some of it, with torn writes or without.
func survivals(rng *rand.Rand) []survival {
	return []survival{{rng, 0, false}, {rng, 0.5, true}, {rng, 0.9, false}, {rng, 1, true}}
}

// afterCut starts a gateway on what the disk holds after a cut.
func (r *recording) afterCut(t *testing.T, at int64, s survival, first map[string]int) {
	dir := t.TempDir()
	p := *r.p
	p.t, p.dir = t, filepath.Join(dir, "data")
	if err := rebuild(r.p.dir, r.base, p.dir, r.calls, at, s); err != nil {
		t.Fatal(err)
	}
	if r.pg != nil {
		r.pg.Refill(t, func(dir string) error { return rebuild(dir, r.pgBase, dir, r.pgCalls, at, s) })
		if err := r.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer r.pg.Stop(syscall.SIGQUIT)
	}
	p.start()
	defer p.kill()
	r.verify(t, &p, at, first)
	r.sink.reset()
}

// rebuild writes what a directory may hold after a cut.
func rebuild(under, base, to string, calls []*call, at int64, s survival) error {
	l, err := newLayer(under, base)
	if err != nil {
		return err
	}
	if err := l.run(calls, at); err != nil {
		return err
	}
	return l.restore(to, s)
}

// verify looks for each message that was promised before the cut: it arrives
// now, or it had been handed over before, and whoever asks is told so.
func (r *recording) verify(t *testing.T, p *process, at int64, first map[string]int) {
	t.Helper()
	due, over := r.due(at)
	deadline := time.Now().Add(30 * time.Second)
	for missing(due, r.sink, over, first) != "" && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if seq := missing(due, r.sink, over, first); seq != "" {
		t.Errorf("%s (%s) was answered with 250 before the cut and is lost\n%s\n%s", seq, due[seq], p.must("queue", "list"), p.log)
	}
	told := 0
	for seq, id := range due {
		if r.sink.missing([]string{seq}) == nil || told == 5 {
			continue
		}
		told++
		waitState(t, p, id, "delivered")
	}
	if bad := r.sink.damaged(); len(bad) > 0 {
		t.Errorf("damaged: %s", strings.Join(bad, ", "))
	}
	again, _ := r.sink.counts()
	t.Logf("%d messages were promised before the cut, %d handed over before, %d came after it", len(due), len(over), again)
}

// due are the messages promised before a moment (ids by sequence number), over
// those of them that had been written to the mailbox by then.
func (r *recording) due(at int64) (due map[string]string, over map[string]bool) {
	before := map[string]bool{}
	for _, p := range r.given {
		before[p.id] = p.at <= at
	}
	due, over = map[string]string{}, map[string]bool{}
	for seq, id := range r.bySeq() {
		if !before[id] {
			continue
		}
		due[seq] = id
		if sent, ok := r.over[id]; ok && sent <= at {
			over[id] = true
		}
	}
	return due, over
}

// missing is a message that is nowhere, "" when there is none.
func missing(due map[string]string, sink *foreignSink, over map[string]bool, first map[string]int) string {
	for seq, id := range due {
		if sink.missing([]string{seq}) != nil && !(over[id] && first[seq] > 0) {
			return seq
		}
	}
	return ""
}

// TestLayer shows the layer a short life and what is left of it.
func TestLayer(t *testing.T) {
	const life = `9  1.000010 openat(AT_FDCWD</>, "/d/a", O_RDWR|O_CREAT, 0640) = 5</d/a> <0.000010>
9  1.000100 write(5</d/a>, "first", 5) = 5 <0.000010>
9  1.000200 fsync(6</d>) = 0 <0.000010>
9  1.000300 fdatasync(5</d/a>) = 0 <0.000010>
9  1.000400 pwrite64(5</d/a>, "SECOND", 6, 2) = 6 <0.000010>
9  1.000500 renameat(AT_FDCWD</>, "/d/a", AT_FDCWD</>, "/d/b") = 0 <0.000010>
9  1.000600 fsync(6</d>) = 0 <0.000010>
9  1.000700 ftruncate(5</d/b>, 3) = 0 <0.000010>
9  1.000800 fdatasync(5</d/b>) = 0 <0.000010>
9  1.000900 unlinkat(AT_FDCWD</>, "/d/b", 0) = 0 <0.000010>
`
	calls, err := parseRecord(strings.NewReader(life))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   int64
		odds float64
		want map[string]string
	}{
		{150, 0, map[string]string{}},
		{150, 1, map[string]string{"a": "first"}},
		{250, 0, map[string]string{"a": ""}},
		{450, 0, map[string]string{"a": "first"}},
		{450, 1, map[string]string{"a": "fiSECOND"}},
		{550, 0, map[string]string{"a": "first"}},
		{650, 0, map[string]string{"b": "first"}},
		{750, 1, map[string]string{"b": "fiS"}},
		{850, 0, map[string]string{"b": "fiS"}},
		{950, 0, map[string]string{"b": "fiS"}},
		{950, 1, map[string]string{}},
	} {
		dir := t.TempDir()
		to := filepath.Join(dir, "disk")
		s := survival{rng: rand.New(rand.NewPCG(1, 1)), odds: c.odds}
		if err := rebuild("/d", t.TempDir(), to, calls, 1_000_000+c.at, s); err != nil {
			t.Fatal(err)
		}
		if got := content(t, to); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("a cut after %d µs, of what was not synced %v survives: %v, want %v", c.at, c.odds, got, c.want)
		}
	}
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}
