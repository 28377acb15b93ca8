package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// recording is a gateway that ran under load with every call on record, and
// its PostgreSQL too where there is one.
type recording struct {
	p            *process
	pg           *testpeer.Postgres // nil with SQLite
	sink         *foreignSink
	small, large *load
	from, to     int64  // when the load began and ended
	base, pgBase string // copies of the directories from before the start
	calls        []*call
	pgCalls      []*call
	given        []promise        // every 250 to a client
	over         map[string]int64 // when each message was written to the mailbox, by id
}

const (
	smallSize = 10_000
	largeSize = 200_000 // a file
)

// eachRecording puts small and large messages through a gateway on each store
// for some time, kills all, and looks at the record.
func eachRecording(t *testing.T, duration time.Duration, f func(t *testing.T, r *recording)) {
	t.Run("sqlite", func(t *testing.T) {
		r := &recording{p: newProcess(t, "")}
		r.record(t, duration)
		f(t, r)
	})
	t.Run("postgres", func(t *testing.T) {
		r := &recording{pg: testpeer.StartPostgres(t, "fsync=on")}
		r.p = newProcess(t, r.pg.Database(t))
		r.record(t, duration)
		f(t, r)
	})
}

func (r *recording) record(t *testing.T, duration time.Duration) {
	t.Helper()
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "calls"), filepath.Join(dir, "pgcalls")}
	r.sink = startForeignSink(t)
	r.sink.delay = 400 * time.Millisecond // so that much mail waits at any moment
	r.base = filepath.Join(dir, "base")
	copyTree(t, r.p.dir, r.base)
	if r.pg != nil {
		r.restartTraced(t, files[1], filepath.Join(dir, "pgbase"))
	}
	r.p.wrapper = tracer(t, files[0])
	r.p.start()
	r.p.tenant("acme", "us", "acme.test", r.sink.addr)
	r.from = time.Now().UnixMicro()
	r.load(t, duration)
	r.to = time.Now().UnixMicro()
	r.p.kill()
	r.p.wrapper = nil
	r.read(t, files[0])
	if r.pg != nil {
		r.pg.Stop(syscall.SIGQUIT) // its status tells of the signal
		r.pg.Under()
		r.pgCalls = readRecord(t, files[1])
	}
}

func (r *recording) read(t *testing.T, file string) {
	t.Helper()
	r.calls = readRecord(t, file)
	var err error
	if r.given, err = promises(r.calls, r.p.smtp); err != nil {
		t.Fatal(err)
	}
	if r.over, err = handedOver(r.calls, r.sink.addr); err != nil {
		t.Fatal(err)
	}
}

// restartTraced starts the server again with its calls on record.
func (r *recording) restartTraced(t *testing.T, record, base string) {
	t.Helper()
	if err := r.pg.Stop(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.pgBase = base
	copyTree(t, r.pg.Data(), base)
	r.pg.Under(tracer(t, record)...)
	if err := r.pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func (r *recording) load(t *testing.T, duration time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	r.small = &load{addr: r.p.smtp, size: smallSize, name: "small-"}
	r.large = &load{addr: r.p.smtp, size: largeSize, name: "large-"}
	var wg sync.WaitGroup
	wg.Go(func() { r.small.run(ctx, 6) })
	wg.Go(func() { r.large.run(ctx, 1) })
	wg.Wait()
}

// commits reports whether a store commits by writing to a file.
func (r *recording) commits(file string) bool {
	if r.pg != nil {
		return strings.HasPrefix(file, filepath.Join(r.pg.Data(), "pg_wal")+"/")
	}
	return file == filepath.Join(r.p.dir, "db", "road.db-wal")
}

// storeCalls are the calls of whoever commits.
func (r *recording) storeCalls() []*call {
	if r.pg != nil {
		return r.pgCalls
	}
	return r.calls
}

// bySeq are the ids of both loads' messages, by sequence number.
func (r *recording) bySeq() map[string]string {
	all := map[string]string{}
	for _, l := range []*load{r.small, r.large} {
		for seq, id := range l.ids {
			all[seq] = id
		}
	}
	return all
}
