package main

import (
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

type backupCmd struct {
	File string `arg:"" help:"File to write; it must not exist."`
}

// Run asks the running gateway, which is the only one that may read its store.
func (c *backupCmd) Run(e *env) error {
	cl, err := e.client()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Conflict, "", "cannot write the backup: "+err.Error()).WithHint("Name a file that does not exist.")
	}
	err = cl.Stream(e.ctx, "POST", "/v1/backup", f)
	if err == nil {
		err = f.Sync()
	}
	size, _ := f.Seek(0, 1)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(c.File)
		return err
	}
	return e.done("backup written to "+c.File+"\nIt holds mail and hashes of passwords, no settings, keys or tokens: keep "+
		configName+", "+operatorFiles+" with it.", map[string]any{"file": c.File, "bytes": size})
}

// operatorFiles are what a backup of the store does not hold.
const operatorFiles = tokenName + ", tls/, identities/ and secrets/"

type restoreCmd struct {
	File  string `arg:"" type:"existingfile"`
	Store string `help:"Another store than the folder's settings name." placeholder:"URL"`
}

// Run fills the store of a folder that has settings but no store yet, or of a
// folder that is empty: then settings, token and certificates are to be copied
// beside it.
func (c *restoreCmd) Run(e *env) error {
	dir := e.flags.Data
	url := c.Store
	if url == "" {
		if cfg, err := loadConfig(dir); err == nil {
			url = cfg.Store
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "db")); err == nil {
		return fault.New(fault.Conflict, "", dir+" has a store already").WithHint("Name an empty folder with --data.")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "restore", err)
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := store.Restore(e.ctx, c.File, store.Config{Dir: dir, URL: url, Log: newLog(e.stderr, "warn")}); err != nil {
		return err
	}
	return e.done("restored into "+dir+"\nnext: copy "+configName+", "+operatorFiles+" into it, then sallyport serve --data "+dir,
		map[string]any{"restored": true, "data": dir})
}
