package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

type initCmd struct {
	BaseDomain  string `required:"" help:"Domain that the gateway's own host names are below." placeholder:"D"`
	SMTP        string `name:"smtp" help:"Address for mail from the internet." default:"0.0.0.0:25" placeholder:"A"`
	Submission  string `help:"Address for users who submit mail, STARTTLS." default:"0.0.0.0:587" placeholder:"A"`
	Submissions string `help:"The same with TLS from the first byte, such as 0.0.0.0:465." placeholder:"A"`
	Store       string `help:"sqlite, or postgres://…" default:"sqlite"`
	Regions     string `help:"Regions, by comma." default:"${regions}"`
}

// Run makes the folder. It never overwrites: a folder that has anything in it
// is refused.
func (c *initCmd) Run(e *env) error {
	dir := e.flags.Data
	if err := emptyDir(dir); err != nil {
		return err
	}
	if _, err := mail.ParseDomain(strings.TrimSuffix(c.BaseDomain, ".")); err != nil {
		return usage(fmt.Sprintf("--base-domain %q is not a domain name", c.BaseDomain), "Give one that is yours, such as gw.example.net: our host names are below it.")
	}
	cfg := c.config(listenAPI(e.flags.API))
	if err := cfg.check("the settings given"); err != nil {
		return err
	}
	if err := writeFolder(dir, cfg); err != nil {
		return err
	}
	if e.flags.JSON {
		return e.printJSON(map[string]any{"data": dir, "base_domain": cfg.BaseDomain, "regions": cfg.Regions,
			"store": storeName(cfg.Store), "api": cfg.API.url(), "smtp": c.SMTP, "submission": c.Submission})
	}
	fmt.Fprintf(e.stdout, `made %s
  %-18s addresses, base domain, regions, store, listeners
  %-18s the operator's API token (keep it: it may do everything)
next: sallyport serve --data %s
`, dir, configName, tokenName, dir)
	return nil
}

// storeName hides the password that a postgres URL may carry.
func storeName(url string) string {
	if scheme, _, ok := strings.Cut(url, "://"); ok {
		return scheme
	}
	return url
}

// listenAPI is the address that --api names. To init it is where the API is to
// listen; the URL that SALLYPORT_API may hold is another gateway's.
func listenAPI(flag string) string {
	if flag == "" || strings.Contains(flag, "://") {
		return "127.0.0.1:8025"
	}
	return flag
}

func (c *initCmd) config(api string) config {
	cfg := config{
		BaseDomain: strings.ToLower(strings.TrimSuffix(c.BaseDomain, ".")),
		Store:      c.Store,
		API:        apiConfig{Address: api},
	}
	for _, r := range strings.Split(c.Regions, ",") {
		if r = strings.TrimSpace(r); r != "" {
			cfg.Regions = append(cfg.Regions, r)
		}
	}
	for _, l := range []listenerConfig{{Kind: "inbound", Address: c.SMTP}, {Kind: "submission", Address: c.Submission},
		{Kind: "submissions", Address: c.Submissions}} {
		if l.Address != "" {
			cfg.Listeners = append(cfg.Listeners, l)
		}
	}
	return cfg
}

// emptyDir refuses a path that is not an empty folder or nothing yet.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, "init", err)
	}
	if len(entries) > 0 {
		return fault.New(fault.Conflict, "", dir+" is not empty").
			WithHint("Name a folder that does not exist yet with --data DIR; nothing here is overwritten.")
	}
	return nil
}

// writeFolder writes settings and token. Keepers make their folders, and the
// first certificates, when they are started.
func writeFolder(dir string, cfg config) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "init", err)
	}
	raw, err := toml.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(dir, configName), raw, 0o600); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(dir, tokenName), []byte(newToken()+"\n"), 0o600); err != nil {
		return err
	}
	return nil
}

// newToken makes an API token of the form that the tenant room knows.
func newToken() string {
	var secret [32]byte
	rand.Read(secret[:])
	return "spt_" + ulid.Make().String() + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
}

// writeSynced writes a new file and syncs it.
func writeSynced(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
