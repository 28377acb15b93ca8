package smtp

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// A peer that goes away inside of content has sent no message, wherever it
// stopped: the session must see an error, not the end.
func TestContentCutOff(t *testing.T) {
	for _, sent := range []string{
		"DATA\r\n", "DATA\r\nSubject: x\r\n", "DATA\r\nSubject: x\r\n\r\nhalf a li",
		"DATA\r\n\r\n.", "DATA\r\n\r\n.\r", "BDAT 100\r\nhalf", "BDAT 4\r\nhalf", "BDAT 100 LAST\r\nhalf",
	} {
		read := make(chan error, 1)
		r := &recorder{data: func(r io.Reader) mail.Reply {
			_, err := io.ReadAll(r)
			read <- err
			return mail.Reply{Code: 250, Text: "never seen"}
		}}
		addr, _ := startServer(t, r, Listener{})
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "EHLO x.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"+sent)
		c.(*net.TCPConn).CloseWrite() // an orderly end, not a reset
		if err := <-read; err == nil {
			t.Errorf("%q and then nothing: the session saw a whole message", sent)
		}
		c.Close()
	}
}
