package mail

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestFindFields(t *testing.T) {
	const in = "A: 1\r\nX-MS-Org-SCL: -1\r\n folded\r\nB: 2\r\nx-ms-org-y : 2\r\nX-Ms-Org-Z\r\n\t: 3\r\nC: 3\r\n\r\nA: body\r\nX-MS-Org-A: body\r\n"
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"X-MS-Org-*"}, "A: 1\r\nB: 2\r\nC: 3\r\n\r\nA: body\r\nX-MS-Org-A: body\r\n"},
		{[]string{"x-ms-org-Y", "X-MS-Org-z"}, "A: 1\r\nX-MS-Org-SCL: -1\r\n folded\r\nB: 2\r\nC: 3\r\n\r\nA: body\r\nX-MS-Org-A: body\r\n"},
		{[]string{"a", "C"}, "X-MS-Org-SCL: -1\r\n folded\r\nB: 2\r\nx-ms-org-y : 2\r\nX-Ms-Org-Z\r\n\t: 3\r\n\r\nA: body\r\nX-MS-Org-A: body\r\n"},
		{[]string{"*"}, "\r\nA: body\r\nX-MS-Org-A: body\r\n"},
		{[]string{"X-MS", "X-MS-Org-SC", "folded", "body"}, in},
		{nil, in},
	} {
		if got := string(Without([]byte(in), FindFields([]byte(in), c.names...))); got != c.want {
			t.Errorf("%q: got %q", c.names, got)
		}
	}
	same := []byte(in)
	if out := Without(same, FindFields(same, "None")); &out[0] != &same[0] {
		t.Error("copied though nothing was left out")
	}
}

func TestSpansAreJoined(t *testing.T) {
	for in, want := range map[string][]Span{
		"X: 1\r\nX: 2\r\n 3\r\nA: 4\r\nX: 5\r\n\r\nX: 6": {{0, 16}, {22, 28}},
		"X": nil, "X:": {{0, 2}}, "X \t\v\x00:\r\n": {{0, 8}}, "X Y: 1\r\n": nil, "XY: 1\r\n": nil, " X: 1\r\n": nil, "": nil,
	} {
		if got := FindFields([]byte(in), "x"); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func FuzzFindFields(f *testing.F) {
	f.Add([]byte("A: 1\r\nX-A: 2\r\n\t3\r\n\r\nbody"), "X-*")
	f.Add([]byte("A: 1\n b\nA : 2\nA\n :3"), "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if strings.Trim(name, "*") == "" || strings.Contains(name, ":") {
			return // no field has such a name
		}
		before := bytes.Clone(data)
		spans := FindFields(data, name)
		out := Without(data, spans)
		if !bytes.Equal(before, data) || len(out) != len(data)-Length(spans) {
			t.Fatal("the input was changed")
		}
		if s := ScanHeader(data, ""); !bytes.HasSuffix(out, data[s.Bytes:]) {
			t.Fatal("the body was changed")
		}
		if left := FindFields(out, name); len(left) > 0 || len(Values(out, name)) > 0 {
			t.Fatalf("%q is still there", out)
		}
	})
}

func BenchmarkFindFields(b *testing.B) {
	h := []byte(typicalHeader())
	b.ReportAllocs()
	for b.Loop() {
		FindFields(h, "X-MS-Exchange-Organization-*", "X-MS-Journal-Report")
	}
}
