package main

import (
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

type operatorCmd struct {
	New  operatorNew  `cmd:"" help:"Make a key for a person who signs orders; prints the line for the keeper's settings."`
	Show operatorShow `cmd:"" help:"Print that line again, from the key's file."`
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

// showPublic prints what may be known of a key, and nothing else of it.
func (e *env) showPublic(p operator.Public, file string) error {
	return e.done(fmt.Sprintf("%s\nThis line is the key of an [[operator]] in keeper.toml, with its name %q beside it. The key that signs is in %s; its id is %s.", p, p.Name, file, p.ID()),
		map[string]any{"name": p.Name, "id": p.ID(), "public": p.String(), "file": file})
}
