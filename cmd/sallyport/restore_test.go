package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// What restore makes of the settings of a backup, given --store.
func TestSettleStore(t *testing.T) {
	const url = "postgres://sallyport@127.0.0.1:5432/mail?sslmode=disable"
	for name, c := range map[string]struct{ before, flag, store, after string }{
		"as it was":          {"# mine\nstore = 'sqlite'\n", "", "sqlite", "# mine\nstore = 'sqlite'\n"},
		"no such setting":    {"base_domain = 'x.test'\n", "", "sqlite", "base_domain = 'x.test'\n"},
		"the same":           {"store = \"" + url + "\" # db\n", url, url, "store = \"" + url + "\" # db\n"},
		"other":              {"# mine\nstore = 'sqlite'\n\n[api]\n", url, url, "# mine\nstore = \"" + url + "\"\n\n[api]\n"},
		"back":               {"store = \"" + url + "\"\n[api]\n", "sqlite", "sqlite", "store = \"sqlite\"\n[api]\n"},
		"quoted key":         {"\"store\"='sqlite'", url, url, "store = \"" + url + "\"\n"},
		"without setting":    {"base_domain = 'x.test'\n[api]\n", url, url, "store = \"" + url + "\"\nbase_domain = 'x.test'\n[api]\n"},
		"a table's own":      {"[api]\nstore = 'mine'\n", url, url, "store = \"" + url + "\"\n[api]\nstore = 'mine'\n"},
		"of a later version": {"store = 'sqlite'\nfuture = 1\n", url, url, "store = \"" + url + "\"\nfuture = 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), configName)
			if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := settleStore(path, c.flag)
			if err != nil || got != c.store {
				t.Errorf("%q, %v", got, err)
			}
			if text, err := os.ReadFile(path); string(text) != c.after {
				t.Errorf("%q, %v", text, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Error(info.Mode(), err)
			}
		})
	}
}

func TestSettleStoreRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no settings":      "store = \n",
		"within a text":    "note = \"\"\"\nstore = 'x'\n\"\"\"\nstore = 'sqlite'\n",
		"on several lines": "store = '''\nsqlite'''\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), configName)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := settleStore(path, "postgres://h/d"); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
				t.Error(err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != text {
				t.Errorf("%q, %v", after, err)
			}
		})
	}
	if got, err := settleStore(filepath.Join(t.TempDir(), configName), ""); err != nil || !strings.HasPrefix(got, "sqlite") {
		t.Error(got, err)
	}
}
