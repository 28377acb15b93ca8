package smtp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// scanAll feeds p to a scan in pieces that end at cuts, as a connection would.
func scanAll(p []byte, dots bool, maxLine int, cuts []int) (content []byte, used int, end bool, err error) {
	s := lineScan{dots: dots, maxLine: maxLine}
	var held []byte
	cuts = append(cuts, len(p))
	from := 0
	for _, to := range cuts {
		if to < from || to > len(p) {
			continue
		}
		held = append(held, p[from:to]...)
		from = to
		if len(held) == 0 {
			continue
		}
		got := s.scan(held)
		content = append(content, got.content...)
		used += got.used
		if err == nil {
			err = got.err
		}
		held = append([]byte(nil), held[got.used:]...)
		if got.end {
			return content, used, true, err
		}
	}
	if !dots && err == nil {
		err = s.ends.finish()
	}
	return content, used, false, err
}

// naive is the same law byte by byte, as one would write it down.
type naive struct {
	content []byte
	used    int
	end     bool
	bad     bool
	long    bool
}

func naiveScan(p []byte, dots bool, maxLine int) naive {
	var n naive
	line := []byte{} // the line as it came, with its end
	bol := true      // the line began after CR LF
	for i := 0; i < len(p); i++ {
		line = append(line, p[i])
		if !bytes.HasSuffix(line, []byte("\r\n")) && i < len(p)-1 {
			continue
		}
		whole := bytes.HasSuffix(line, []byte("\r\n"))
		if dots && bol && whole && string(line) == ".\r\n" {
			n.used, n.end = i+1, true
			return n
		}
		if dots && bol && !whole && (string(line) == "." || string(line) == ".\r") {
			n.used = i + 1 - len(line)
			return n
		}
		text := line
		if dots && bol && line[0] == '.' {
			text = line[1:]
		}
		n.content = append(n.content, text...)
		n.used = i + 1
		n.judge(text, whole, maxLine, dots)
		line, bol = line[:0], true
	}
	return n
}

// judge looks at one unstuffed line.
func (n *naive) judge(text []byte, whole bool, maxLine int, dots bool) {
	inner := text
	if whole {
		inner = text[:len(text)-2]
	} else if dots && bytes.HasSuffix(text, []byte("\r")) {
		inner = text[:len(text)-1] // what follows decides
	}
	n.bad = n.bad || bytes.ContainsAny(inner, "\r\n")
	n.long = n.long || maxLine > 0 && len(text) > maxLine
	ended := whole || bytes.HasSuffix(text, []byte("\r"))
	if ended && len(inner) > 1 && inner[0] == 0 && string(bytes.ReplaceAll(inner, []byte{0}, nil)) == "." {
		n.bad = true
	}
}

func compareScan(t interface{ Errorf(string, ...any) }, p []byte, dots bool, maxLine int, cuts []int) {
	want := naiveScan(p, dots, maxLine)
	content, used, end, err := scanAll(bytes.Clone(p), dots, maxLine, cuts)
	if !bytes.Equal(content, want.content) || used != want.used || end != want.end {
		t.Errorf("%q cut at %v, dots %v: content %q used %d end %v, want %q %d %v", p, cuts, dots, content, used, end, want.content, want.used, want.end)
	}
	if (err != nil) != (want.bad || want.long) {
		t.Errorf("%q cut at %v, dots %v: error %v, want %v", p, cuts, dots, err, want)
	}
	if err != nil && !want.long && !errors.Is(err, ErrBareLine) || err != nil && !want.bad && !errors.Is(err, ErrLineLength) {
		t.Errorf("%q: error %v, want %v", p, err, want)
	}
}

// pieces generates content out of what matters.
func pieces() *rapid.Generator[[]byte] {
	part := rapid.SampledFrom([]string{".", "..", "\r\n", "\r", "\n", "\x00", "a", "some words", ".\r\n", "\r\n.\r\n", "\r\n.", ".\r", "\r\n\x00.\r\n", "é"})
	return rapid.Custom(func(t *rapid.T) []byte {
		return []byte(strings.Join(rapid.SliceOfN(part, 0, 30).Draw(t, "parts"), ""))
	})
}

func TestScanLikeNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pieces().Draw(t, "p")
		cuts := sortedCuts(t, len(p))
		compareScan(t, p, rapid.Bool().Draw(t, "dots"), rapid.SampledFrom([]int{0, 0, 4, 12}).Draw(t, "maxLine"), cuts)
	})
}

func sortedCuts(t *rapid.T, n int) []int {
	var cuts []int
	for at := 0; at < n; {
		at += rapid.IntRange(1, 9).Draw(t, "step")
		cuts = append(cuts, min(at, n))
	}
	return cuts
}

func FuzzDataReader(f *testing.F) {
	for _, s := range smugglingSequences(f) {
		f.Add([]byte("a"+s+"b\r\n.\r\n"), uint16(3), true)
	}
	f.Add([]byte("..\r\n.\r\n"), uint16(1), true)
	f.Add([]byte("a\rb\n"), uint16(2), false)
	f.Fuzz(func(t *testing.T, p []byte, cut uint16, dots bool) {
		compareScan(t, p, dots, 20, []int{int(cut) % (len(p) + 1)})
		compareScan(t, p, dots, 0, everyByte(len(p)))
	})
}

func everyByte(n int) []int {
	cuts := make([]int, n)
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}

// stuffed is what a client writes for p in two pieces.
func stuffed(p []byte, cut int) ([]byte, error) {
	var s stuffing
	var out []byte
	for _, piece := range [][]byte{p[:cut], p[cut:]} {
		parts, err := s.parts(nil, piece)
		if err != nil {
			return nil, err
		}
		out = append(out, bytes.Join(parts, nil)...)
	}
	end, err := s.dot()
	return append(out, end...), err
}

func FuzzStuff(f *testing.F) {
	f.Add([]byte(".a\r\n.\r\n..\r\n"), uint16(4))
	f.Add([]byte("no end"), uint16(0))
	f.Add([]byte("x\r\n\x00.\r\n"), uint16(5))
	f.Fuzz(func(t *testing.T, p []byte, cut uint16) {
		out, err := stuffed(p, int(cut)%(len(p)+1))
		want := naiveScan(p, false, 0)
		bad := want.bad || bytes.HasSuffix(p, []byte("\r"))
		if bad != (err != nil) {
			t.Fatalf("%q: error %v, want %v", p, err, bad)
		}
		if err != nil {
			return
		}
		back := naiveScan(out, true, 0)
		if len(p) > 0 && !bytes.HasSuffix(p, []byte("\r\n")) {
			p = append(bytes.Clone(p), "\r\n"...)
		}
		if !back.end || back.used != len(out) || !bytes.Equal(back.content, p) {
			t.Fatalf("%q became %q, which is read as %q", p, out, back.content)
		}
	})
}

// smugglingSequences are the published look-alikes of an end of data.
func smugglingSequences(t testing.TB) []string {
	sets := os.Getenv("SALLYPORT_DATA_SETS")
	if sets == "" {
		sets = filepath.Join("..", "..", "..", "shared", "data")
	}
	raw, err := os.ReadFile(filepath.Join(sets, "smtp", "end-of-data-sequences.json"))
	if errors.Is(err, os.ErrNotExist) {
		if _, fuzzing := t.(*testing.F); !fuzzing {
			t.Skip("the data sets are not here; SALLYPORT_DATA_SETS names their folder")
		}
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Sets []struct {
			Sequences []struct{ Hex string }
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, set := range doc.Sets {
		for _, s := range set.Sequences {
			b, err := hex.DecodeString(s.Hex)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
	}
	return all
}

// TestSmugglingIn sends every look-alike to the server, with a second message
// behind it that must not come into being.
func TestSmugglingIn(t *testing.T) {
	sequences := smugglingSequences(t)
	if len(sequences) < 20 {
		t.Fatalf("only %d sequences", len(sequences))
	}
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{MaxErrors: 1000})
	for _, s := range sequences {
		nc := greeted(t, addr)
		evil := "EHLO c.test\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n" +
			"Subject: one\r\n\r\nbody" + s + "MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n"
		if _, err := io.WriteString(nc, evil); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(nc)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if strings.Count(string(all), "354 ") != 1 || strings.Count(string(all), "250 2.1.0") != 1 {
			t.Errorf("%q was an end of data: %q", s, all)
		}
		bare := strings.Contains(strings.ReplaceAll(s, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(s, "\r\n", ""), "\r") || strings.HasSuffix(s, "\x00.\r\n")
		if refused := strings.Contains(string(all), "\n550 5.6.11"); bare && !refused {
			t.Errorf("%q was not refused: %q", s, all)
		}
	}
	for _, m := range b.kept() {
		if m.env.From.Local == "evil" || bytes.Contains(m.body, []byte("\x00.\r\n")) {
			t.Errorf("kept %+v %q", m.env, m.body)
		}
	}
}

// TestSmugglingOut asks the client to send them: with bare line ends it must
// not, and what it does send must be one message.
func TestSmugglingOut(t *testing.T) {
	for _, s := range smugglingSequences(t) {
		b := &recorder{}
		addr, _ := startServer(t, b, Listener{})
		body := "Subject: one\r\n\r\nbody" + s + "MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nevil\r\n"
		want := naiveScan([]byte(body), false, 0)
		for _, content := range []Content{
			{Bytes: []byte(body)},
			{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }},
		} {
			c := dialTest(t, addr)
			asked := false
			res, err := c.Send(t.Context(), envelope("a@x.test", "b@y.test"), content, func(context.Context) error { asked = true; return nil })
			if want.bad {
				if !errors.Is(err, ErrBareLine) || res.Sent || asked || c.Alive() {
					t.Errorf("%q: %+v, %v, asked %v", s, res, err, asked)
				}
				continue
			}
			if err != nil || res.Data[0].Code != 250 {
				t.Errorf("%q: %+v, %v", s, res, err)
			}
		}
		for _, m := range b.kept() {
			if string(m.body) != body {
				t.Errorf("%q became %q", s, m.body)
			}
		}
	}
}
