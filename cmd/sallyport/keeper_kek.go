package main

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// openStandbyKEK opens one KEK of a region's standbys. It may be away: a token
// and a service are asked when they are needed, and so is a file.
func openStandbyKEK(region string, c kekConfig, modules *pkcs11.Modules) (seal.KEK, error) {
	if c.Driver == "file" {
		return seal.NewUsedKEKFile(region, c.File, func() (seal.Secret, error) { return passphrase(c.PassphraseFile, standbyCredential, "[kek_standby]") })
	}
	return openKEK(region, c.ofStandbys(region), modules)
}

// ofStandbys has its own label in a token: one key must not be both.
func (c kekConfig) ofStandbys(region string) kekConfig {
	if c.Label == "" {
		c.Label = "sallyport-kek-standby-" + region
	}
	return c
}

// openKEK opens one KEK of a region.
func openKEK(region string, c kekConfig, modules *pkcs11.Modules) (seal.KEK, error) {
	switch c.Driver {
	case "file":
		return openKEKFile(region, c)
	case "transit":
		return seal.NewTransit(seal.TransitConfig{
			Address: c.Address, Mount: c.Mount, Key: c.Key, Namespace: c.Namespace, TokenFile: c.TokenFile, CAFile: c.CA,
		})
	}
	return modules.OpenKEK(region, c.token())
}

func (c kekConfig) token() pkcs11.Config {
	return pkcs11.Config{Module: c.Module, Token: c.Token, PINFile: c.PINFile, KeyLabel: c.Label}
}

// openDriver is where new keys are made, and every driver by its name, for
// keys that were made by others. Where a token is set, keys are loaded from it
// also when new ones are made in software.
func openDriver(c keysConfig, modules *pkcs11.Modules) (keys.Driver, map[string]keys.Driver, error) {
	var driver keys.Driver = keys.Software{}
	all := map[string]keys.Driver{"software": driver}
	if c.Module == "" {
		return driver, all, nil
	}
	token, err := modules.OpenDriver(pkcs11.Config{Module: c.Module, Token: c.Token, PINFile: c.PINFile})
	if err != nil {
		return nil, nil, err
	}
	all["pkcs11"] = token
	if c.Driver == "pkcs11" {
		driver = token
	}
	return driver, all, nil
}

func openKEKFile(region string, c kekConfig) (seal.KEK, error) {
	file, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fault.Wrap(fault.Missing, "kek", err)
	}
	phrase, err := passphrase(c.PassphraseFile, passphraseCredential, "[kek]")
	if err != nil {
		return nil, err
	}
	defer phrase.Wipe()
	return seal.OpenKEKFile(region, file, phrase)
}

// Names under which the service manager hands passphrases over
// (systemd.exec(5), LoadCredential=).
const (
	passphraseCredential = "kek-passphrase"
	standbyCredential    = "kek-standby-passphrase"
)

// passphrase reads the passphrase: from the file named, or from the credential
// of the service manager. It is never in the environment or an argument, where
// others could read it.
func passphrase(path, credential, setting string) (seal.Secret, error) {
	if path == "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return seal.Secret{}, fault.New(fault.Missing, "", "there is no passphrase for the KEK").
				WithHint("Set passphrase_file in " + setting + ", or LoadCredential=" + credential + ":FILE in the unit.")
		}
		path = filepath.Join(dir, credential)
	}
	return readPassphrase(path)
}

func readPassphrase(path string) (seal.Secret, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return seal.Secret{}, fault.Wrap(fault.Missing, "passphrase", err)
	}
	return seal.NewSecret(bytes.TrimRight(raw, "\r\n")), nil
}
