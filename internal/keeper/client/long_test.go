package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// slowly takes a while for each piece.
type slowly struct {
	strings.Builder
	pause time.Duration
}

func (s *slowly) Write(b []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Builder.Write(b)
}

// A keeper that is away, that says nothing, or that falls silent in the middle
// ends an export in its time; one that is long, or whose reader is slow, does not.
func TestSilentExport(t *testing.T) {
	const silence = 500 * time.Millisecond
	piece := strings.Repeat("x", 1024)
	send := func(pieces int, every time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for range pieces {
				fmt.Fprint(w, piece)
				w.(http.Flusher).Flush()
				time.Sleep(every)
			}
		}
	}
	still := func(pieces int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			send(pieces, 0)(w, r)
			<-r.Context().Done()
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc // nil: a keeper that never starts
		pause  time.Duration    // of the reader
		pieces int
		want   string // of the error, "" for none
	}{
		"does not start":      {nil, 0, 0, "the keeper of region us does not answer: "},
		"says nothing":        {still(0), 0, 0, "the keeper of region us does not answer: "},
		"falls silent":        {still(2), 0, 2, "nothing came from it in 500ms"},
		"long":                {send(12, silence/8), 0, 12, ""},
		"has a slow reader":   {send(2, silence/8), silence + silence/4, 2, ""},
		"refuses, and slowly": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); still(1)(w, r) }, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := RemoteConfig{Region: "us", Socket: filepath.Join(t.TempDir(), "s"), Timeout: time.Second, Silence: silence}
			if c.answer == nil {
				cfg.Wake = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			} else {
				serveOn(t, cfg.Socket, c.answer)
			}
			r, err := NewRemote(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			out := &slowly{pause: c.pause}
			done := make(chan error, 1)
			go func() { done <- r.ExportLedger(t.Context(), out) }()
			select {
			case err = <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("it hangs")
			}
			whole := c.want == "" && c.pieces > 0
			if whole != (err == nil) || err != nil && (!fault.Is(err, fault.Later) || !strings.Contains(fault.Sentence(err), c.want)) {
				t.Errorf("%v", err)
			}
			if out.Len() != c.pieces*len(piece) {
				t.Errorf("%d bytes", out.Len())
			}
		})
	}
}

// serveOn answers on a socket until the test's end.
func serveOn(t *testing.T, socket string, answer http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is seen
		answer(w, r)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
}
