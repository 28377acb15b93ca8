package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

type restoreCmd struct {
	File  string `arg:"" type:"existingfile"`
	Store string `help:"Another store than the backup's settings name: sqlite, or postgres://… (an empty database)." placeholder:"URL"`
}

// Run fills an empty folder, which then can be served. Certificates that were
// not copied beside it are made anew, self-signed, by serve.
func (c *restoreCmd) Run(e *env) error {
	dir := e.flags.Data
	if err := emptyDir(dir); err != nil {
		return err
	}
	to := c.Store
	settle := func(own string) (url string, err error) {
		to, err = settleStore(filepath.Join(own, configName), c.Store)
		return to, err
	}
	err := store.Restore(e.ctx, c.File, store.Config{Dir: dir, URL: c.Store, Log: newLog(e.stderr, "warn"), Now: time.Now}, settle)
	if err != nil {
		return err
	}
	return e.done("restored into "+dir+" and "+storeName(to)+"\nnext: put keeper/ and identities/ into it if it had them (sallyport keeper restore), then sallyport serve --data "+dir,
		map[string]any{"restored": true, "data": dir, "store": storeName(to)})
}

// settleStore returns which store is to be filled, given the settings of a
// backup: the one that --store names, which the settings then name too, or
// else theirs.
func settleStore(path, flag string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(flag, "sqlite"), nil
	}
	if err != nil {
		return "", err
	}
	have, err := storeOf(raw, path)
	if err != nil || flag == "" || have == flag {
		return have, err
	}
	text := nameStore(string(raw), flag)
	if now, err := storeOf([]byte(text), path); err != nil || now != flag {
		return "", fault.New(fault.Invalid, "restore", configName+" of the backup cannot be made to name another store").
			WithHint("Restore without --store, or write the line store = … of " + configName + " as one plain line before the backup.")
	}
	return flag, rewriteSynced(path, []byte(text))
}

// storeOf reads one setting. The others may be those of another version.
func storeOf(raw []byte, path string) (string, error) {
	var c struct {
		Store string `toml:"store"`
	}
	if err := toml.Unmarshal(raw, &c); err != nil {
		return "", fault.New(fault.Invalid, "", path+": "+describeTOML(err)).WithHint("docs/operate.md lists the settings.")
	}
	return cmp.Or(c.Store, "sqlite"), nil
}

// nameStore changes the line of the setting store, and leaves every other as
// its author wrote it. Settings of no table come before the first table.
func nameStore(text, url string) string {
	line := "store = " + strconv.Quote(url) + "\n"
	var out strings.Builder
	for rest := text; rest != ""; {
		this, after, _ := strings.Cut(rest, "\n")
		word := strings.TrimSpace(this)
		if strings.HasPrefix(word, "[") {
			break
		}
		if key, _, ok := strings.Cut(word, "="); ok && strings.Trim(key, " \t\"'") == "store" {
			return out.String() + line + after
		}
		out.WriteString(this + "\n")
		rest = after
	}
	return line + text
}

// rewriteSynced replaces what a file holds, in a folder that nobody uses yet.
func rewriteSynced(path string, data []byte) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return writeSynced(path, data, 0o600)
}
