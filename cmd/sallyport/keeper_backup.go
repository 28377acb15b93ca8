package main

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// keeperBackupCmd reads the keeper's database itself: SQLite and PostgreSQL
// both let another process read while the keeper works, and what is read has
// its keys sealed.
type keeperBackupCmd struct {
	File string `arg:"" help:"File to write; it must not exist."`
}

// Run writes the file whole or not at all.
func (c *keeperBackupCmd) Run(e *env) error {
	dir, cfg, err := e.keeperSettings()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(c.File); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Conflict, "", "cannot write the backup: "+c.File+" is there already, or cannot be looked at").
			WithHint("Name a file that does not exist.")
	}
	place := store.Config{Dir: dir, URL: cfg.Store, Log: newLog(e.stderr, "warn"), Now: time.Now}
	size, err := writeWhole(c.File, func(w io.Writer) error { return keeper.BackupBeside(e.ctx, place, w) })
	if err != nil {
		return err
	}
	apart := cfg.notInBackup(dir)
	text := "backup of the keeper of " + cfg.Region + " written to " + c.File +
		"\nKeys and passwords in it are sealed. It does not hold these, which are to be kept elsewhere, apart from it:\n  " +
		strings.Join(apart, "\n  ")
	return e.done(text, map[string]any{"file": c.File, "bytes": size, "region": cfg.Region, "not_in_it": apart})
}

// notInBackup says what else a keeper needs to start from its backup.
func (c keeperConfig) notInBackup(dir string) []string {
	var all []string
	for _, k := range append([]kekConfig{c.KEK}, c.KEKOld...) {
		all = append(all, "KEK: "+k.keepSafe(passphraseCredential))
	}
	for _, k := range c.standbyKEKs() { // without it connections get new standbys
		all = append(all, "KEK of standbys, apart from the others: "+k.keepSafe(standbyCredential))
	}
	if c.Keys.Driver == "pkcs11" {
		all = append(all, "the token "+c.Keys.Token+", in which the keys themselves are: back it up by its maker's means")
	}
	all = append(all, "settings: "+filepath.Join(dir, keeperConfigName)+", and the certificates that it names")
	return append(all, "root key: root.key of that folder, if it is not offline already; a new issuer needs it within 90 days")
}

// keepSafe says where a KEK is, without which the backup opens for nobody.
func (k kekConfig) keepSafe(credential string) string {
	switch k.Driver {
	case "transit":
		return "the key " + k.Key + " of the service at " + k.Address + ", and a token that may use it"
	case "pkcs11":
		return "the token " + k.Token + "; back it up by its maker's means"
	}
	return k.File + " and its passphrase, " + cmp.Or(k.PassphraseFile, "the service manager's credential "+credential)
}

type keeperRestoreCmd struct {
	File  string `arg:"" type:"existingfile"`
	Store string `help:"sqlite, or postgres://… (an empty database of the keeper's own)." default:"sqlite" placeholder:"URL"`
}

// Run fills the folder. Settings and KEK are not in a backup: they are put
// there by hand, so that one file is never enough.
func (c *keeperRestoreCmd) Run(e *env) error {
	dir, err := filepath.Abs(e.flags.Data)
	if err != nil {
		return fault.Wrap(fault.Invalid, "data", err)
	}
	if err := emptyDir(dir); err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fault.Wrap(fault.Invalid, "restore", err)
	}
	defer f.Close()
	place := store.Config{Dir: dir, URL: c.Store, Log: newLog(e.stderr, "warn"), Now: time.Now}
	if err := keeper.Restore(e.ctx, f, place); err != nil {
		return err
	}
	next := []string{"put " + keeperConfigName + " into " + dir + "; its store is to be the one that was filled: " + storeName(c.Store),
		"put back what [kek] in it names, or access to it", "sallyport keeper --data " + dir,
		"have two operators sign an order to thaw: the keeper starts frozen, and mail that needs it waits"}
	return e.done("restored into "+dir+" and "+storeName(c.Store)+"\nnext: "+strings.Join(next, "\n      "),
		map[string]any{"restored": true, "data": dir, "store": storeName(c.Store), "next": next})
}
