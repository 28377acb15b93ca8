package queue

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// However a body is read, what is cut is not read and everything else is.
func TestRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body")
		marks := rapid.SliceOfN(rapid.IntRange(0, len(body)), 0, 8).Draw(t, "marks")
		var cut []mail.Span
		for at := 0; len(marks) > 1; marks = marks[2:] {
			from := max(at, marks[0])
			at = max(from, marks[1])
			cut = append(cut, mail.Span{From: from, To: at})
		}
		want := mail.Without(body, cut)
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(body), "by byte": iotest.OneByteReader(bytes.NewReader(body)),
			"by halves": iotest.HalfReader(bytes.NewReader(body)), "end with data": iotest.DataErrReader(bytes.NewReader(body)),
		} {
			got, err := io.ReadAll(&rest{ReadCloser: io.NopCloser(r), cut: cut})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %d bytes without %v are %d, %v", name, len(body), cut, len(got), err)
			}
		}
	})
	broken := &rest{ReadCloser: io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abcd")))), cut: []mail.Span{{From: 0, To: 1}}}
	if got, err := io.ReadAll(broken); err != iotest.ErrTimeout || len(got) != 0 {
		t.Errorf("a body that cannot be read: %q, %v", got, err)
	}
}

// What is cut of an item is cut wherever its body is read, in memory and after
// a restart; another item of the same body has it.
func TestCut(t *testing.T) {
	const head, secret = "Message-ID: <1@test>\r\n", "X-Secret: yes\r\n folded\r\n"
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		for _, lines := range []int{1, 20_000} {
			tail := "Subject: hello\r\n\r\n" + strings.Repeat("a line of the body\r\n", lines)
			m := b.message("acme", "mx:far", "me@acme.test", "x@far.test")
			m.Body = s.Bodies.New()
			t.Cleanup(m.Body.Discard)
			_, err := io.WriteString(m.Body, head+secret+tail)
			b.must(err)
			refs, err := m.Body.Finish(t.Context(), "acme")
			b.must(err)
			m.Ref = refs[0]
			whole := m.Items[0]
			whole.Destination = "acme/in"
			m.Items[0].Own = true
			m.Items[0].Cut = []mail.Span{{From: len(head), To: len(head + secret)}}
			m.Items = append(m.Items, whole)
			m = b.put(m)
			for _, when := range []string{"at once", "after a restart"} {
				for i, want := range []string{head + tail, head + secret + tail} {
					it := m.Items[i]
					if when != "at once" {
						it, err = b.q.Show(t.Context(), "acme", it.ID)
						b.must(err)
					}
					if p := b.q.Bytes(&it); p != nil && string(p) != want || p == nil && when == "at once" && lines == 1 {
						t.Errorf("%s, %d lines, item %d: %d bytes in memory", when, lines, i, len(p))
					}
					r, err := b.q.Open(t.Context(), &it)
					b.must(err)
					got, err := io.ReadAll(r)
					r.Close()
					if err != nil || string(got) != want || it.Size != int64(len(want)) {
						t.Errorf("%s, %d lines, item %d: %d bytes, size %d, want %d, %v", when, lines, i, len(got), it.Size, len(want), err)
					}
				}
				b.open()
			}
			quoted, _ := b.q.quote(t.Context(), &m.Items[0])
			if want := head + "Subject: hello\r\n\r\n"; string(quoted) != want {
				t.Errorf("a notification quotes %q", quoted)
			}
			n, err := b.q.Drop(t.Context(), "op", Filter{Message: m.Summary.ID}, "")
			if n != 2 || err != nil {
				t.Error(n, err)
			}
		}
	})
}
