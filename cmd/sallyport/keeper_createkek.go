package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// keeperCreateKEKCmd makes a KEK, once.
type keeperCreateKEKCmd struct {
	Standby bool `help:"The KEK of standbys, in the token or as the file that [kek_standby] names."`
}

// Run never replaces a key: all data keys would be lost with it.
func (c *keeperCreateKEKCmd) Run(e *env) error {
	_, cfg, err := e.keeperSettings()
	if err != nil {
		return err
	}
	kek, setting, of := cfg.KEK, "[kek]", "the KEK of "+cfg.Region
	lost := "without it nothing that this keeper holds opens"
	if c.Standby {
		if cfg.KEKStandby == nil {
			return fault.New(fault.Invalid, "", "there is no [kek_standby] in "+keeperConfigName).WithHint("Name driver, and file or token, there first.")
		}
		kek, setting, of = cfg.KEKStandby.ofStandbys(cfg.Region), "[kek_standby]", "the KEK of the standbys of "+cfg.Region
		lost = "without it standbys don't open, and connections get others"
	}
	if c.Standby && kek.Driver == "file" {
		if err := createStandbyFile(cfg.Region, kek); err != nil {
			return err
		}
		return e.done(of+" is "+kek.File+". Keep it and its passphrase apart from [kek] and from this folder's backups; "+lost+".\nnext: start the keeper anew",
			map[string]any{"region": cfg.Region, "file": kek.File})
	}
	if kek.Driver != "pkcs11" {
		return fault.New(fault.Invalid, "", setting+" in "+keeperConfigName+" is of the driver "+kek.Driver+", not of pkcs11").
			WithHint("Name module, token and pin_file there first.")
	}
	var modules pkcs11.Modules
	defer modules.Close()
	if err := modules.CreateKEK(e.ctx, cfg.Region, kek.token()); err != nil {
		return err
	}
	return e.done(of+" is in the token "+kek.Token+"; it cannot be taken out. Back the token up by its maker's means: "+lost+".",
		map[string]any{"region": cfg.Region, "token": kek.Token})
}

// createStandbyFile writes a KEK file. The passphrase is what is in its file, or
// the service manager's; where passphrase_file names none that is there, one is
// generated into it.
func createStandbyFile(region string, c kekConfig) error {
	if _, err := os.Lstat(c.File); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Conflict, "", c.File+" is there already, or cannot be looked at").WithHint("Name a file that does not exist in [kek_standby].")
	}
	var phrase seal.Secret
	_, err := os.Lstat(c.PassphraseFile)
	if c.PassphraseFile != "" && errors.Is(err, fs.ErrNotExist) {
		phrase, err = generatePassphrase(c.PassphraseFile)
	} else {
		phrase, err = passphrase(c.PassphraseFile, standbyCredential, "[kek_standby]")
	}
	if err != nil {
		return err
	}
	defer phrase.Wipe()
	file, err := seal.NewKEKFile(region, phrase, seal.DefaultCost())
	if err != nil {
		return err
	}
	if err := writeSynced(c.File, file, 0o600); err != nil {
		return fault.Wrap(fault.Invalid, "create-kek", err)
	}
	return syncFolder(filepath.Dir(c.File))
}
