package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

type keeperInitCmd struct {
	Region         string   `required:"" help:"Region that this keeper is of." placeholder:"R"`
	BaseDomain     string   `required:"" help:"Domain that the gateway's own host names are below." placeholder:"D"`
	Host           []string `help:"A host name of ours that this region's listeners show the certificate of; mx. and out.<region>.<base> without." placeholder:"NAME"`
	Socket         string   `help:"Unix socket; keeper.sock in the folder without." placeholder:"PATH"`
	UID            []uint32 `name:"uid" help:"User id of the gateway; the caller's own without." placeholder:"N"`
	Store          string   `help:"sqlite, or postgres://…" default:"sqlite"`
	PassphraseFile string   `help:"File with the passphrase of the KEK file; one is generated without." placeholder:"FILE"`
}

// Run makes the folder. It never overwrites.
func (c *keeperInitCmd) Run(e *env) error {
	dir, err := filepath.Abs(e.flags.Data)
	if err != nil {
		return fault.Wrap(fault.Invalid, "data", err)
	}
	if err := emptyDir(dir); err != nil {
		return err
	}
	cfg := newKeeperConfig(c.Region, strings.ToLower(strings.TrimSuffix(c.BaseDomain, ".")), c.Host, c.UID)
	cfg.Store = c.Store
	if c.Socket != "" {
		cfg.Socket = c.Socket
	}
	if c.PassphraseFile != "" {
		if cfg.KEK.PassphraseFile, err = filepath.Abs(c.PassphraseFile); err != nil {
			return fault.Wrap(fault.Invalid, "passphrase", err)
		}
	}
	if err := writeKeeperFolder(dir, cfg); err != nil {
		return err
	}
	if e.flags.JSON {
		return e.printJSON(map[string]any{"data": dir, "region": cfg.Region, "base_domain": cfg.BaseDomain, "hosts": cfg.Hosts, "socket": cfg.Socket})
	}
	_, err = fmt.Fprintf(e.stdout, `made %s
  %-18s region, host names, socket, who may ask, KEK
  %-18s the KEK in a file: for trying out; docs/operate.md says how to use a service or a token
next: sallyport keeper --data %s
`, dir, keeperConfigName, kekName, dir)
	return err
}

// triedPool is enough for trying out: each RSA key takes a second of the
// processor when a keeper begins.
const triedPool = 1

// newKeeperConfig is a keeper for trying out: a KEK in a file, and one gateway
// on this host.
func newKeeperConfig(region, base string, hosts []string, uids []uint32) keeperConfig {
	if len(hosts) == 0 {
		hosts = []string{"mx." + region + "." + base, "out." + region + "." + base}
	}
	if len(uids) == 0 {
		uids = []uint32{uint32(os.Getuid())}
	}
	c := keeperConfig{
		Region: region, BaseDomain: base, Hosts: hosts, Store: "sqlite", Socket: socketName,
		KEK: kekConfig{Driver: "file", File: kekName, PassphraseFile: passphraseName}, Pool: triedPool,
	}
	for _, uid := range uids {
		c.Grants = append(c.Grants, grantConfig{UID: &uid, Acts: []string{allGateway}})
	}
	return c
}

// writeKeeperFolder writes settings and KEK into a folder that need not be
// there. The settings come last: with them the folder is whole.
func writeKeeperFolder(dir string, c keeperConfig) error {
	if err := c.check(); err != nil {
		return fault.New(fault.Invalid, "", "the settings given: "+err.Error()).WithHint("docs/operate.md lists the settings.")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "keeper init", err)
	}
	phrase, err := newPassphrase(dir, c.KEK)
	if err != nil {
		return err
	}
	defer phrase.Wipe()
	file, err := seal.NewKEKFile(c.Region, phrase, seal.DefaultCost())
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(dir, kekName), file, 0o600); err != nil {
		return fault.Wrap(fault.Invalid, "keeper init", err)
	}
	raw, err := toml.Marshal(c)
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(dir, keeperConfigName), raw, 0o600); err != nil {
		return fault.Wrap(fault.Invalid, "keeper init", err)
	}
	return syncFolder(dir)
}

// newPassphrase reads the passphrase that was given, or generates one into the
// folder.
func newPassphrase(dir string, c kekConfig) (seal.Secret, error) {
	if c.PassphraseFile != passphraseName {
		return passphrase(c.PassphraseFile, passphraseCredential, "[kek]")
	}
	return generatePassphrase(filepath.Join(dir, passphraseName))
}

// generatePassphrase writes one that nobody can guess into a file.
func generatePassphrase(path string) (seal.Secret, error) {
	var b [24]byte
	rand.Read(b[:])
	text := []byte(base64.RawURLEncoding.EncodeToString(b[:]))
	err := writeSynced(path, slices.Concat(text, []byte("\n")), 0o600)
	return seal.NewSecret(bytes.Clone(text)), fault.Wrap(fault.Invalid, "passphrase", err)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.Wrap(fault.Internal, "sync", err)
	}
	err = d.Sync()
	if closed := d.Close(); err == nil {
		err = closed
	}
	return fault.Wrap(fault.Internal, "sync", err)
}
