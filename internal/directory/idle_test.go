package directory

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// dialQuiet is a session with a server that says yes to everything.
func dialQuiet(t *testing.T) *smtp.Client {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		in := bufio.NewReader(there)
		_, err := io.WriteString(there, "220 x\r\n")
		for err == nil {
			line := ""
			if line, err = in.ReadString('\n'); err == nil {
				_, err = io.WriteString(there, "250 x\r\n")
			}
			if strings.HasPrefix(line, "QUIT") {
				there.Close()
			}
		}
	}()
	c, err := smtp.NewClient(context.Background(), here, smtp.Target{Address: "127.0.0.1:25", Hello: "us.test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestIdleEnd: a session whose certificate is over is not used for one more
// question, wherever it is when that happens; those dialled after are.
func TestIdleEnd(t *testing.T) {
	i := newIdle()
	defer i.close()
	at, other := key{"acme", "mailbox", "a:25", "mutual"}, key{"globex", "mailbox", "a:25", "mutual"}
	keep := func(where key) { i.put(where, dialQuiet(t), i.begin(where)) }
	keep(at)
	keep(other)
	asking, dialling := i.begin(at), i.begin(at)
	if left := i.end("acme", "mailbox", "old"); left != 2 {
		t.Errorf("%d are left, want the one that asks and the dial", left)
	}
	if c, _ := i.take(at); c != nil {
		t.Error("an idle one is used again")
	}
	elsewhere, using := i.take(other)
	if elsewhere == nil {
		t.Fatal("another tenant's has ended")
	}
	defer elsewhere.Close()
	i.put(at, dialQuiet(t), asking)
	if c, _ := i.take(at); c != nil {
		t.Error("one that was asked over is used again")
	}
	i.done(dialling)
	fresh := i.begin(at)
	if left := i.end("acme", "mailbox", "old"); left != 0 {
		t.Errorf("%d are left: a dial that began after is not waited for", left)
	}
	i.put(at, dialQuiet(t), fresh)
	if left := i.end("acme", "mailbox", "old"); left != 0 {
		t.Errorf("%d are left", left)
	}
	c, u := i.take(at)
	if c == nil {
		t.Fatal("one with the new certificate has ended")
	}
	i.put(at, c, u)
	i.end("acme", "mailbox", "new")
	if c, _ := i.take(at); c != nil || len(i.busy) != 1 || !i.busy[using] {
		t.Errorf("%v, %d in use", c, len(i.busy))
	}
	// The old certificate is shown again, and then it is over once more.
	i.back("old")
	late := i.begin(at)
	if left := i.end("acme", "mailbox", "old"); left != 1 {
		t.Errorf("%d are left, want the dial", left)
	}
	i.done(late)
}
