package alarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// far is the other end of a webhook.
type far struct {
	mu      sync.Mutex
	answers []int // one each time, 0 is a broken connection; then 204
	hang    bool
	got     []Notice
	times   []time.Time
	tokens  []string
}

func (f *far) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	var n Notice
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got, f.times = append(f.got, n), append(f.times, time.Now())
	f.tokens = append(f.tokens, r.Header.Get("Authorization"))
	status := http.StatusNoContent
	if len(f.answers) > 0 {
		status, f.answers = f.answers[0], f.answers[1:]
	}
	if status == 0 {
		return nil, errors.New("connection reset")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: http.NoBody, Request: r}, nil
}

// world is a watch with figures that a test turns.
type world struct {
	mu    sync.Mutex
	f     Figures
	far   far
	mails [][]byte
	log   bytes.Buffer
	watch *Watch
}

func newWorld(t *testing.T, hooks ...Webhook) *world {
	w := &world{f: Figures{FreeBytes: 1 << 40}}
	var err error
	w.watch, err = New(Config{
		Figures:  func(context.Context) (Figures, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.f, nil },
		Webhooks: hooks,
		Mail: func(_ context.Context, _ mail.Address, _ []mail.Address, m []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mails = append(w.mails, m)
			return nil
		},
		From:     mail.Address{Local: "sallyport", Domain: "mx.example.net"},
		To:       []mail.Address{{Local: "ops", Domain: "example.net"}, {Local: "night", Domain: "example.net"}},
		Hostname: "mx.example.net",
		HTTP:     &http.Client{Transport: &w.far},
		Log:      slog.New(slog.NewTextHandler(&w.log, nil)),
		Now:      time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) set(f Figures) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.f = f
}

// run watches within a bubble until the test ends.
func (w *world) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.watch.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWatchTellsRaisedAndCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Webhook{URL: "https://hooks.example.net/x", Token: "s3cret"})
		defer w.run(t)()
		time.Sleep(time.Minute)
		w.set(Figures{FreeBytes: 1})
		time.Sleep(10 * time.Minute)
		w.set(Figures{FreeBytes: 1 << 40})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.far.got) != 2 || len(w.mails) != 2 {
			t.Fatalf("%d posts and %d mails, want 2 each", len(w.far.got), len(w.mails))
		}
		if n := w.far.got[0]; len(n.Raised) != 1 || n.Raised[0].Key != "disk" || n.Gateway != "mx.example.net" || n.Cleared == nil {
			t.Errorf("first notice %+v", n)
		}
		if n := w.far.got[1]; len(n.Cleared) != 1 || n.Cleared[0].Key != "disk" {
			t.Errorf("second notice %+v", n)
		}
		if w.far.tokens[0] != "Bearer s3cret" {
			t.Errorf("Authorization %q", w.far.tokens[0])
		}
	})
}

func TestWebhookIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Webhook{URL: "https://hooks.example.net/x"})
		w.far.answers = []int{0, 503, 200}
		w.set(Figures{FreeBytes: 1})
		defer w.run(t)()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(w.far.times) != 3 {
			t.Fatalf("%d tries, want 3", len(w.far.times))
		}
		if a, b := w.far.times[1].Sub(w.far.times[0]), w.far.times[2].Sub(w.far.times[1]); a != hookPause || b != 2*hookPause {
			t.Errorf("pauses %s and %s", a, b)
		}
	})
}

func TestWebhookIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Webhook{URL: "https://hooks.example.net/secret-path"})
		w.far.answers = []int{500, 500, 500, 500, 500}
		w.set(Figures{FreeBytes: 1})
		stop := w.run(t)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stop()
		if len(w.far.times) != hookTries {
			t.Errorf("%d tries, want %d", len(w.far.times), hookTries)
		}
		if log := w.log.String(); !strings.Contains(log, "hooks.example.net") || strings.Contains(log, "secret-path") {
			t.Errorf("log: %s", log)
		}
	})
}

// TestSlowWebhookHoldsNothingUp has a webhook that never answers: mail goes
// out, and the watch stops when it is told.
func TestSlowWebhookHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Webhook{URL: "https://hooks.example.net/x"})
		w.far.hang = true
		stop := w.run(t)
		for i := range hookQueue + 10 {
			w.set(Figures{FreeBytes: -1, Certificates: []Certificate{{Host: string(rune('a' + i)), NotAfter: time.Now()}}})
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if len(w.mails) < hookQueue {
			t.Errorf("%d mails went out", len(w.mails))
		}
		stop()
	})
}

func TestFiguresThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.watch.c.Figures = func(context.Context) (Figures, error) { return Figures{}, errors.New("closed") }
		stop := w.run(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if !strings.Contains(w.log.String(), "closed") || len(w.mails) != 0 {
			t.Errorf("%d mails, log: %s", len(w.mails), w.log.String())
		}
	})
}

func TestMessage(t *testing.T) {
	n := Notice{
		Gateway: "mx.example.net", Time: at(0), More: 3,
		Raised:  []Alarm{{Key: "route-stopped t:acme:mailbox", Detail: "550 5.7.64 nö\r\nBcc: all@example.org", Fix: "Mend it."}},
		Cleared: []Alarm{{Key: "disk", Since: at(-5)}},
	}
	raw := n.message(mail.Address{Local: "sp", Domain: "example.net"}, []mail.Address{{Local: "ops", Domain: "example.net"}})
	if bytes.Contains(bytes.ReplaceAll(raw, []byte("\r\n"), nil), []byte("\n")) {
		t.Error("a bare LF")
	}
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Bcc") != "" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("To") != "<ops@example.net>" {
		t.Errorf("header %v", m.Header)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(raw), "and 3 more") {
		t.Errorf("message:\n%s", raw)
	}
}

func TestSubjectIsOneLine(t *testing.T) {
	n := Notice{Gateway: "mx", Raised: []Alarm{{Key: "route-down a\r\nBcc: x@example.org" + strings.Repeat("é", 200)}}}
	raw := n.message(mail.Address{Local: "sp", Domain: "example.net"}, nil)
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil || m.Header.Get("Bcc") != "" {
		t.Fatalf("%v %v", err, m)
	}
}

func TestNewRefuses(t *testing.T) {
	nobody := func(context.Context, mail.Address, []mail.Address, []byte) error { return nil }
	for name, c := range map[string]Config{
		"a file":        {Webhooks: []Webhook{{URL: "file:///etc/passwd"}}},
		"no address":    {Webhooks: []Webhook{{URL: "hooks.example.net"}}},
		"no mail from":  {Mail: nobody, To: []mail.Address{{Local: "a", Domain: "b"}}},
		"broken escape": {Webhooks: []Webhook{{URL: "https://%zz/"}}},
	} {
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
