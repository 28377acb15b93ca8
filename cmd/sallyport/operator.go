package main

import (
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

type operatorCmd struct {
	New  operatorNew  `cmd:"" help:"Make a key for a person who signs orders; prints its lines for the keeper's settings."`
	Show operatorShow `cmd:"" help:"Print those lines again, from the key's file."`
}

type operatorNew struct {
	Name string `arg:"" help:"Name of the person, as the ledger is to show it."`
	Out  string `required:"" help:"File for the key, which must not exist. It is the person's own and stays with him." placeholder:"FILE"`
}

func (c *operatorNew) Run(e *env) error {
	k, err := operator.NewKey(c.Out, c.Name)
	if err != nil {
		return err
	}
	return e.showPublic(k.Public(), c.Out)
}

type operatorShow struct {
	File string `arg:"" help:"The key's file."`
}

func (c *operatorShow) Run(e *env) error {
	k, err := operator.ReadKey(c.File)
	if err != nil {
		return err
	}
	return e.showPublic(k.Public(), c.File)
}

// showPublic prints what may be known of a key, and nothing else of it: as a
// block of the keeper's settings, so that all of it can be pasted there.
func (e *env) showPublic(p operator.Public, file string) error {
	return e.done(fmt.Sprintf("[[operator]]\nname = %q\nkey = %q\n\n# These lines go into %s of the keepers that are to know %s.\n# The key that signs is in %s; its id is %s.",
		p.Name, p.String(), keeperConfigName, p.Name, file, p.ID()),
		map[string]any{"name": p.Name, "id": p.ID(), "public": p.String(), "file": file})
}
