package main

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
)

const goodKeeper = `region = "us"
base_domain = "gw.test"
socket = "keeper.sock"
[[grant]]
uid = 1000
acts = ["all-gateway"]
[kek]
driver = "file"
file = "kek.json"
`

// TestKeeperSettings has each mistake named in one sentence.
func TestKeeperSettings(t *testing.T) {
	swap := func(from, to string) string {
		if !strings.Contains(goodKeeper, from) {
			t.Fatalf("%q is not in the settings", from)
		}
		return strings.Replace(goodKeeper, from, to, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"good":              {goodKeeper, ""},
		"unknown":           {goodKeeper + "passphrase = \"x\"\n", "there is no setting"},
		"no region":         {swap(`"us"`, `""`), "region"},
		"a path as region":  {swap(`"us"`, `"../us"`), "region"},
		"no base":           {swap(`"gw.test"`, `"-"`), "base_domain"},
		"nobody can ask":    {swap("socket = \"keeper.sock\"\n", ""), "neither socket nor [listen]"},
		"half a listener":   {goodKeeper + "[listen]\naddress = \"127.0.0.1:1\"\n", "[listen]"},
		"no grant":          {strings.Split(goodKeeper, "[[grant]]")[0] + "[kek]\ndriver=\"file\"\nfile=\"k\"\n", "[[grant]]"},
		"grant of two":      {swap("uid = 1000\n", "uid = 1000\ncertificate = \"gw\"\n"), "uid or of a certificate"},
		"unknown act":       {swap("all-gateway", "sign-anything"), `no act "sign-anything"`},
		"no acts":           {swap(`["all-gateway"]`, "[]"), "names no acts"},
		"unknown driver":    {swap(`driver = "file"`, `driver = "floppy"`), "floppy"},
		"a KEK of nothing":  {swap("file = \"kek.json\"\n", ""), "needs file"},
		"transit, half":     {swap(`driver = "file"`, `driver = "transit"`), "token_file"},
		"a token, half":     {swap(`driver = "file"`, `driver = "pkcs11"`), "module"},
		"a witness of both": {goodKeeper + "[[witness]]\nurl = \"https://w\"\nfile = \"x\"\n", "[[witness]]"},
		"a witness, no key": {goodKeeper + "[[witness]]\nurl = \"https://w\"\n", "[[witness]]"},
		"nobody's key":      {goodKeeper + "[[operator]]\nname = \"ann\"\nkey = \"x\"\n", "[[operator]] ann"},
		"another's key":     {goodKeeper + "[[operator]]\nname = \"ann\"\nkey = \"sallyport-operator bob MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\n", "[[operator]] ann"},
		"keys of nowhere":   {goodKeeper + "[keys]\ndriver = \"paper\"\n", "[keys]"},
		"DNS, no key":       {goodKeeper + "[acme]\ndirectory = \"https://ca\"\n[acme.dns]\nserver = \"ns\"\n", "[acme.dns] needs"},
		"DNS, no CA":        {goodKeeper + "[acme.dns]\nserver = \"ns\"\nkey_file = \"k\"\n", "[acme] needs directory"},
		"DNS":               {goodKeeper + "[acme]\ndirectory = \"https://ca\"\n[acme.dns]\nserver = \"ns\"\nkey_file = \"k\"\ncheck = [\"a\"]\n", ""},
		"standbys":          {goodKeeper + "[kek_standby]\ndriver = \"transit\"\naddress = \"https://b:8200\"\nkey = \"k\"\ntoken_file = \"t\"\n", ""},
		"standbys, half":    {goodKeeper + "[kek_standby]\ndriver = \"pkcs11\"\n", "module"},
		"nothing to go to":  {goodKeeper + "[[kek_standby_old]]\ndriver = \"file\"\nfile = \"x\"\n", "no [kek_standby]"},
		"negative":          {"pool = -1\n" + goodKeeper, "negative"},
	} {
		_, err := parseKeeperConfig([]byte(c.text), "keeper.toml")
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// What init writes is what the keeper reads, with every path below its folder
// and every act of a gateway granted.
func TestKeeperFolder(t *testing.T) {
	dir := t.TempDir() + "/us"
	if err := writeKeeperFolder(dir, newKeeperConfig("us", "gw.test", nil, []uint32{7})); err != nil {
		t.Fatal(err)
	}
	c, err := loadKeeperConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.Grants[0].grant()
	if err != nil || !g.Local || g.UID != 7 || len(g.Acts) != len(act.All()) {
		t.Errorf("%+v, %v", g, err)
	}
	if c.Socket != dir+"/keeper.sock" || c.KEK.File != dir+"/kek.json" || c.KEK.PassphraseFile != dir+"/kek.passphrase" || c.KEK.CA != "" {
		t.Errorf("%+v", c)
	}
	kek, err := openKEK("us", c.KEK, &pkcs11.Modules{})
	if err != nil || !kek.Describe().OnHost {
		t.Errorf("%v, %v", kek, err)
	}
	if _, err := openKEK("uk", c.KEK, &pkcs11.Modules{}); err == nil {
		t.Error("the KEK of another region was opened")
	}
	if err := writeKeeperFolder(dir, newKeeperConfig("us", "gw.test", nil, nil)); err == nil {
		t.Error("a folder was written over")
	}
}

func TestParseLogLine(t *testing.T) {
	_, msg, attrs, ok := parseLogLine([]byte(`{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"m","keeper":"us","n":3,"a":"b"}`))
	if !ok || msg != "m" || len(attrs) != 2 || attrs[0].String() != "a=b" || attrs[1].String() != "n=3" {
		t.Errorf("%q %v %v", msg, attrs, ok)
	}
	for _, line := range []string{"", "panic: x", `{"level":"WARN"}`, `{"level":"loud","msg":"m"}`, `[1]`} {
		if _, _, _, ok := parseLogLine([]byte(line)); ok {
			t.Errorf("%q is taken for a line of a log", line)
		}
	}
}
