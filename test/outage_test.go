package test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestDatabaseOutage stops PostgreSQL under load as a crash would, and starts
// it again: senders are told to try later, nothing accepted is lost, and the
// gateway goes on by itself.
func TestDatabaseOutage(t *testing.T) {
	outages := []time.Duration{500 * time.Millisecond, 3 * time.Second}
	if chaos() {
		outages = append(outages, 15*time.Second, 45*time.Second)
	}
	pg := testpeer.StartPostgres(t, "fsync=on")
	p := newProcess(t, pg.Database(t))
	sink := startForeignSink(t)
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	l := &load{addr: p.smtp, size: 10_000}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx, 10) }()
	for _, outage := range outages {
		time.Sleep(500 * time.Millisecond)
		whileDown(t, pg, l, outage)
		before := l.replies()[250]
		waitFor(t, "mail is accepted after the outage", func() bool { return l.replies()[250] > before+20 })
	}
	cancel()
	<-done
	select {
	case <-p.ended:
		t.Fatalf("the gateway ended: %s", p.log)
	default:
	}
	replies := l.replies()
	t.Logf("replies: %v", replies)
	onlyReplies(t, l, 250, 421, 450, 451, 452, 454)
	if replies[421]+replies[450]+replies[451]+replies[452] == 0 {
		t.Errorf("no sender was told to try later: %v", replies)
	}
	verifyArrived(t, p, sink, l.numbers(), len(outages)*20)
}

// whileDown stops the server, sees that nothing is accepted, and starts it.
func whileDown(t *testing.T, pg *testpeer.Postgres, l *load, outage time.Duration) {
	t.Helper()
	pg.Stop(syscall.SIGQUIT) // its status tells of the signal
	at := l.replies()[250]
	time.Sleep(outage)
	// A reply may have been on its way when the server stopped.
	if accepted := l.replies()[250] - at; accepted > 10 {
		t.Errorf("%d messages were accepted while the database was down", accepted)
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
