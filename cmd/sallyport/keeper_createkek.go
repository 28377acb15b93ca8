package main

import (
	"fmt"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
)

// keeperCreateKEKCmd makes a KEK in a token, once.
type keeperCreateKEKCmd struct{}

// Run never replaces a key: all data keys would be lost with it.
func (c *keeperCreateKEKCmd) Run(e *env) error {
	dir, err := filepath.Abs(e.flags.Data)
	if err != nil {
		return fault.Wrap(fault.Invalid, "data", err)
	}
	cfg, err := loadKeeperConfig(dir)
	if err != nil {
		return err
	}
	if cfg.KEK.Driver != "pkcs11" {
		return fault.New(fault.Invalid, "", "[kek] in "+keeperConfigName+" is of the driver "+cfg.KEK.Driver+", not of pkcs11").
			WithHint("Name module, token and pin_file there first.")
	}
	var modules pkcs11.Modules
	defer modules.Close()
	if err := modules.CreateKEK(e.ctx, cfg.Region, cfg.KEK.token()); err != nil {
		return err
	}
	if e.flags.JSON {
		return e.printJSON(map[string]any{"region": cfg.Region, "token": cfg.KEK.Token})
	}
	_, err = fmt.Fprintf(e.stdout, "the KEK of %s is in the token %s; it cannot be taken out. Back the token up by its maker's means: without it nothing that this keeper holds opens.\n", cfg.Region, cfg.KEK.Token)
	return err
}
