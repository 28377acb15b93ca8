package edge

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

func openStore(t testing.TB) *store.Store { return openStoreWith(t, store.Config{}) }

func openStoreWith(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	c.Dir, c.Log, c.Now = t.TempDir(), slog.New(slog.DiscardHandler), time.Now
	st, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// Header sections around and beyond what a body keeps in memory are found
// whole, in whatever pieces they come.
func TestReceiveHeaders(t *testing.T) {
	st := openStore(t)
	e := New(Config{Store: st, Hostname: func(string) string { return "mx.test" }})
	rest := strings.Repeat("body line\r\n", 8000)
	for _, size := range []int{100, store.DefaultRowLimit - 60, store.DefaultRowLimit - 2, store.DefaultRowLimit, 100_000, 250_000} {
		var h strings.Builder
		h.WriteString("Subject: s\r\n")
		for h.Len() < size {
			h.WriteString("X-Filler: " + strings.Repeat("x", 400) + "\r\n")
		}
		h.WriteString("Message-ID: <last@x>\r\n\r\n")
		for name, r := range map[string]io.Reader{
			"at once":   strings.NewReader(h.String() + rest),
			"by halves": iotest.HalfReader(strings.NewReader(h.String() + rest)),
			"by 7":      &pieces{r: strings.NewReader(h.String() + rest), n: 7},
		} {
			body := st.Bodies.New()
			in, refusal, err := e.receive(body, r)
			if err != nil || refusal != nil {
				t.Fatalf("%d %s: %v %v", size, name, refusal, err)
			}
			if string(in.header) != h.String() || in.summary.MessageID != "<last@x>" {
				t.Errorf("%d %s: header of %d bytes, id %q", h.Len(), name, len(in.header), in.summary.MessageID)
			}
			if body.Size() != int64(h.Len()+len(rest)) {
				t.Errorf("%d %s: body of %d bytes", size, name, body.Size())
			}
			body.Discard()
		}
	}
}

type pieces struct {
	r io.Reader
	n int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

func TestHeaderLimits(t *testing.T) {
	st := openStore(t)
	e := New(Config{Store: st, Hostname: func(string) string { return "mx.test" }})
	endless := io.MultiReader(strings.NewReader("X: "), io.LimitReader(forever('a'), 1<<20))
	for _, c := range []struct {
		name string
		r    io.Reader
		code int
	}{
		{"1000 fields", strings.NewReader(strings.Repeat("X: y\r\n", 1000) + "\r\nbody"), 0},
		{"1001 fields", strings.NewReader(strings.Repeat("X: y\r\n", 1001) + "\r\nbody"), 554},
		{"256 KiB", strings.NewReader("X: " + strings.Repeat(strings.Repeat("a", 500)+"\r\n ", 600) + "\r\n\r\nbody"), 552},
		{"no end", endless, 552},
		{"body of 1 MiB", io.MultiReader(strings.NewReader("X: y\r\n\r\n"), io.LimitReader(forever('a'), 1<<20)), 0},
		{"no header", io.MultiReader(strings.NewReader("\r\n"), io.LimitReader(forever('a'), 1<<20)), 0},
	} {
		body := st.Bodies.New()
		_, refusal, err := e.receive(body, c.r)
		got := 0
		if refusal != nil {
			got = refusal.Code
		}
		if err != nil || got != c.code {
			t.Errorf("%s: %v %v", c.name, refusal, err)
		}
		body.Discard()
	}
}

type forever byte

func (f forever) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(f)
	}
	return len(b), nil
}

func TestReceiveReportsTheReader(t *testing.T) {
	st := openStore(t)
	e := New(Config{Store: st, Hostname: func(string) string { return "mx.test" }})
	broken := errors.New("bare line feed")
	body := st.Bodies.New()
	defer body.Discard()
	_, _, err := e.receive(body, io.MultiReader(bytes.NewReader([]byte("X: y\r\n")), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// However a message is cut into pieces, and however little of it a body keeps
// in memory, the header section that is judged is that of the whole message.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("Subject: x\r\n\r\nbody\r\n"), uint8(3))
	f.Add([]byte("\r\nbody only, and longer than what the body keeps in memory, so that it spills\r\n"), uint8(1))
	f.Add([]byte("A: "+strings.Repeat("a", 58)+"\r\n\r\nX: not a field\r\n"), uint8(1))
	f.Add([]byte("A: "+strings.Repeat("b", 100)+"\r\nB: c\r\n\r\nX: not a field\r\n"), uint8(7))
	st, err := store.Open(f.Context(), store.Config{Dir: f.TempDir(), RowLimit: 64, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	e := New(Config{Store: st, Hostname: func(string) string { return "mx.test" }, Limits: Limits{HeaderBytes: 1 << 20}})
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		body := st.Bodies.New()
		defer body.Discard()
		in, refusal, err := e.receive(body, &pieces{r: bytes.NewReader(data), n: int(n) + 1})
		if err != nil {
			t.Fatal(err)
		}
		if refusal != nil {
			return
		}
		if want := data[:mail.ScanHeader(data, "").Bytes]; !bytes.Equal(in.header, want) {
			t.Fatalf("header %q, want %q", in.header, want)
		}
	})
}
