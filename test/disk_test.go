package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// smallDisk mounts a tmpfs for the length of the test.
func smallDisk(t *testing.T, mebibytes int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes))
	if errors.Is(err, syscall.EPERM) {
		testpeer.Missing(t, "mount", "the right to mount a tmpfs")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// onSmallDisk makes a gateway whose folder is on a small disk, and a tenant
// whose mailbox is at an address where nobody answers yet.
func onSmallDisk(t *testing.T, mebibytes, reserve int) (p *process, mailbox string) {
	t.Helper()
	disk := smallDisk(t, mebibytes)
	p = newProcessIn(t, filepath.Join(disk, "data"), "")
	p.setTop(fmt.Sprintf("reserve_mib = %d\n", reserve))
	p.start()
	mailbox = freeAddresses(t, 1)[0]
	p.tenant("acme", "us", "acme.test", mailbox)
	return p, mailbox
}

// TestDiskFull fills the disk with mail for a mailbox that is away: senders
// are told 452 4.3.1, what was accepted is delivered out of the reserve once
// the mailbox is back, and that makes room again, be the bodies rows or files.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
	}{{"rows", 20_000}, {"files", largeSize}} {
		t.Run(c.name, func(t *testing.T) {
			p, mailbox := onSmallDisk(t, 128, 48)
			l := &load{addr: p.smtp, size: c.size}
			runUntil(t, "452", func() bool { return l.replies()[452] > 20 }, l)
			onlyReplies(t, l, 250, 452)
			t.Logf("replies: %v", l.replies())

			sink := startForeignSinkAt(t, mailbox)
			p.must("queue", "resume", "t:acme:mailbox")
			verifyArrived(t, p, sink, l.numbers(), 0)
			acceptsAgain(t, p)
		})
	}
}

// acceptsAgain waits until a message is accepted.
func acceptsAgain(t *testing.T, p *process) {
	t.Helper()
	again := &load{addr: p.smtp, size: 20_000, name: "again-"}
	runUntil(t, "mail is accepted again", func() bool { return again.replies()[250] > 0 }, again)
}

// runUntil runs loads until a condition holds.
func runUntil(t *testing.T, what string, holds func() bool, loads ...*load) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, len(loads))
	for _, l := range loads {
		go func() { l.run(ctx, 4); ended <- struct{}{} }()
	}
	deadline := time.Now().Add(60 * time.Second)
	for !holds() && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	for range loads {
		<-ended
	}
	if !holds() {
		t.Errorf("not within a minute: %s; replies to the last load: %v", what, loads[len(loads)-1].replies())
	}
}

// onlyReplies allows no other codes; 0 is a connection cut by the test's end.
func onlyReplies(t *testing.T, l *load, codes ...int) {
	t.Helper()
	for code := range maps.Keys(l.replies()) {
		if code != 0 && !slices.Contains(codes, code) {
			t.Errorf("a sender was answered with %d: %v", code, l.replies())
		}
	}
}

// TestNoSpace takes the last byte of the disk, the reserve too, under load:
// what cannot be recorded is not promised, nothing promised is lost, and the
// gateway goes on by itself when there is space again.
func TestNoSpace(t *testing.T) {
	p, mailbox := onSmallDisk(t, 96, 8)
	sink := startForeignSinkAt(t, mailbox)
	l := &load{addr: p.smtp, size: 20_000}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx, 10) }()
	for range 2 {
		time.Sleep(time.Second)
		ballast := fillDisk(t, filepath.Dir(p.dir))
		time.Sleep(3 * time.Second)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		before := l.replies()[250]
		waitFor(t, "mail is accepted after space was made", func() bool { return l.replies()[250] > before+20 })
	}
	cancel()
	<-done
	select {
	case <-p.ended:
		t.Fatalf("the gateway ended: %s", p.log)
	default:
	}
	t.Logf("replies: %v", l.replies())
	onlyReplies(t, l, 250, 452, 451, 421)
	verifyArrived(t, p, sink, l.numbers(), 2*20*3)
}

// fillDisk leaves nothing, and returns the file that took it.
func fillDisk(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return f.Name()
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
