package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// Words that are wrong by themselves are wrong usage, and each says what to
// give.
func TestWrongWordsHaveAHint(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	dir := t.TempDir()
	for line, says := range map[string][]string{
		m365Line + " --admin-token-file /nowhere":                          {"cannot read the secret", "--admin-token-file FILE"},
		m365Line + " --admin-token-file " + empty:                          {"the secret is empty", "--admin-token-file FILE"},
		"connection setup t3 mailbox --admin-token-file /nowhere":          {"cannot read the secret", "--admin-token-file FILE"},
		"connection add t3 mailbox --kind m365 --host h":                   {"names the customer's Entra tenant", "--entra-tenant"},
		"connection add t3 m --kind m365 --host h --entra-tenant nonsense": {"--entra-tenant nonsense is not an id", "GUID"},
		m365Line + " --app-id nonsense":                                    {"--app-id nonsense", "GUID"},
		m365Line + " --graph http://127.0.0.1:1":                           {"--graph http://127.0.0.1:1 is not an address", "https://host"},
		m365Line + " --login 127.0.0.1":                                    {"--login 127.0.0.1 is not an address", "https://host"},
		"sim m365 --listen-smtp foo --data " + dir + "/sim":                {"--listen-smtp foo is not host:port", "127.0.0.1:0"},
		"init --data " + dir + "/gw --base-domain under_score..x":          {"--base-domain", "gw.example.net"},
		"order make open-campaign --region us --key k --out o --set rate=600 --set until=2026-03-01T18:00:00Z --subject x": {"until=2026-03-01T18:00:00Z is over", "--set until=2"},
		"order make open-campaign --region us --key k --out o --set rate=600 --set until=2999-03-01T18:00:00Z --subject x": {"more than a day away", "--set until=2"},
		"order make open-campaign --region us --key k --out o --set rate=600 --set until=soon --subject x":                 {"until=soon is not a time", "--set until=2"},
	} {
		code, out, bad := typed(t, "http://127.0.0.1:1", strings.Fields(line)...)
		if code != exitUsage || out != "" {
			t.Errorf("%s: %d %q %q", line, code, out, bad)
		}
		for _, want := range says {
			if !strings.Contains(bad, want) {
				t.Errorf("%s: %q lacks %q", line, bad, want)
			}
		}
	}
}

// A port that is taken is named with the flag that gives another, and a token
// that is not known with the flag of the command line.
func TestErrorsSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for _, flag := range []string{"--listen-smtp", "--listen-http"} {
		other := map[string]string{"--listen-smtp": "--listen-http", "--listen-http": "--listen-smtp"}[flag]
		code, _, bad := typed(t, "http://127.0.0.1:1", "sim", "m365", "--data", t.TempDir(), flag, taken.Addr().String(), other, "127.0.0.1:0")
		if code != exitFailed || !strings.Contains(bad, "cannot listen on "+taken.Addr().String()) || !strings.Contains(bad, "give another with "+flag+".") {
			t.Errorf("%s: %d %q", flag, code, bad)
		}
	}
	api := answers(t, http.StatusUnauthorized, map[string]any{"title": "Unauthorized", "type": "urn:x", "status": 401, "detail": "no such token", "hint": "Send the header Authorization: Bearer <token>."})
	code, _, bad := typed(t, api, "tenant", "list")
	if code != exitFailed || strings.Contains(bad, "header") || !strings.Contains(bad, "--token-file FILE") {
		t.Errorf("%d %q", code, bad)
	}
	if _, _, bad = typed(t, api, "tenant", "list", "--json"); !strings.Contains(problemOf(t, bad).Hint, "--token-file FILE") {
		t.Errorf("%q", bad)
	}
}

// A keeper that is told to stop while it starts says no error: its gateway has
// one of its own.
func TestKeeperToldToStopWhileItStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "us")
	must(t, writeKeeperFolder(dir, newKeeperConfig("us", "gw.test", nil, []uint32{uint32(os.Getuid())})))
	unlock, err := lockFolder(dir) // a keeper before it, whose end it waits for
	must(t, err)
	defer unlock()
	code, out, bad := typed(t, "", "--data", dir, "keeper", "--child") // its standard input is at its end
	if code != exitDone || out != "" || strings.Contains(bad, "sallyport:") || !strings.Contains(bad, "told to stop before it had started") {
		t.Errorf("%d %q %q", code, out, bad)
	}
}

// What operator new prints is a block of the keeper's settings, whole as it is.
func TestOperatorBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ann.key")
	for _, args := range [][]string{{"operator", "new", "ann", "--out", path}, {"operator", "show", path}} {
		printed := offline(t, "", args...).ok(t, nil).out
		var c keeperConfig
		d := toml.NewDecoder(strings.NewReader(printed))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil || len(c.Operators) != 1 || c.Operators[0].Name != "ann" {
			t.Fatalf("%s: %v %+v", printed, err, c.Operators)
		}
		if p, err := operator.ParsePublic(c.Operators[0].Key); err != nil || p.Name != "ann" || !strings.Contains(printed, p.ID()) {
			t.Errorf("%s: %v", printed, err)
		}
	}
}

// A connection that fails is something to look at, with what to do.
func TestDoctorNamesFailingConnections(t *testing.T) {
	yes, no, why := true, false, "connector: names e1"
	one := func(name, state string, ok *bool, reason *string) connection.Connection {
		return connection.Connection{Tenant: "acme", Name: name, State: state, Health: connection.Health{OK: ok, Reason: reason}}
	}
	fine := []connection.Connection{one("new", connection.Enabled, nil, nil), one("good", connection.Enabled, &yes, nil), one("off", connection.Disabled, &no, &why)}
	if ok, text, fix := failing(fine); !ok || fix != "" {
		t.Errorf("%q %q", text, fix)
	}
	bad := append(fine, one("mailbox", connection.Enabled, &no, &why))
	if ok, text, fix := failing(bad); ok || text != "failing: mailbox of acme: connector: names e1" || !strings.Contains(fix, "sallyport connection test TENANT NAME") {
		t.Errorf("%q %q", text, fix)
	}
	for range 6 {
		bad = append(bad, one("more", connection.Enabled, &no, nil))
	}
	if ok, text, _ := failing(bad); ok || !strings.HasSuffix(text, "more of acme: no reason is known and 2 more") {
		t.Errorf("%q", text)
	}
}

// The two times of an identity are written alike.
func TestIdentityTimes(t *testing.T) {
	begin, end, due := time.Unix(1e9, 0), time.Unix(2e9, 0), time.Unix(1.5e9, 0)
	text := identityView{NotBefore: &begin, NotAfter: &end, RenewAt: &due}.text()
	if !strings.Contains(text, "\nvalid    "+when(&begin)+" to "+when(&end)+"\nrenewal  due "+when(&due)+"\n") {
		t.Error(text)
	}
	if text := (identityView{}).text(); !strings.Contains(text, "\nrenewal  -\n") {
		t.Error(text)
	}
}
