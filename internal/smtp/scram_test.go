package smtp_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// scramClient connects to a rogue, within TLS where it has that.
func scramClient(t *testing.T, r *testpeer.Rogue, config *tls.Config) *smtp.Client {
	t.Helper()
	target := smtp.Target{Address: r.Addr, Hello: "client.test"}
	if config != nil {
		target.TLS, target.Config = smtp.TLSRequired, config
	}
	c, err := smtp.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// authSaid is what a client has said to AUTH so far.
func authSaid(r *testpeer.Rogue) (said []string) {
	for {
		select {
		case e := <-r.Events():
			if _, arg, ok := strings.Cut(e, " auth "); ok {
				said = append(said, arg)
			}
		default:
			return said
		}
	}
}

// swap replaces what stands in a message of the server.
func swap(old, with string) func(string) string {
	return func(message string) string { return strings.Replace(message, old, with, 1) }
}

func always(with string) func(string) string { return func(string) string { return with } }

func TestAuthSCRAM(t *testing.T) {
	long := strings.Repeat("x", 250) + "=,=,=,"
	for name, k := range map[string]struct {
		server         testpeer.SCRAM
		user, password string
		code           int    // of the refusal
		problem        string // ours
		unsaid         bool   // AUTH is not even begun
	}{
		"good":              {user: "u@b.test", password: "secret"},
		"name with a comma": {server: testpeer.SCRAM{User: "a,b=c"}, user: "a,b=c", password: "secret"},
		"long name":         {server: testpeer.SCRAM{User: long + long}, user: long + long, password: "secret"},
		"prepared":          {server: testpeer.SCRAM{Password: "IX"}, user: "u@b.test", password: "I\u00adX"}, // RFC 4013 3
		"wrong password":    {user: "u@b.test", password: "guessed", code: 535},
		"wrong, told":       {server: testpeer.SCRAM{Tells: true}, user: "u@b.test", password: "guessed", code: 535},
		"unknown user":      {user: "v@b.test", password: "secret", code: 535},
		"unprintable":       {user: "u@b.test", password: "a\x07b", problem: "RFC 4013", unsaid: true},
		"not offered":       {server: testpeer.SCRAM{Offers: "PLAIN LOGIN SCRAM-SHA-1"}, user: "u@b.test", password: "secret", problem: "does not offer", unsaid: true},
		"plus in clear":     {server: testpeer.SCRAM{Offers: "SCRAM-SHA-256-PLUS"}, user: "u@b.test", password: "secret", problem: "does not offer", unsaid: true},
		"bad signature":     {server: testpeer.SCRAM{Final: always("v=" + base64.StdEncoding.EncodeToString(make([]byte, 32)))}, user: "u@b.test", password: "secret", problem: "not proved"},
		"cut signature":     {server: testpeer.SCRAM{Final: always("v=")}, user: "u@b.test", password: "secret", problem: "not proved"},
		"no signature":      {server: testpeer.SCRAM{Final: always("")}, user: "u@b.test", password: "secret", problem: "not proved"},
		"junk":              {server: testpeer.SCRAM{Final: always("\x00")}, user: "u@b.test", password: "secret", problem: "not proved"},
		"welcomes anybody":  {server: testpeer.SCRAM{First: always("")}, user: "u@b.test", password: "secret", problem: "not proved"},
		"refuses and lets":  {server: testpeer.SCRAM{Tells: true, Lets: true}, user: "u@b.test", password: "guessed", problem: "not proved"},
		"foreign nonce":     {server: testpeer.SCRAM{First: swap("r=", "r=x")}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"our own nonce":     {server: testpeer.SCRAM{First: ownNonce}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"no salt":           {server: testpeer.SCRAM{First: swap("s="+base64.StdEncoding.EncodeToString([]byte("salt of the rogue")), "s=")}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"bad salt":          {server: testpeer.SCRAM{First: swap("s=", "s=!")}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"extension":         {server: testpeer.SCRAM{First: swap("r=", "m=x,r=")}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"too short":         {server: testpeer.SCRAM{First: always("r=x")}, user: "u@b.test", password: "secret", problem: "RFC 5802"},
		"a billion":         {server: testpeer.SCRAM{First: swap("i=4096", "i=1000000000")}, user: "u@b.test", password: "secret", problem: "iteration count"},
		"one too many":      {server: testpeer.SCRAM{First: swap("i=4096", "i=1000001")}, user: "u@b.test", password: "secret", problem: "iteration count"},
		"one too few":       {server: testpeer.SCRAM{First: swap("i=4096", "i=4095")}, user: "u@b.test", password: "secret", problem: "iteration count"},
		"beyond an integer": {server: testpeer.SCRAM{First: swap("i=4096", "i=18446744073709555712")}, user: "u@b.test", password: "secret", problem: "iteration count"},
		"below nothing":     {server: testpeer.SCRAM{First: swap("i=4096", "i=-4096")}, user: "u@b.test", password: "secret", problem: "iteration count"},
		"other iterations":  {server: testpeer.SCRAM{First: swap("i=4096", "i=5000")}, user: "u@b.test", password: "secret", code: 535},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := k.server
			if server.Offers == "" {
				server.Offers = "PLAIN SCRAM-SHA-256 LOGIN"
			}
			if server.User == "" {
				server.User = "u@b.test"
			}
			if server.Password == "" {
				server.Password = "secret"
			}
			r := testpeer.StartRogueSCRAM(t, server)
			c := scramClient(t, r, nil)
			err := c.AuthSCRAM(t.Context(), k.user, k.password)
			var d *smtp.DialError
			switch {
			case k.code == 0 && k.problem == "":
				if err != nil || c.Mechanism() != "SCRAM-SHA-256" || !c.Alive() {
					t.Errorf("%v by %q, alive %v", err, c.Mechanism(), c.Alive())
				}
			case !errors.As(err, &d) || d.Step != "auth" || d.Reply.Code != k.code || !strings.Contains(err.Error(), k.problem):
				t.Errorf("%v, want %d %q", err, k.code, k.problem)
			case !k.unsaid && k.problem != "" && c.Alive():
				t.Error("the connection to a server that is not to be trusted can be used")
			}
			said := authSaid(r)
			if k.unsaid != (len(said) == 0) || len(said) == 1 && !strings.HasPrefix(said[0], "SCRAM-SHA-256") || len(said) > 1 {
				t.Errorf("said AUTH %q", said)
			}
		})
	}
}

// ownNonce takes the server's part of the nonce away.
func ownNonce(first string) string {
	nonce, rest, _ := strings.Cut(first, ",")
	return nonce[:len("r=")+base64.StdEncoding.EncodedLen(24)] + "," + rest
}

func TestAuthSCRAMBound(t *testing.T) {
	ca := testpeer.NewCA(t, "test CA")
	cert := ca.Issue(t, nil, "mail.test")
	const plain, plus = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
	for name, k := range map[string]struct {
		version         uint16
		offers, binding string
		want            string // the mechanism
		code            int
	}{
		"exporter":            {tls.VersionTLS13, plain + " " + plus, "tls-exporter", plus, 0},
		"only plus":           {tls.VersionTLS13, plus, "tls-exporter", plus, 0},
		"certificate":         {tls.VersionTLS12, plain + " " + plus, "tls-server-end-point", plus, 0},
		"not offered":         {tls.VersionTLS13, plain, "", plain, 0},
		"offer taken away":    {tls.VersionTLS13, plain, "tls-exporter", plain, 535},
		"another binding":     {tls.VersionTLS13, plain + " " + plus, "tls-server-end-point", plus, 535},
		"offered, not heeded": {tls.VersionTLS13, plain + " " + plus, "", plus, 535},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testpeer.StartRogueSCRAM(t, testpeer.SCRAM{
				Offers: k.offers, User: "u", Password: "secret", Binding: k.binding,
				TLS: &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MaxVersion: k.version},
			})
			c := scramClient(t, r, &tls.Config{ServerName: "mail.test", RootCAs: ca.Pool()})
			err := c.AuthSCRAM(t.Context(), "u", "secret")
			var d *smtp.DialError
			if (err == nil) != (k.code == 0) || err != nil && (!errors.As(err, &d) || d.Reply.Code != k.code) {
				t.Errorf("%v", err)
			}
			if c.Mechanism() != k.want {
				t.Errorf("by %s", c.Mechanism())
			}
		})
	}
}

// Somebody between us and the server, whose certificate is not looked at, can
// hand everything on but the binding.
func TestAuthSCRAMRelayed(t *testing.T) {
	ca := testpeer.NewCA(t, "test CA")
	server, thief := ca.Issue(t, nil, "mail.test"), ca.Issue(t, nil, "mail.test")
	r := testpeer.StartRogueSCRAM(t, testpeer.SCRAM{
		Offers: "SCRAM-SHA-256-PLUS", User: "u", Password: "secret", Binding: "tls-server-end-point", BindingCert: server.TLS.Certificate[0],
		TLS: &tls.Config{Certificates: []tls.Certificate{thief.TLS}, MaxVersion: tls.VersionTLS12},
	})
	c := scramClient(t, r, &tls.Config{InsecureSkipVerify: true})
	var d *smtp.DialError
	if err := c.AuthSCRAM(t.Context(), "u", "secret"); !errors.As(err, &d) || d.Reply.Code != 535 || !strings.Contains(d.Reply.Text, "binding") {
		t.Errorf("%v", err)
	}
}
