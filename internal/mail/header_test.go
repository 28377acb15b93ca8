package mail

import (
	"bufio"
	"bytes"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScanHeader(t *testing.T) {
	h := "Received: from a\r\n\tby mx.us.gate.example id 1\r\n" +
		"Received: from b by other.example\r\n" +
		"subject : =?utf-8?B?w5xiZXI=?=\r\n =?iso-8859-1?q?_Gr=FC=DFe?= plain\r\n" +
		"FROM: \"A\"\r\n <a@b.example>\r\n" +
		"From: second@b.example\r\n" +
		"Date: Mon, 5 Jan 2026 10:11:10 +0000\r\n" +
		"Message-Id:\r\n <1.2@b.example>\r\n" +
		"no colon here\r\n" +
		"\r\nSubject: in the body\r\n"
	got := ScanHeader([]byte(h), "X-")
	want := Summary{
		MessageID: "<1.2@b.example>", Subject: "Über Grüße plain",
		Date: "Mon, 5 Jan 2026 10:11:10 +0000", Received: 2, Fields: 8,
		Bytes: strings.Index(h, "Subject: in"),
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestScanHeaderOddities(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Summary
	}{
		{"nothing", "", Summary{}},
		{"no header", "\r\nbody", Summary{Bytes: 2}},
		{"bare line feeds", "Subject: a\n\nbody", Summary{Subject: "a", Fields: 1, Bytes: 12}},
		{"no end", "Subject: a", Summary{Subject: "a", Fields: 1, Bytes: 10}},
		{"folded first line", " a: b\r\n\r\n", Summary{Fields: 1, Bytes: 9}},
		{"empty values", "Subject:\r\nMessage-ID:\r\n\r\n", Summary{Fields: 2, Bytes: 25}},
		{"message id without brackets", "Message-ID: a b@c\r\n\r\n", Summary{MessageID: "<ab@c>", Fields: 1, Bytes: 21}},
		{"message id with comment", "Message-ID: <a@c> (x)\r\n\r\n", Summary{MessageID: "<a@c>", Fields: 1, Bytes: 25}},
		{"unknown charset", "Subject: =?x-none?q?abc?=\r\n\r\n", Summary{Subject: "abc", Fields: 1, Bytes: 29}},
		{"koi8", "Subject: =?koi8-r?B?8NLJ18XU?=\r\n\r\n", Summary{Subject: "Привет", Fields: 1, Bytes: 34}},
		{"broken word", "Subject: =?utf-8?q?a=ZZ?=\r\n\r\n", Summary{Subject: "=?utf-8?q?a=ZZ?=", Fields: 1, Bytes: 29}},
		{"hidden line end", "Subject: =?utf-8?q?a=0D=0AX:_y=00?=\r\n\r\n", Summary{Subject: "a  X: y", Fields: 1, Bytes: 39}},
		{"eight bit", "Subject: \xfc\r\n\r\n", Summary{Subject: "\uFFFD", Fields: 1, Bytes: 14}},
		{"bare CR is no line end", "Subject: a\rb\r\n\r\n", Summary{Subject: "a b", Fields: 1, Bytes: 16}},
		{"colon in the second line only", "Subject\r\n : x\r\n\r\n", Summary{Fields: 1, Bytes: 17}},
	} {
		if got := ScanHeader([]byte(c.in), ""); got != c.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestScanHeaderWatches(t *testing.T) {
	for in, want := range map[string]bool{
		"X-MS-Has-Attach: yes\r\n\r\n": true, "A: b\r\nx-ms-a\r\n : 1\r\n\r\n": true, "A: b\r\nX-Ms-\r\n": true, "X-MS-": true,
		"X-MS\r\n\r\n": false, "A: b\r\n X-MS-A: 1\r\n\r\n": false, "A: X-MS-A: 1\r\n\r\nX-MS-A: 1\r\n": false, "": false, "AX-MS-A: 1\r\n": false,
	} {
		if ScanHeader([]byte(in), "X-MS-").Watched != want {
			t.Errorf("%q: watched %v", in, !want)
		}
	}
}

func TestSubjectIsCutAtARune(t *testing.T) {
	s := ScanHeader([]byte("Subject: "+strings.Repeat("ü", 400)+"\r\n\r\n"), "")
	if len(s.Subject) != 500 || !utf8.ValidString(s.Subject) {
		t.Errorf("%d bytes", len(s.Subject))
	}
	s = ScanHeader([]byte("Subject: "+strings.Repeat("a€", 400)+"\r\n\r\n"), "")
	if len(s.Subject) != 500 || !utf8.ValidString(s.Subject) {
		t.Errorf("%d bytes", len(s.Subject))
	}
}

func TestValues(t *testing.T) {
	h := []byte("X-OriginatorOrg: a.example\r\nSubject: x\r\nx-originatororg :\r\n\tb.example\r\n\r\nX-OriginatorOrg: body\r\n")
	if got := Values(h, "X-OriginatorOrg"); !reflect.DeepEqual(got, []string{"a.example", "b.example"}) {
		t.Errorf("%q", got)
	}
	if got := Values(h, "X-None"); got != nil {
		t.Errorf("%q", got)
	}
}

func TestHasHeaderEnd(t *testing.T) {
	for in, want := range map[string]bool{
		"": false, "\r\n": true, "\n": true, "a: b\r\n": false, "a: b\r\n\r": false, "a: b\r\n\r\n": true, "a: b\n\n": true, "a: b\r\n \r\n": false,
	} {
		if got := HasHeaderEnd([]byte(in)); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// TestCorpora reads every message of the MIME suites and compares the count
// of fields with the standard library wherever that can read the section.
func TestCorpora(t *testing.T) {
	files, compared := 0, 0
	err := filepath.WalkDir(dataSet(t, "mime"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		s := ScanHeader(data, "x")
		if !utf8.ValidString(s.Subject+s.Date+s.MessageID) || len(s.Subject) > maxText || s.Bytes > len(data) {
			t.Errorf("%s: %+v", path, s)
		}
		if compareWithStandard(t, path, data, s) {
			compared++
		}
		if kept := Without(data, FindFields(data, "*")); len(kept) < len(data)-s.Bytes || len(kept) > len(data)-s.Bytes+2 {
			t.Errorf("%s: removing all fields left %d of %d bytes", path, len(kept), len(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 1000 || compared < 500 {
		t.Errorf("%d files, %d compared", files, compared)
	}
}

func compareWithStandard(t *testing.T, path string, data []byte, s Summary) bool {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(data)))
	h, err := r.ReadMIMEHeader()
	if err != nil {
		return false
	}
	fields := 0
	for _, v := range h {
		fields += len(v)
	}
	if fields != s.Fields || len(h["Received"]) != s.Received {
		t.Errorf("%s: %d fields, %d Received; the standard library has %d and %d", path, s.Fields, s.Received, fields, len(h["Received"]))
	}
	return true
}

func FuzzScanHeader(f *testing.F) {
	f.Add([]byte(typicalHeader()), "gate")
	f.Add([]byte("Subject: =?utf-8?q?=?=\r\n =?big5?B?pHA=?=\r\n\r\n"), "")
	f.Add([]byte(" \n:\n\t\r\n"), "\n")
	f.Fuzz(func(t *testing.T, data []byte, watch string) {
		s := ScanHeader(data, watch)
		if s.Bytes > len(data) || s.Received > s.Fields || s.Watched && len(FindFields(data, watch+"*")) == 0 {
			t.Fatalf("%+v", s)
		}
		for _, text := range []string{s.Subject, s.Date, s.MessageID} {
			if !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\x00") {
				t.Fatalf("%q", text)
			}
		}
		if HasHeaderEnd(data) != HasHeaderEnd(data[:s.Bytes]) {
			t.Fatal("the section's end is not where it is found")
		}
	})
}

func FuzzValues(f *testing.F) {
	f.Add([]byte("X-OriginatorOrg: a\r\n b\r\n\r\n"), "x-originatororg")
	f.Add([]byte("a:\n:\n"), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		values := Values(data, name)
		if len(values) > ScanHeader(data, "").Fields {
			t.Fatal("more values than fields")
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n") {
				t.Fatalf("%q", v)
			}
		}
	})
}

func BenchmarkScanHeader(b *testing.B) {
	h := []byte(typicalHeader())
	b.ReportAllocs()
	b.SetBytes(int64(len(h)))
	for b.Loop() {
		if s := ScanHeader(h, "X-MS-"); s.Fields != 19 {
			b.Fatal(s.Fields)
		}
	}
}

// typicalHeader is a header section of some 2 KB with four hops.
func typicalHeader() string {
	hop := "Received: from mail.sender.example (mail.sender.example [192.0.2.17])\r\n" +
		"\tby mx.other.example (Postfix) with ESMTPS id 4TXyz0abcdz9rwQ\r\n" +
		"\tfor <someone@customer.example>; Mon, 5 Jan 2026 10:11:12 +0000 (UTC)\r\n"
	return strings.Repeat(hop, 4) +
		"Authentication-Results: mx.other.example; dkim=pass header.d=sender.example\r\n" +
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.example; s=s1;\r\n\th=from:to:subject; bh=" +
		strings.Repeat("A", 43) + "=;\r\n\tb=" + strings.Repeat("QUJD", 80) + "\r\n" +
		"From: \"Someone Else\" <someone.else@sender.example>\r\nTo: someone@customer.example\r\n" +
		"Subject: =?utf-8?q?Angebot_f=C3=BCr_Sie?= und mehr\r\nDate: Mon, 5 Jan 2026 10:11:10 +0000\r\n" +
		"Message-ID: <20260105101110.1234@sender.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=\"=_boundary\"\r\n" +
		"X-Mailer: something 1.0\r\nList-Unsubscribe: <https://sender.example/u/1234567890>\r\n" +
		"References: <1@sender.example> <2@sender.example>\r\n" +
		"In-Reply-To: <2@sender.example>\r\nX-Priority: 3\r\nReturn-Path: <b@sender.example>\r\n\r\n"
}
