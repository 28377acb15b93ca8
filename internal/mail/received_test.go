package mail

import (
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func sampleReceived() Received {
	return Received{
		Hello: "mail.sender.example", IP: netip.MustParseAddr("192.0.2.17"), By: "mx.us.gate.example", With: "ESMTPS",
		Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", ID: "01JGXW5Z6T0000000000000000",
		For: Address{"someone", "customer.example"}, Mark: "acme.us.gate.example",
		Time: time.Date(2026, 1, 5, 10, 11, 12, 0, time.UTC),
	}
}

func TestReceived(t *testing.T) {
	got := string(sampleReceived().Append([]byte("X: y\r\n")))
	const full = "X: y\r\n" +
		"Received: from mail.sender.example ([192.0.2.17]) by mx.us.gate.example\r\n" +
		"\twith ESMTPS id 01JGXW5Z6T0000000000000000\r\n" +
		"\tfor <someone@customer.example> tls TLS_AES_128_GCM_SHA256 (TLS1.3)\r\n" +
		"\t(acme.us.gate.example); Mon, 05 Jan 2026 10:11:12 +0000\r\n"
	if got != full {
		t.Errorf("got\n%s\nwant\n%s", got, full)
	}
	if s := ScanHeader([]byte(got), ""); s.Received != 1 || s.Fields != 2 {
		t.Errorf("%+v", s)
	}
}

func TestReceivedVariants(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Received)
		has    string
		hasNot string
	}{
		"no hello":     {func(r *Received) { r.Hello = "" }, "from unknown ", ""},
		"ipv6":         {func(r *Received) { r.IP = netip.MustParseAddr("2001:db8::1") }, "([IPv6:2001:db8::1])", ""},
		"mapped ipv4":  {func(r *Received) { r.IP = netip.MustParseAddr("::ffff:192.0.2.1") }, "([192.0.2.1])", ""},
		"literal":      {func(r *Received) { r.Hello = "[192.0.2.1]" }, "from [192.0.2.1] (", ""},
		"several":      {func(r *Received) { r.For = Address{} }, "", " for "},
		"clear":        {func(r *Received) { r.Cipher, r.Version = "", "" }, "", "tls"},
		"utf8 for":     {func(r *Received) { r.For.Local = "ü"; r.With = "UTF8SMTPS" }, "for <ü@customer.example>", ""},
		"no utf8 for":  {func(r *Received) { r.For.Local = "ü" }, "", " for "},
		"line end":     {func(r *Received) { r.Hello = "a\r\nX-Evil: 1" }, "from a??X-Evil:?1 (", "\nX-Evil"},
		"comment":      {func(r *Received) { r.Hello = "a) by trusted.example (b;" }, "from a??by?trusted.example??b? (", ""},
		"not ascii":    {func(r *Received) { r.Hello = "bücher" }, "from b?cher (", ""},
		"mark escapes": {func(r *Received) { r.Mark = "a)\r\nb" }, "(a???b)", ""},
	} {
		r := sampleReceived()
		c.change(&r)
		got := string(r.Append(nil))
		if !strings.Contains(got, c.has) || c.hasNot != "" && strings.Contains(got, c.hasNot) {
			t.Errorf("%s: %s", name, got)
		}
		checkReceived(t, got)
	}
}

// checkReceived parses a field as net/mail does and measures its lines.
func checkReceived(t *testing.T, field string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(field + "\r\n"))
	if err != nil || len(m.Header) != 1 || len(m.Header["Received"]) != 1 {
		t.Fatalf("%v: %q", err, field)
	}
	for line := range strings.SplitSeq(field, "\r\n") {
		if len(line) > 300 {
			t.Errorf("a line of %d: %q", len(line), line)
		}
	}
}

func TestProtocol(t *testing.T) {
	for _, c := range []struct {
		esmtp, utf8, tls, auth bool
		want                   string
	}{
		{false, false, true, false, "SMTP"}, {true, false, false, false, "ESMTP"}, {true, false, true, false, "ESMTPS"},
		{true, false, false, true, "ESMTPA"}, {true, false, true, true, "ESMTPSA"}, {true, true, false, false, "UTF8SMTP"},
		{true, true, true, false, "UTF8SMTPS"}, {true, true, false, true, "UTF8SMTPA"}, {true, true, true, true, "UTF8SMTPSA"},
	} {
		if got := Protocol(c.esmtp, c.utf8, c.tls, c.auth); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func FuzzReceived(f *testing.F) {
	f.Add("mail.example", "id", "mark")
	f.Add("a\r\n\r\nb", "(", "\\")
	f.Fuzz(func(t *testing.T, hello, id, mark string) {
		r := sampleReceived()
		r.Hello, r.ID, r.Mark = hello, id, mark
		s := ScanHeader(r.Append(nil), "")
		if s.Fields != 1 || s.Received != 1 {
			t.Fatalf("%q", r.Append(nil))
		}
	})
}

func BenchmarkReceived(b *testing.B) {
	r := sampleReceived()
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
}
