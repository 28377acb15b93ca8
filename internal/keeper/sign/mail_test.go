package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const body = "Hello  there\r\n\r\nend \r\n"

// letter is a small message's header; its body hash is that of body in relaxed
// form (RFC 6376 3.4.4).
func letter() Mail {
	return Mail{
		Fields: []Field{
			{"From", " Ann <ann@acme.example>"},
			{"To", " bob@other.example"},
			{"Subject", " a long\r\n\t subject  of  three lines\r\n  indeed "},
			{"Received", " second"},
			{"Received", " first"},
		},
		Absent:   []string{"From", "Reply-To"},
		BodyHash: sha256.Sum256([]byte("Hello there\r\n\r\nend\r\n")),
		Time:     time.Now().Truncate(time.Second),
	}
}

// message is the letter as it stands on the wire under a signature.
func message(fields ...Field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f.Name + ":" + f.Value + "\r\n")
	}
	b.WriteString("Received: first\r\nReceived: second\r\n")
	b.WriteString("Subject: a long\r\n\t subject  of  three lines\r\n  indeed \r\nTo: bob@other.example\r\nFrom: Ann <ann@acme.example>\r\n\r\n" + body)
	return b.String()
}

func record(t *testing.T, pub crypto.PublicKey) string {
	t.Helper()
	if e, ok := pub.(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(e)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

func mailKeys(t *testing.T) []crypto.Signer {
	t.Helper()
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.Signer{rsaKey(t), e}
}

// verifyDKIM lets a foreign verifier look.
func verifyDKIM(t *testing.T, msg, txt string) error {
	t.Helper()
	vs, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if name != "s1._domainkey.acme.example" {
				t.Errorf("asked for %s", name)
			}
			return []string{txt}, nil
		},
	})
	if err != nil || len(vs) != 1 {
		t.Fatalf("%d signatures, %v", len(vs), err)
	}
	return vs[0].Err
}

func TestDKIM(t *testing.T) {
	for _, s := range mailKeys(t) {
		m := letter()
		m.Expire = m.Time.Add(time.Hour)
		f, err := SignDKIM(Key{s, DKIM}, Domain{"acme.example", "s1"}, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyDKIM(t, message(f), record(t, s.Public())); err != nil {
			t.Errorf("%T: %v\n%s", s, err, f.Value)
		}
		for name, changed := range map[string]string{
			"subject":  strings.Replace(message(f), "three", "four", 1),
			"body":     strings.Replace(message(f), "Hello", "Hallo", 1),
			"received": strings.Replace(message(f), "first", "third", 1),
			"reply-to": strings.Replace(message(f), "To: ", "Reply-To: eve@evil.example\r\nTo: ", 1),
			"domain":   strings.Replace(message(f), "t=", "t=1", 1),
		} {
			if err := verifyDKIM(t, changed, record(t, s.Public())); err == nil {
				t.Errorf("%T: verified with another %s", s, name)
			}
		}
	}
}

func TestMailRefuses(t *testing.T) {
	k := Key{rsaKey(t), DKIM}
	d := Domain{"acme.example", "s1"}
	for name, change := range map[string]func(*Domain, *Mail){
		"no From":          func(_ *Domain, m *Mail) { m.Fields = m.Fields[1:] },
		"a second field":   func(_ *Domain, m *Mail) { m.Fields[1].Value = " a\r\nBcc: eve@evil.example" },
		"bare LF":          func(_ *Domain, m *Mail) { m.Fields[1].Value = " a\n b" },
		"name with colon":  func(_ *Domain, m *Mail) { m.Fields[1].Name = "To:X" },
		"tag in absent":    func(_ *Domain, m *Mail) { m.Absent = []string{"x; d=evil.example"} },
		"tag in domain":    func(d *Domain, _ *Mail) { d.Name = "acme.example; d=evil.example" },
		"tag in selector":  func(d *Domain, _ *Mail) { d.Selector = "s; x=1" },
		"no selector":      func(d *Domain, _ *Mail) { d.Selector = "" },
		"too many":         func(_ *Domain, m *Mail) { m.Fields = append(m.Fields, make([]Field, maxFields)...) },
		"too long":         func(_ *Domain, m *Mail) { m.Fields[1].Value = strings.Repeat("a", maxHeader+1) },
		"expires before":   func(_ *Domain, m *Mail) { m.Expire = m.Time },
		"without a moment": func(_ *Domain, m *Mail) { m.Time = time.Time{} },
	} {
		d, m := d, letter()
		change(&d, &m)
		if _, err := SignDKIM(k, d, m); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// canon is relaxed canonicalization written a second time, with expressions.
func canon(f Field) string {
	v := strings.ReplaceAll(f.Value, "\r\n", "")
	v = regexp.MustCompile(`[ \t]+`).ReplaceAllString(v, " ")
	return strings.ToLower(f.Name) + ":" + strings.Trim(v, " ")
}

// cut takes a signature's b= out of its field, and returns it.
func cut(t *testing.T, f Field) (Field, []byte) {
	t.Helper()
	i := strings.LastIndex(f.Value, "b=")
	sig, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(f.Value[i+2:]), ""))
	if err != nil {
		t.Fatal(err)
	}
	return Field{f.Name, f.Value[:i+2]}, sig
}

func mailVerifies(pub crypto.PublicKey, input string, sig []byte) bool {
	sum := sha256.Sum256([]byte(input))
	if e, ok := pub.(ed25519.PublicKey); ok {
		return ed25519.Verify(e, sum[:], sig)
	}
	return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
}

// TestARC seals three times and verifies every set from RFC 8617 5.1.1 alone.
func TestARC(t *testing.T) {
	for _, s := range mailKeys(t) {
		var sets []Set
		for n := range 3 {
			c := Chain{Validation: "pass", Results: "gate.example; spf=pass\r\n\tsmtp.mailfrom=acme.example", Previous: sets, Mail: letter()}
			if n == 0 {
				c.Validation = "none"
			}
			set, err := SealARC(Key{s, ARC}, Domain{"acme.example", "s1"}, c)
			if err != nil {
				t.Fatal(err)
			}
			sets = append(sets, set)
			seal, sig := cut(t, set.Seal)
			var input string
			for i, p := range sets {
				input += canon(p.Results) + "\r\n" + canon(p.Message) + "\r\n"
				if i < n {
					input += canon(p.Seal) + "\r\n"
				}
			}
			if !mailVerifies(s.Public(), input+canon(seal), sig) {
				t.Errorf("%T: seal %d does not verify", s, n+1)
			}
			own, sig := cut(t, set.Message)
			input = ""
			for _, f := range letter().Fields {
				input += canon(f) + "\r\n"
			}
			if !mailVerifies(s.Public(), input+canon(own), sig) {
				t.Errorf("%T: message signature %d does not verify", s, n+1)
			}
			// As a DKIM signature over the same fields it is worth nothing.
			if mailVerifies(s.Public(), input+canon(Field{"DKIM-Signature", own.Value}), sig) {
				t.Errorf("%T: an ARC signature counts as DKIM", s)
			}
		}
	}
}

func TestARCAfterFailureCoversOnlyItself(t *testing.T) {
	s := rsaKey(t)
	seal := func(validation string, previous []Set) Set {
		set, err := SealARC(Key{s, ARC}, Domain{"acme.example", "s1"}, Chain{Validation: validation, Results: "gate.example; none", Previous: previous, Mail: letter()})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first := seal("none", nil)
	set := seal("fail", []Set{first})
	own, sig := cut(t, set.Seal)
	if !mailVerifies(s.Public(), canon(set.Results)+"\r\n"+canon(set.Message)+"\r\n"+canon(own), sig) {
		t.Error("does not verify")
	}
}

func TestARCRefuses(t *testing.T) {
	k := Key{rsaKey(t), ARC}
	d := Domain{"acme.example", "s1"}
	good := Chain{Validation: "none", Results: "gate.example; none", Mail: letter()}
	first, err := SealARC(k, d, good)
	if err != nil {
		t.Fatal(err)
	}
	swapped := first
	swapped.Seal = first.Message
	for name, change := range map[string]func(*Chain){
		"pass without a set": func(c *Chain) { c.Validation = "pass" },
		"none with a set":    func(c *Chain) { c.Previous = []Set{first} },
		"another word":       func(c *Chain) { c.Validation = "maybe" },
		"no results":         func(c *Chain) { c.Results = "" },
		"results that break": func(c *Chain) { c.Results = "x\r\nBcc: eve" },
		"a set twice":        func(c *Chain) { c.Validation = "pass"; c.Previous = []Set{first, first} },
		"a set of pieces":    func(c *Chain) { c.Validation = "pass"; c.Previous = []Set{swapped} },
		"fifty":              func(c *Chain) { c.Validation = "pass"; c.Previous = make([]Set, maxInstance) },
		"a seal as a field":  func(c *Chain) { c.Mail.Fields = append(c.Mail.Fields, Field{"ARC-Seal", " x"}) },
	} {
		c := good
		c.Mail = letter()
		change(&c)
		if _, err := SealARC(k, d, c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMail(f *testing.F) {
	k := rsaKey(f)
	f.Add("From", " a@b.example", "gate.example; none", "s1")
	f.Add("From", " a\r\n\tb", "x", "s;1")
	f.Fuzz(func(t *testing.T, name, value, results, selector string) {
		m := letter()
		m.Fields = append(m.Fields, Field{name, value})
		set, err := SealARC(Key{k, ARC}, Domain{"acme.example", selector}, Chain{Validation: "none", Results: results, Mail: m})
		if err != nil {
			return
		}
		for _, f := range []Field{set.Results, set.Message, set.Seal} {
			if flat := unfold(f.Value); strings.ContainsAny(flat, "\r\n") {
				t.Errorf("a line breaks out of %q", f.Value)
			}
			if n := bytes.Count([]byte(f.Value), []byte(" d=")); f.Name != "ARC-Authentication-Results" && n != 1 {
				t.Errorf("%d domains in %q", n, f.Value)
			}
		}
	})
}
