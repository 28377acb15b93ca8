package smtp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// goodContent generates content of lines, with everything in them that might
// be mistaken for something.
func goodContent() *rapid.Generator[[]byte] {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"", ".", "..", ".a", "a.", "\x00", "QUIT", "BDAT 5 LAST", strings.Repeat("x", 998), strings.Repeat(".", 5000)}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 60), func(b []byte) string {
			return strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(string(b))
		}),
	)
	return rapid.Map(rapid.SliceOfN(line, 0, 40), func(lines []string) []byte {
		if len(lines) == 0 {
			return nil
		}
		return []byte(strings.Join(lines, "\r\n") + "\r\n")
	})
}

// choppy writes in pieces of changing size.
type choppy struct {
	net.Conn
	sizes []int
	n     int
}

func (c *choppy) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := min(c.sizes[c.n%len(c.sizes)], len(p))
		c.n++
		m, err := c.Conn.Write(p[:n])
		total += m
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// TestContentSurvives: whatever content is sent arrives byte for byte, by DATA
// from our client and by BDAT, in packets of any size.
func TestContentSurvives(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	rapid.Check(t, func(t *rapid.T) {
		body := goodContent().Draw(t, "body")
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 40000)), 1, 5).Draw(t, "sizes")
		streamed := rapid.Bool().Draw(t, "streamed")
		cut := rapid.IntRange(0, len(body)).Draw(t, "prefix")
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c, err := NewClient(t.Context(), &choppy{Conn: nc, sizes: sizes}, Target{Hello: "c.test"})
		if err != nil {
			t.Fatal(err)
		}
		content := Content{Prefix: body[:cut], Bytes: body[cut:], Size: int64(len(body))}
		if streamed {
			rest := content.Bytes
			content.Bytes, content.Open = nil, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rest)), nil }
		}
		res, err := c.Send(t.Context(), envelope("a@x.test", "b@y.test"), content, nil)
		if err != nil || !res.Sent || res.Data[0].Code != 250 {
			t.Fatalf("%+v, %v", res, err)
		}
		sameAsLast(t, b, body)
		if err := sendChunks(nc, body, sizes); err != nil {
			t.Fatal(err)
		}
		sameAsLast(t, b, body)
	})
}

func sameAsLast(t *rapid.T, b *recorder, body []byte) {
	kept := b.kept()
	if got := kept[len(kept)-1].body; !bytes.Equal(got, body) {
		t.Fatalf("sent %q, kept %q", body, got)
	}
}

// sendChunks sends a message in chunks of the given sizes, all pipelined.
func sendChunks(nc net.Conn, body []byte, sizes []int) error {
	var out bytes.Buffer
	out.WriteString("MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n")
	chunks := 2
	for i := 0; len(body) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(body))
		fmt.Fprintf(&out, "BDAT %d\r\n%s", n, body[:n])
		body = body[n:]
		chunks++
	}
	out.WriteString("BDAT 0 LAST\r\n")
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		_, err := (&choppy{Conn: nc, sizes: sizes}).Write(out.Bytes())
		failed <- err
	}()
	c := wire{}
	c.attach(nc)
	for range chunks + 1 {
		r, err := c.readReply(10 * time.Second)
		if err != nil || r.Code != 250 {
			return fmt.Errorf("%v, %w", r, err)
		}
	}
	return <-failed
}
