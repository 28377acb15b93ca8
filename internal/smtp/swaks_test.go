package smtp_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// swaksBody is what {body} stands for in a case.
const swaksBody = "Subject: dots\n\n.\n..\n.x\ngr\xc3\xbc\xc3\x9fe \xe9\nlast\n"

// TestSwaks runs the cases of testdata/swaks; their README has the format.
func TestSwaks(t *testing.T) {
	testpeer.Need(t, "swaks", "swaks")
	files, err := filepath.Glob("testdata/swaks/*.case")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, []byte(swaksBody), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			runSwaks(t, string(script), body)
		})
	}
}

func runSwaks(t *testing.T, script, body string) {
	var rules smtp.Listener
	var args, says []string
	b := &smtp.Recorder{}
	b.SetPassword("secret")
	exit, kept := 0, 0
	for _, line := range strings.Split(script, "\n") {
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "L:":
			rules = swaksRules(t, arg)
		case "A:":
			args = append(args, strings.Fields(strings.ReplaceAll(arg, "{body}", "@"+body))...)
		case "says:":
			says = append(says, arg)
		case "exit:":
			exit, _ = strconv.Atoi(arg)
		case "kept:":
			kept, _ = strconv.Atoi(arg)
		}
	}
	addr, _ := smtp.StartServer(t, b, rules)
	transcript, code := testpeer.Swaks(t, addr, append(args, "--helo", "c.test")...)
	if code != exit {
		t.Errorf("exit %d, want %d", code, exit)
	}
	for _, want := range says {
		if !saysLine(transcript, want) {
			t.Errorf("no line %q", want)
		}
	}
	messages := b.Kept()
	if len(messages) != kept {
		t.Errorf("%d kept", len(messages))
	}
	if kept > 0 && strings.Contains(script, "{body}") {
		want := strings.ReplaceAll(swaksBody, "\n", "\r\n")
		if got := messages[0].Body(); strings.TrimRight(got, "\r\n") != strings.TrimRight(want, "\r\n") {
			t.Errorf("body %q, want %q", got, want)
		}
	}
	if t.Failed() {
		t.Log(transcript)
	}
}

func swaksRules(t *testing.T, arg string) (l smtp.Listener) {
	for _, word := range strings.Fields(arg) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "tls":
			l.TLS = &tls.Config{Certificates: []tls.Certificate{smtp.NewCertificate(t, "mx.test")}}
		case "implicit":
			l.TLS = &tls.Config{Certificates: []tls.Certificate{smtp.NewCertificate(t, "mx.test")}}
			l.ImplicitTLS = true
		case "auth":
			l.Auth = true
		case "mandatory":
			l.RequireTLS = true
		case "maxsize":
			l.MaxSize, _ = strconv.ParseInt(value, 10, 64)
		default:
			t.Fatalf("no rule %q", word)
		}
	}
	return l
}

func saysLine(transcript, want string) bool {
	head, tail, wild := strings.Cut(want[4:], "*")
	head = want[:4] + head
	for _, line := range strings.Split(transcript, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if !wild && line == head || wild && strings.HasPrefix(line, head) && strings.HasSuffix(line, tail) {
			return true
		}
	}
	return false
}
