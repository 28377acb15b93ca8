package test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestFirewall: fields that only the tenant's own Exchange may set reach its
// mailbox from there and from nobody else, in small messages and in large ones;
// on the way out they stay.
func TestFirewall(t *testing.T) {
	mailbox, outside := testpeer.StartSink(t, testpeer.SinkRules{}), testpeer.StartSink(t, testpeer.SinkRules{})
	p := newProcess(t, "")
	p.start()
	p.tenant("acme", "us", "acme.test", mailbox.Addr)
	p.connection("acme", "out", outside.Addr, "--direction", "outbound", "--tls", "none", "--network", "127.0.0.7/32")
	const kept, secret = "Subject: hello\r\n", "X-MS-Exchange-Organization-SCL: -1\r\nx-ms-journal-report :\r\n"
	for i, lines := range []int{1, 50_000} {
		body := "From: a@example.org\r\n\r\n" + strings.Repeat(".a line\r\n", lines)
		for _, c := range []struct {
			name, local, to string
			sink            *testpeer.Sink
			want            string
		}{
			{"a stranger", "127.0.0.8", "b@acme.test", mailbox, kept + body},
			{"acme's own, to a colleague", "127.0.0.7", "b@acme.test", mailbox, kept + secret + body},
			{"acme's own, to the world", "127.0.0.7", "x@elsewhere.test", outside, kept + secret + body},
		} {
			before := len(c.sink.Messages())
			sendFrom(t, c.local, p.smtp, "someone@example.org", c.to, kept+secret+body)
			got := c.sink.Wait(t, before+1, 20*time.Second)[before].Data
			ours, whole := bytes.CutSuffix(got, []byte(c.want))
			if s := mail.ScanHeader(ours, ""); !whole || s.Fields != 1 || s.Received != 1 {
				t.Errorf("%s, size %d: %d bytes arrived, beginning\n%.400s", c.name, i, len(got), got)
			}
		}
	}
}

func sendFrom(t *testing.T, local, addr, from, to, content string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := gosmtp.NewClient(nc)
	defer c.Close()
	if err := c.SendMail(from, []string{to}, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}
