package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const maxManifest = 1 << 20

// Settle looks at the files of the data directory itself, which lie below own
// and have not got their names there yet. It may change them, and returns the
// address of the store to fill, as in Config.URL.
type Settle func(own string) (url string, err error)

// Restore fills an empty directory (and an empty PostgreSQL database) from a
// backup, whichever of the two databases that is of. What it unpacks has its
// names only when all of it is there and on disk, so that a restore that was
// cut short is never taken for a store. A settle that is not nil has the last
// word about which store is filled.
func Restore(ctx context.Context, file string, c Config, settle Settle) error {
	c = c.withDefaults()
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return Fault("store.Restore", err)
	}
	if err := mustBeEmpty(ctx, c); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return Fault("store.Restore", err)
	}
	defer f.Close()
	return restore(ctx, f, c, gatewaySets(), settle)
}

// restore is Restore into a directory that is empty, of a backup of those sets
// of tables.
func restore(ctx context.Context, from io.Reader, c Config, sets []string, settle Settle) error {
	tmp, err := os.MkdirTemp(c.Dir, ".restore-")
	if err != nil {
		return Fault("store.Restore", err)
	}
	defer os.RemoveAll(tmp)
	m, err := unpack(ctx, tar.NewReader(from), tmp)
	if err == nil && !slices.Equal(m.sets(), sets) {
		err = fault.New(fault.Conflict, "store.Restore", "the backup is of the other process: gateway and keeper have one each").
			WithHint("Name the backup of this one.")
	}
	if err == nil && settle != nil {
		c.URL, err = settled(ctx, c, settle, filepath.Join(tmp, ownFolder))
	}
	if err == nil {
		err = fill(ctx, c, m, tmp)
	}
	if err == nil {
		err = moveIn(tmp, c.Dir)
	}
	return Fault("store.Restore", err)
}

// settled asks settle, and whether the store that it names is empty.
func settled(ctx context.Context, c Config, settle Settle, own string) (string, error) {
	if err := os.MkdirAll(own, 0o750); err != nil {
		return "", err
	}
	url, err := settle(own)
	if err != nil || url == c.URL {
		return url, err
	}
	c.URL = url
	return url, mustHaveNoTables(ctx, c)
}

// fill brings what was unpacked into tmp to the database that it is for.
func fill(ctx context.Context, c Config, m manifest, tmp string) error {
	switch {
	case c.dialect() == onPostgres && m.Store == onSQLite.String():
		return sqliteIntoPostgres(ctx, c, m, tmp)
	case c.dialect() == onPostgres:
		return fillPostgres(ctx, c.URL, m, m.Tables, copiedTables(tmp))
	case m.Store == onPostgres.String():
		return postgresIntoSQLite(ctx, m, tmp)
	}
	return nil // the files are the databases
}

// mustBeEmpty refuses to write over anything; it makes the directory.
func mustBeEmpty(ctx context.Context, c Config) error {
	if c.Dir == "" {
		return fault.New(fault.Invalid, "store.Restore", "no data directory was named")
	}
	if err := os.MkdirAll(c.Dir, 0o750); err != nil {
		return Fault("store.Restore", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return Fault("store.Restore", err)
	}
	if len(entries) > 0 {
		return fault.New(fault.Conflict, "store.Restore", "the directory "+c.Dir+" is not empty").
			WithHint("Name an empty directory.")
	}
	return mustHaveNoTables(ctx, c)
}

// mustHaveNoTables refuses a PostgreSQL database that is in use.
func mustHaveNoTables(ctx context.Context, c Config) error {
	if c.dialect() != onPostgres {
		return nil
	}
	db, err := postgresPool(c.URL, map[string]string{})
	if err != nil {
		return err
	}
	defer db.Close()
	empty, err := emptyPostgres(ctx, db)
	if err == nil && !empty {
		return fault.New(fault.Conflict, "store.Restore", "the PostgreSQL database has tables already").
			WithHint("Name an empty database with --store postgres://…")
	}
	return Fault("store.Restore", err)
}

// unpack writes every entry below dir and syncs it.
func unpack(ctx context.Context, t *tar.Reader, dir string) (manifest, error) {
	m, err := readManifest(t)
	if err != nil {
		return m, err
	}
	for {
		head, err := t.Next()
		if err == io.EOF {
			return m, complete(m, dir)
		}
		if err != nil {
			return m, damagedBackup(err)
		}
		if err := ctx.Err(); err != nil {
			return m, err
		}
		if err := unpackFile(t, head, dir); err != nil {
			return m, err
		}
	}
}

func damagedBackup(err error) error {
	return (&fault.Error{Kind: fault.Invalid, Op: "store.Restore", Err: fmt.Errorf("the backup cannot be read: %w", err)}).
		WithHint("Use a file that sallyport backup has written, whole.")
}

// readManifest reads the first entry, and refuses what this program cannot
// restore.
func readManifest(t *tar.Reader) (manifest, error) {
	var m manifest
	head, err := t.Next()
	if err != nil {
		return m, damagedBackup(err)
	}
	if head.Name != manifestName {
		return m, damagedBackup(errors.New("it has no manifest"))
	}
	if err := json.NewDecoder(io.LimitReader(t, maxManifest)).Decode(&m); err != nil {
		return m, damagedBackup(err)
	}
	if m.Format != manifestForm || (m.Store != onSQLite.String() && m.Store != onPostgres.String()) {
		return m, fault.New(fault.Invalid, "store.Restore", fmt.Sprintf("the backup has format %d of a store on %q", m.Format, m.Store)).
			WithHint("Restore it with the version of sallyport that wrote it.")
	}
	return m, knownVersions(m)
}

// gatewaySets are the sets of tables of a gateway's store.
func gatewaySets() []string { return []string{roadSet, controlSet, traceSet} }

// sets are the sets of tables that a backup has: a gateway's, or a keeper's.
func (m manifest) sets() []string {
	if _, ok := m.Versions[keeperSet]; ok {
		return []string{keeperSet}
	}
	return gatewaySets()
}

func knownVersions(m manifest) error {
	for _, set := range m.sets() {
		newest, err := newestVersion(set)
		if err != nil {
			return err
		}
		if have := m.Versions[set]; have < 1 || have > newest {
			return fault.New(fault.Invalid, "store.Restore", fmt.Sprintf("the backup has schema %d of %s, this program knows 1 to %d", have, set, newest)).
				WithHint("Restore it with the version of sallyport that wrote it, or a newer one.")
		}
	}
	return nil
}

// complete checks that the backup held what its manifest promises.
func complete(m manifest, dir string) error {
	var want []string
	for _, table := range m.Tables {
		want = append(want, filepath.Join(tableFolder, table))
	}
	if m.Store == onSQLite.String() {
		for _, set := range m.sets() {
			want = append(want, filepath.Join("db", set+".db"))
		}
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return damagedBackup(err)
		}
	}
	return nil
}

// unpackFile writes one entry. Names that lead out of dir are not ours.
func unpackFile(t *tar.Reader, head *tar.Header, dir string) error {
	name := filepath.FromSlash(head.Name)
	if head.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
		return damagedBackup(fmt.Errorf("the entry %q is none of a backup", head.Name))
	}
	to := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(head.Mode)&0o750)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, t); err != nil {
		f.Close()
		return damagedBackup(err)
	}
	return errors.Join(os.Chtimes(to, head.ModTime, head.ModTime), f.Sync(), f.Close())
}

// moveIn syncs every directory that was unpacked, and gives the parts their
// names.
func moveIn(tmp, dir string) error {
	if err := syncTree(tmp); err != nil {
		return err
	}
	own, err := filepath.Glob(filepath.Join(tmp, ownFolder, "*"))
	if err != nil {
		return err
	}
	for _, part := range append(own, filepath.Join(tmp, "bodies"), filepath.Join(tmp, "db")) {
		err := os.Rename(part, filepath.Join(dir, filepath.Base(part)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(filepath.Clean(dir))))
}

func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}
