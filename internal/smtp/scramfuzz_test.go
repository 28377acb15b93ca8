package smtp

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// FuzzSCRAMServer: whatever a server says that does not know the password, it
// is never believed, and never makes us work more than it may. "{nonce}" is
// ours.
func FuzzSCRAMServer(f *testing.F) {
	for _, first := range []string{
		"r={nonce}x,s=c2FsdA==,i=4096", "r={nonce},s=c2FsdA==,i=4096", "r=x,s=c2FsdA==,i=4096", "m=x,r={nonce}x,s=c2FsdA==,i=4096",
		"r={nonce}x,s=,i=4096", "r={nonce}x,s=c2FsdA==,i=1000000000", "r={nonce}x,s=c2FsdA==,i=+4096,i=1", "r={nonce}x\n,s=c2Fs\ndA==,i=04096",
	} {
		f.Add(first, "v="+base64.StdEncoding.EncodeToString(make([]byte, 32)), true)
		f.Add(base64.StdEncoding.EncodeToString([]byte(first)), "e=other-error", false)
	}
	f.Fuzz(func(t *testing.T, first, last string, encode bool) {
		c := &Client{hello: "hi\nAUTH SCRAM-SHA-256"}
		s, err := c.newSCRAM("user", "secret")
		if err != nil {
			t.Fatal(err)
		}
		first = strings.ReplaceAll(first, "{nonce}", s.nonce)
		said := func(text string) mail.Reply {
			if encode {
				text = base64.StdEncoding.EncodeToString([]byte(text))
			}
			return mail.Reply{Code: 334, Text: text}
		}
		response, err := s.answer(said(first))
		if err != nil {
			return
		}
		if proved, _ := s.proof(said(last)); proved {
			t.Errorf("%q and %q prove that the password is known", first, last)
		}
		heard, err := challenge(said(first))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Split(heard, ",")
		nonce := strings.TrimPrefix(fields[0], "r=")
		if n, err := strconv.Atoi(strings.TrimPrefix(fields[2], "i=")); err != nil || n < 4096 || n > 1000000 {
			t.Errorf("took %q", heard)
		}
		if len(nonce) <= len(s.nonce) || !strings.HasPrefix(nonce, s.nonce) || !strings.Contains(response, ",r="+nonce+",p=") {
			t.Errorf("took %q and answered %q", heard, response)
		}
	})
}
