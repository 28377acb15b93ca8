package smtp

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

func TestParseReply(t *testing.T) {
	cases := []struct {
		in   string
		want mail.Reply
	}{
		{"250 ok\r\n", mail.Reply{Code: 250, Text: "ok"}},
		{"250\r\n", mail.Reply{Code: 250}},
		{"250 \r\n", mail.Reply{Code: 250}},
		{"550 5.1.1 no such user\r\n", mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}},
		{"550 5.7.515\r\n", mail.Reply{Code: 550, Enhanced: "5.7.515"}},
		{"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no\nsuch\nuser"}},
		{"550-no\r\n550\r\n", mail.Reply{Code: 550, Text: "no\n"}},
		{"550 4.1.1 not the class\r\n", mail.Reply{Code: 550, Text: "4.1.1 not the class"}},
		{"550 5.1 short\r\n", mail.Reply{Code: 550, Text: "5.1 short"}},
		{"550 5.1.1234 long\r\n", mail.Reply{Code: 550, Text: "5.1.1234 long"}},
		{"550 5.1.1.1 an address\r\n", mail.Reply{Code: 550, Text: "5.1.1.1 an address"}},
		{"250 \x1b[31mred\x07\tgr\xfc\xfe\r\n", mail.Reply{Code: 250, Text: "?[31mred??gr?"}},
		{"250 grüße\r\n", mail.Reply{Code: 250, Text: "grüße"}},
	}
	for _, c := range cases {
		r, n, err := parseReply([]byte(c.in + "250 next\r\n"))
		if err != nil || n != len(c.in) || r != c.want {
			t.Errorf("%q: %+v, %d, %v", c.in, r, n, err)
		}
		for i := range c.in {
			if _, n, err := parseReply([]byte(c.in[:i])); n != 0 || err != nil {
				t.Errorf("%q: %d bytes of it: %d, %v", c.in, i, n, err)
			}
		}
	}
	for _, bad := range []string{
		"hello\r\n", "25 ok\r\n", "150 ok\r\n", "600 ok\r\n", "250_ok\r\n", "250 ok\n", "\r\n", "250-a\r\n251 b\r\n", "250-a\r\nb\r\n", "SSH-2.0", "2x",
	} {
		if r, n, err := parseReply([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, %d", bad, r, n)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("250 2.0.0 ok\r\n"))
	f.Add([]byte("550-5.1.1 no\r\n550 5.1.1 user\r\n"))
	f.Add([]byte("250-a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, n, err := parseReply(in)
		switch {
		case err != nil && n != 0, n > len(in), n > maxReplyBytes+2:
			t.Fatalf("%d of %d, %v", n, len(in), err)
		case n == 0:
			return
		case r.Code < 200 || r.Code > 599 || !utf8.ValidString(r.Text) || strings.ContainsAny(r.Text, "\r\x00"):
			t.Fatalf("%+v", r)
		case r.Enhanced != "" && int(r.Enhanced[0]-'0') != r.Code/100:
			t.Fatalf("%+v", r)
		}
		// What our server would make of it is read as the same reply.
		back, m, err := parseReply(appendReply(nil, r, true))
		if err != nil || m == 0 || back.Code != r.Code || r.Enhanced != "" && back.Enhanced != r.Enhanced {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

func TestAppendReply(t *testing.T) {
	cases := []struct {
		r        mail.Reply
		enhanced bool
		want     string
	}{
		{mail.Reply{Code: 250, Text: "ok"}, true, "250 2.0.0 ok\r\n"},
		{mail.Reply{Code: 250, Text: "ok"}, false, "250 ok\r\n"},
		{mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "a\nb"}, true, "550-5.1.1 a\r\n550 5.1.1 b\r\n"},
		{mail.Reply{Code: 354, Text: "go"}, true, "354 go\r\n"},
		{mail.Reply{Code: 451, Enhanced: "5.1.1", Text: "x"}, true, "451 4.0.0 x\r\n"},
		{mail.Reply{Code: 550, Text: "a\r\n250 forged\x00é"}, true, "550-5.0.0 a?\r\n550 5.0.0 250 forged???\r\n"},
		{mail.Reply{Code: 7, Text: "x"}, true, "451 4.0.0 x\r\n"},
	}
	for _, c := range cases {
		if got := string(appendReply(nil, c.r, c.enhanced)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.r, got, c.want)
		}
	}
	long := string(appendReply(nil, mail.Reply{Code: 550, Text: strings.Repeat("x", 2000)}, true))
	for _, line := range strings.SplitAfter(long, "\r\n") {
		if len(line) > 512 {
			t.Errorf("a line of %d", len(line))
		}
	}
	if strings.Count(long, "x") != 2000 {
		t.Error("text lost")
	}
}
