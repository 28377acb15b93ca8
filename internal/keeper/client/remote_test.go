package client

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Remote and Files are the same two seams.
var (
	_ Signers     = (*Remote)(nil)
	_ Credentials = (*Remote)(nil)
)

func TestKeeperAway(t *testing.T) {
	r, err := NewRemote(RemoteConfig{Region: "us", Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ClientCertificate(t.Context(), "acme", "mailbox"); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), "keeper") ||
		!strings.HasPrefix(fault.Sentence(err), "the keeper of region us does not answer: ") || strings.Contains(fault.Sentence(err), "http") {
		t.Errorf("%v", err)
	}
	for name, c := range map[string]RemoteConfig{
		"nothing": {}, "both": {Region: "us", Socket: "s", Address: "a"}, "no TLS": {Region: "us", Address: "127.0.0.1:1"}, "no region": {Socket: "s"},
	} {
		if _, err := NewRemote(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStrangeAnswers(t *testing.T) {
	var into act.Signature
	for name, c := range map[string]struct {
		status int
		answer string
		kind   fault.Kind
	}{
		"HTML":           {200, "<html>", fault.Later},
		"too long":       {200, strings.Repeat(" ", maxAnswer+1), fault.Later},
		"no problem":     {500, "oops", fault.Later},
		"unknown kind":   {403, `{"type":"urn:sallyport:problem:fun","detail":"x"}`, fault.Later},
		"no detail":      {403, `{"type":"urn:sallyport:problem:denied"}`, fault.Later},
		"a redirect":     {302, "", fault.Later},
		"a true problem": {403, `{"type":"urn:sallyport:problem:denied","detail":"x","hint":"y"}`, fault.Denied},
	} {
		if err := decode("test", c.status, []byte(c.answer), &into); err == nil || fault.KindOf(err) != c.kind || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"signature":"AAAA"}`))
	f.Add(403, []byte(`{"type":"urn:sallyport:problem:denied","detail":"x"}`))
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		var into act.Signature
		if err := decode("fuzz", status, b, &into); err == nil && status != 200 {
			t.Errorf("status %d is no answer", status)
		}
	})
}

// FuzzHandshakeMessage: what is taken apart is exactly one structure, and put
// together again it is the same bytes.
func FuzzHandshakeMessage(f *testing.F) {
	f.Add([]byte(strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + strings.Repeat("h", 32)))
	f.Add(append(make([]byte, 64), 3, 0, 29, 1, 9))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		role, hash, ok := parseCertificateVerify(msg)
		if ok {
			again := strings.Repeat(" ", 64) + "TLS 1.3, " + role + " CertificateVerify\x00" + string(hash)
			if again != string(msg) || len(hash) != 32 && len(hash) != 48 {
				t.Errorf("took %q apart as %s %x", msg, role, hash)
			}
		}
		x, old := parseKeyExchange(msg)
		if old {
			again := append(append(bytes.Clone(x.ClientRandom), x.ServerRandom...), 3, byte(x.Curve>>8), byte(x.Curve), byte(len(x.Public)))
			if !bytes.Equal(append(again, x.Public...), msg) {
				t.Errorf("took %x apart as %+v", msg, x)
			}
		}
		if ok && old {
			t.Errorf("%q is two things", msg)
		}
	})
}
