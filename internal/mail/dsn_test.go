package mail

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const sampleOriginal = "Received: from laptop ([192.0.2.9]) by mx.us.gate.example with ESMTPSA\r\n" +
	"From: Ann <ann@acme.example>\r\nTo: bob@far.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from here\r\n" +
	"Message-ID: <1@acme.example>\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\n\r\n"

func sampleDSN(kind string, recipients ...DSNRecipient) DSN {
	at := time.Date(2026, 1, 5, 10, 0, 1, 0, time.UTC)
	return DSN{
		Kind: kind, Reporting: "mx.us.gate.example", From: "Mail Delivery System <postmaster@mx.us.gate.example>",
		To: Address{"ann", "acme.example"}, MessageID: "<dsn1@mx.us.gate.example>", EnvID: "QQ314159",
		Arrived: at, Now: at.Add(time.Hour), Recipients: recipients,
		Original: []byte(sampleOriginal), Boundary: "01JGXW5Z6T",
	}
}

func failedRecipient() DSNRecipient {
	return DSNRecipient{
		Address: Address{"bob", "far.example"}, ORcpt: "rfc822;Bob@far.example", Remote: "mx1.far.example",
		Reply:   Reply{Code: 550, Enhanced: "5.1.1", Text: "<bob@far.example>: Recipient address rejected:\nUser unknown in virtual mailbox table"},
		LastTry: time.Date(2026, 1, 5, 10, 59, 0, 0, time.UTC),
	}
}

func dsnSamples() map[string]DSN {
	failed := sampleDSN("failed", failedRecipient(), DSNRecipient{
		Address: Address{"carol", "gone.example"}, Reply: Reply{Text: "dial tcp 192.0.2.55:25: connection refused"},
	})
	delayed := sampleDSN("delayed", DSNRecipient{
		Address: Address{"bob", "far.example"}, Remote: "mx1.far.example",
		Reply: Reply{Code: 451, Text: "try later"}, LastTry: failed.Now,
	})
	delayed.WillRetry = failed.Arrived.Add(5 * 24 * time.Hour)
	delivered := sampleDSN("delivered", DSNRecipient{
		Address: Address{"bob", "far.example"}, Remote: "mx1.far.example", Reply: Reply{Code: 250, Enhanced: "2.0.0", Text: "queued as 4711"},
	})
	full := sampleDSN("failed", failedRecipient())
	full.Full = true
	full.Original = []byte(sampleOriginal + "Grüße\r\n--01JGXW5Z6T--\r\n.\r\n")
	wide := DSNRecipient{Address: Address{"bøb", "xn--bcher-kva.example"}, ORcpt: "utf-8;bøb@bücher.example", Reply: Reply{Code: 550, Enhanced: "5.6.7", Text: "no ünicode here"}}
	ascii := sampleDSN("failed", wide)
	global := sampleDSN("failed", wide)
	global.To.Local = "änn"
	global.Original = []byte(strings.Replace(sampleOriginal, "Ann", "Änn", 1))
	return map[string]DSN{
		"failed": failed, "delayed": delayed, "delivered": delivered, "relayed": sampleDSN("relayed", delivered.Recipients...),
		"full": full, "utf8-to-ascii-sender": ascii, "utf8": global,
	}
}

// TestDSNGolden compares with testdata/dsn; UPDATE_GOLDEN=1 writes it anew.
func TestDSNGolden(t *testing.T) {
	for name, d := range dsnSamples() {
		t.Run(name, func(t *testing.T) {
			got := WriteDSN(d)
			path := filepath.Join("testdata", "dsn", name+".eml")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s:\n%s", path, got)
			}
			readDSN(t, got)
		})
	}
}

// readDSN takes a notification apart with the standard library and returns
// its three parts.
func readDSN(t *testing.T, raw []byte) (header mail.Header, parts []string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v\n%q", err, raw)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("%s %v %v", kind, params, err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(body))
	}
	if len(parts) != 3 {
		t.Fatalf("%d parts:\n%s", len(parts), raw)
	}
	if hasBareLineEnd(raw) {
		t.Fatal("bare line end")
	}
	return m.Header, parts
}

func TestDSNStatusDefaults(t *testing.T) {
	for _, c := range []struct {
		kind  string
		reply Reply
		want  string
	}{
		{"failed", Reply{}, "5.4.0"}, {"failed", Reply{Code: 550}, "5.0.0"}, {"failed", Reply{Code: 450}, "4.0.0"},
		{"failed", Reply{Code: 550, Enhanced: "junk"}, "5.0.0"}, {"delayed", Reply{}, "4.4.0"}, {"delayed", Reply{Code: 421}, "4.0.0"}, {"delivered", Reply{Code: 250}, "2.0.0"},
		{"relayed", Reply{Code: 250, Enhanced: "2.6.0"}, "2.6.0"},
	} {
		if got := (DSNRecipient{Reply: c.reply}).status(c.kind); got != c.want {
			t.Errorf("%s %+v: %s", c.kind, c.reply, got)
		}
	}
}

func TestDSNAdvice(t *testing.T) {
	for enhanced, want := range map[string]string{
		"5.1.1": "check the address", "5.1.8": "your own address", "5.2.2": "full", "5.3.4": "too large", "5.6.7": "international",
		"5.7.1": "its own rules", "4.4.1": "could not be reached", "5.4.7": "could not be reached", "5.5.0": "administrator",
	} {
		if got := (DSNRecipient{Reply: Reply{Code: 550, Enhanced: enhanced}}).advice(dsnFailed); !strings.Contains(got, want) {
			t.Errorf("%s: %s", enhanced, got)
		}
	}
}

func TestDSNDisplayForm(t *testing.T) {
	for in, want := range map[string]string{
		"Post <p@a.example>":               "Post <p@a.example>",
		"Pöst <p@a.example>":               "=?utf-8?q?P=C3=B6st?= <p@a.example>",
		"Post <p@a.example>\r\nBcc: x@y":   "Post <p@a.example>  Bcc: x@y",
		"\"Pöst, Amt\" <pö@a.example>\x00": "=?utf-8?q?P=C3=B6st,_Amt?= <p?@a.example>",
	} {
		if got := displayForm(in); got != want {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func FuzzDSN(f *testing.F) {
	f.Add("failed", "a@b", "text", "env", "rfc822;x", "host", []byte(sampleOriginal), true, "b")
	f.Add("delayed", "ü", "5.1.1 a\r\n\r\n--b--", "e\r\nX-Evil: 1", "utf-8;ü\r\n", "h\n", []byte("\n--b\n\xff\r"), false, "b\"")
	f.Fuzz(func(t *testing.T, kind, local, text, env, orcpt, host string, original []byte, full bool, boundary string) {
		d := sampleDSN(kind, DSNRecipient{Address: Address{local, "far.example"}, ORcpt: orcpt, Remote: host, Reply: Reply{Code: 550, Enhanced: text, Text: text}})
		d.To.Local, d.EnvID, d.Original, d.Full, d.Boundary, d.From, d.Reporting = local, env, original, full, boundary, text, host
		raw := WriteDSN(d)
		head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		if n := ScanHeader(append(head, "\r\n\r\n"...), "").Fields; n > 11 {
			t.Fatalf("%d fields in the header section:\n%q", n, raw)
		}
		if !d.NeedsUTF8() && hasEightBit(head) {
			t.Fatalf("header section is not ASCII: %q", head)
		}
		_, parts := readDSN(t, raw)
		if got := strings.Count(parts[1], "\nAction: "); got != 1 || strings.Count(parts[1], "\r\n\r\n") != 1 {
			t.Fatalf("status part: %q", parts[1])
		}
	})
}
