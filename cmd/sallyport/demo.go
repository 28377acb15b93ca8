package main

import (
	"io"
	"os"

	"github.com/sallyport-mail/sallyport/internal/demo"
)

type demoCmd struct {
	Keep     bool `help:"Leave it running after the verdict."`
	Messages int  `help:"How many to send." default:"6000"`
}

// Run demonstrates with this very executable, and fails when mail was lost, an
// old identity is still let in, or a ledger does not verify.
func (c *demoCmd) Run(e *env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var progress io.Writer = e.stdout
	if e.flags.JSON {
		progress = e.stderr
	}
	done := func(v demo.Verdict) error {
		if e.flags.JSON {
			return e.printJSON(v)
		}
		return nil
	}
	v, err := demo.Run(e.ctx, demo.Options{Binary: self, Messages: c.Messages, Keep: c.Keep, Progress: progress, Done: done})
	if err != nil {
		return err
	}
	if v.Lost > 0 || !v.LedgerOK || !v.Replaced.Refused || !v.Compromised.Refused {
		return errReported
	}
	return nil
}
