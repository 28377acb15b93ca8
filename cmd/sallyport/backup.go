package main

import (
	"os"

	"github.com/sallyport-mail/sallyport/internal/fault"
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
	return e.done("backup written to "+c.File+"\nIt holds mail, settings and the operator's token: keep it as safe as the gateway's folder.\n"+
		"It does not hold "+operatorFiles+": keep copies of those too.", map[string]any{"file": c.File, "bytes": size})
}

// operatorFiles are what a backup does not hold: keys and passwords.
const operatorFiles = "keeper/ (sallyport keeper backup) and identities/"
