package main

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// openKEK opens one KEK of a region.
func openKEK(region string, c kekConfig) (seal.KEK, error) {
	switch c.Driver {
	case "file":
		return openKEKFile(region, c)
	case "transit":
		return seal.NewTransit(seal.TransitConfig{
			Address: c.Address, Mount: c.Mount, Key: c.Key, Namespace: c.Namespace, TokenFile: c.TokenFile, CAFile: c.CA,
		})
	}
	return nil, withoutToken()
}

// openDriver is where new keys are made, and every driver by its name, for
// keys that were made by others.
func openDriver(c keysConfig) (keys.Driver, map[string]keys.Driver, error) {
	if c.Driver == "pkcs11" {
		return nil, nil, withoutToken()
	}
	return keys.Software{}, map[string]keys.Driver{"software": keys.Software{}}, nil
}

// withoutToken is the answer of a binary that has no PKCS#11.
func withoutToken() error {
	return fault.New(fault.Invalid, "", "this binary speaks no PKCS#11").
		WithHint("Use one that was built with it, or another driver.")
}

func openKEKFile(region string, c kekConfig) (seal.KEK, error) {
	file, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fault.Wrap(fault.Missing, "kek", err)
	}
	phrase, err := passphrase(c.PassphraseFile)
	if err != nil {
		return nil, err
	}
	defer phrase.Wipe()
	return seal.OpenKEKFile(region, file, phrase)
}

// passphraseCredential is the name under which the service manager hands it
// over (systemd.exec(5), LoadCredential=).
const passphraseCredential = "kek-passphrase"

// passphrase reads the passphrase: from the file named, or from the credential
// of the service manager. It is never in the environment or an argument, where
// others could read it.
func passphrase(path string) (seal.Secret, error) {
	if path == "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return seal.Secret{}, fault.New(fault.Missing, "", "there is no passphrase for the KEK").
				WithHint("Set passphrase_file in [kek], or LoadCredential=" + passphraseCredential + ":FILE in the unit.")
		}
		path = filepath.Join(dir, passphraseCredential)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return seal.Secret{}, fault.Wrap(fault.Missing, "passphrase", err)
	}
	return seal.NewSecret(bytes.TrimRight(raw, "\r\n")), nil
}
