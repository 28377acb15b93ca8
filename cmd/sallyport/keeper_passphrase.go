package main

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// keeperPassphraseCmd gives the KEK file another passphrase. The KEK stays, so
// a keeper may run meanwhile, and nothing is wrapped anew.
type keeperPassphraseCmd struct {
	Standby bool   `help:"Of the KEK of standbys, [kek_standby]."`
	OldFile string `help:"File with the old passphrase; that of keeper.toml without." placeholder:"FILE"`
	NewFile string `help:"File with the new passphrase, 12 bytes at least." placeholder:"FILE"`
	Stdin   bool   `help:"Read from standard input what no file is named for, a line each: the old one, unless the settings name its file, then the new one."`
}

// maxPhrase bounds a passphrase.
const maxPhrase = 4 << 10

// Run replaces the KEK file and then the file with the passphrase, each whole.
// After a kill between them it is run again, with the same passphrases.
func (c *keeperPassphraseCmd) Run(e *env) error {
	_, cfg, err := e.keeperSettings()
	if err != nil {
		return err
	}
	k, err := c.kek(cfg)
	if err != nil {
		return err
	}
	old, next, err := c.phrases(e.stdin, k)
	if err != nil {
		return err
	}
	defer old.Wipe()
	defer next.Wipe()
	if err := changePassphrase(cfg.Region, k.File, old, next); err != nil {
		return err
	}
	written, err := followPassphrase(k.PassphraseFile, old, next)
	if err != nil {
		return err
	}
	return k.tell(e, cfg.Region, written)
}

// phrasedKEK is a KEK file of the settings, and how its passphrase is called.
type phrasedKEK struct {
	kekConfig
	setting, credential string
}

// kek is the one that is asked for.
func (c *keeperPassphraseCmd) kek(cfg keeperConfig) (phrasedKEK, error) {
	k := phrasedKEK{cfg.KEK, "[kek]", passphraseCredential}
	if c.Standby {
		if cfg.KEKStandby == nil {
			return k, fault.New(fault.Missing, "", "there is no [kek_standby] in "+keeperConfigName).WithHint("Name one first: docs/operate.md, Custody.")
		}
		k = phrasedKEK{*cfg.KEKStandby, "[kek_standby]", standbyCredential}
	}
	if k.Driver != "file" {
		return k, fault.New(fault.Invalid, "", k.setting+" in "+keeperConfigName+" is of the driver "+k.Driver+", and has no passphrase").
			WithHint("Change it where that KEK is: at the service, or in the token.")
	}
	return k, nil
}

// phrases reads both.
func (c *keeperPassphraseCmd) phrases(stdin io.Reader, k phrasedKEK) (old, next seal.Secret, err error) {
	lines := bufio.NewReader(io.LimitReader(stdin, 2*maxPhrase))
	read := func(file, what string) (seal.Secret, error) {
		if file != "" {
			return readPassphrase(file)
		}
		if !c.Stdin {
			return seal.Secret{}, usage("no "+what+" passphrase given", "Give it with --"+what+"-file FILE, or --stdin.")
		}
		raw, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return seal.Secret{}, err
		}
		return seal.NewSecret(bytes.TrimRight(raw, "\r\n")), nil
	}
	oldFile := c.OldFile
	if oldFile == "" {
		oldFile = k.PassphraseFile
	}
	if oldFile == "" && !c.Stdin { // the service manager's, for a unit that does this
		old, err = passphrase("", k.credential, k.setting)
	} else {
		old, err = read(oldFile, "old")
	}
	if err == nil {
		next, err = read(c.NewFile, "new")
	}
	if err == nil && subtle.ConstantTimeCompare(old.Bytes(), next.Bytes()) == 1 {
		err = fault.New(fault.Invalid, "", "the new passphrase is the old one").WithHint("Choose another.")
	}
	return old, next, err
}

// changePassphrase replaces the KEK file. One that the new passphrase opens
// already is left: a run before this was killed after it.
func changePassphrase(region, path string, old, next seal.Secret) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return fault.Wrap(fault.Missing, "kek", err)
	}
	before, err := seal.OpenKEKFile(region, file, old)
	if fault.Is(err, fault.Denied) {
		if _, done := seal.OpenKEKFile(region, file, next); done == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	changed, err := seal.ChangePassphrase(file, old, next, seal.DefaultCost())
	if err != nil {
		return err
	}
	after, err := seal.OpenKEKFile(region, changed, next)
	if err != nil {
		return err
	}
	if after.ID() != before.ID() {
		return fault.New(fault.Internal, "kek", "the file with the new passphrase would hold another KEK")
	}
	return replaceKept(path, changed)
}

// followPassphrase brings the file that the keeper reads its passphrase from
// behind the KEK file, if it has the old one. It tells whether that has the new
// one now.
func followPassphrase(path string, old, next seal.Secret) (bool, error) {
	if path == "" {
		return false, nil
	}
	have, err := readPassphrase(path)
	if err != nil {
		return false, err
	}
	defer have.Wipe()
	switch {
	case bytes.Equal(have.Bytes(), next.Bytes()):
		return true, nil
	case !bytes.Equal(have.Bytes(), old.Bytes()):
		return false, nil
	}
	text := append(bytes.Clone(next.Bytes()), '\n')
	defer clear(text)
	return true, replaceKept(path, text)
}

// replaceKept writes a file anew that is there whole, as it was or as it is to
// be, whenever it is killed. Owner and mode stay: a keeper's user has to read
// what root has changed. A link stays one.
func replaceKept(path string, text []byte) error {
	cannot := func(err error) error {
		return fault.New(fault.Conflict, "", "cannot write "+path+": "+err.Error()).WithHint("Run this as the user who owns the file. It is as it was.")
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return cannot(err)
	}
	was, err := os.Stat(path)
	if err != nil {
		return cannot(err)
	}
	beside := path + ".new" // what a kill has left of it is written over
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return cannot(err)
	}
	if err := writeSynced(beside, text, 0o600); err != nil {
		return cannot(err)
	}
	if err = likeBefore(beside, was); err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		os.Remove(beside)
		return cannot(err)
	}
	return syncFolder(filepath.Dir(path))
}

// likeBefore gives a file the owner and the mode of another.
func likeBefore(path string, was os.FileInfo) error {
	if st, ok := was.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, was.Mode().Perm())
}

func (k phrasedKEK) tell(e *env, region string, written bool) error {
	lines := []string{"the KEK file " + k.File + " has another passphrase; the KEK is the same"}
	switch {
	case written:
		lines = append(lines, "the new one is in "+k.PassphraseFile)
	case k.PassphraseFile != "":
		lines = append(lines, "before the keeper needs it again, put the new one into "+k.PassphraseFile)
	default:
		lines = append(lines, "before the keeper needs it again, make it the credential "+k.credential+" of the service manager")
	}
	lines = append(lines, "Copies of the file from before open with the old one for ever: when somebody else knows it, make another KEK (order rotate-kek).")
	return e.done(strings.Join(lines, "\n"), map[string]any{"region": region, "kek_file": k.File, "passphrase_written": written})
}
