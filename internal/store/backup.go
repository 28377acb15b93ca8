package store

import (
	"archive/tar"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	manifestName = "manifest.json"
	manifestForm = 1
	ownFolder    = "own"
	tableFolder  = "tables"
	// maxOwnFile is the largest file of the data directory itself
	// (configuration, operator's token) that a backup takes along.
	maxOwnFile = 1 << 20
)

// manifest is the first entry of a backup.
type manifest struct {
	Format   int              `json:"format"`
	Store    string           `json:"store"` // sqlite or postgres
	Time     time.Time        `json:"time"`
	Versions map[string]int64 `json:"versions"` // schema by set
	Tables   []string         `json:"tables,omitempty"`
}

// archive is a backup being written.
type archive struct {
	s    *Store
	tar  *tar.Writer
	self os.FileInfo // the backup itself, should it be in the data directory
	tmp  string      // for what a tar entry must know the length of beforehand
}

// Backup writes one file (a tar) from which Restore rebuilds the store, while
// it is in use: each SQLite file by VACUUM INTO (PostgreSQL: a COPY of every
// table in one snapshot), then the bodies that its rows name, and the small
// files of the data directory itself. No body is unlinked meanwhile.
//
// The road is copied first: what moves from it to the trace meanwhile is then
// in both, and not in neither.
func (s *Store) Backup(ctx context.Context, file string) (err error) {
	if err := s.reasons.note(ctx, "backup"); err != nil {
		return err
	}
	s.Bodies.hold()
	defer s.Bodies.release()
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return (&fault.Error{Kind: fault.Conflict, Op: "store.Backup", Err: err}).WithHint("Name a file that does not exist.")
	}
	if err != nil {
		return Fault("store.Backup", err)
	}
	err = errors.Join(s.backupTo(ctx, out), out.Sync(), out.Close(), syncDir(filepath.Dir(file)))
	if err != nil {
		os.Remove(file)
	}
	return Fault("store.Backup", err)
}

func (s *Store) backupTo(ctx context.Context, out *os.File) error {
	self, err := out.Stat()
	if err != nil {
		return err
	}
	tmp, done, err := copyFolder(filepath.Dir(out.Name()), s.c.Log)
	if err != nil {
		return err
	}
	defer done()
	return (&archive{s: s, tar: tar.NewWriter(out), self: self, tmp: tmp}).write(ctx)
}

func (a *archive) write(ctx context.Context) error {
	content := a.sqlite
	if a.s.Road.dialect == onPostgres {
		content = a.postgres
	}
	if err := content(ctx); err != nil {
		return err
	}
	if err := a.ownFiles(); err != nil {
		return err
	}
	return a.tar.Close()
}

func (a *archive) manifest(tables []string) error {
	m := manifest{Format: manifestForm, Store: a.s.Road.dialect.String(), Time: a.s.c.Now(), Versions: map[string]int64{}, Tables: tables}
	for _, db := range a.s.databases() {
		m.Versions[db.name] = db.version
	}
	return a.head(m)
}

// head writes the manifest.
func (a *archive) head(m manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(text)), ModTime: m.Time}); err != nil {
		return err
	}
	_, err = a.tar.Write(text)
	return err
}

// sqlite writes a compact copy of each file, and the bodies that the copy of
// the road names.
func (a *archive) sqlite(ctx context.Context) error {
	if err := a.manifest(nil); err != nil {
		return err
	}
	for _, db := range a.s.databases() {
		copied := filepath.Join(a.tmp, db.name+".db")
		if err := db.vacuumInto(ctx, copied); err != nil {
			return err
		}
		if err := a.file("db/"+db.name+".db", copied); err != nil {
			return err
		}
	}
	road, err := sql.Open("sqlite", sqliteName(filepath.Join(a.tmp, roadSet+".db"), nil))
	if err != nil {
		return err
	}
	defer road.Close()
	return a.bodies(ctx, road)
}

// vacuumInto copies the database as it is at one moment. The writer goes on;
// its WAL cannot begin anew before the copy is done.
func (db *DB) vacuumInto(ctx context.Context, file string) error {
	db.longReads.Add(1)
	defer db.longReads.Add(-1)
	source, err := sql.Open("sqlite", sqliteName(filepath.Join(db.store.c.Dir, "db", db.name+".db"), []string{"busy_timeout(10000)"}))
	if err != nil {
		return err
	}
	defer source.Close()
	_, err = source.ExecContext(ctx, "VACUUM INTO ?", file)
	return err
}

// bodies writes every file that the rows name.
func (a *archive) bodies(ctx context.Context, road querier) error {
	rows, err := road.QueryContext(ctx, string(allFiles))
	if err != nil {
		return err
	}
	refs, err := scanRefs(rows)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, err := a.s.Bodies.files.path(ref.Tenant, ref.ID)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(a.s.c.Dir, from)
		if err != nil {
			return err
		}
		if err := a.file(filepath.ToSlash(name), from); err != nil {
			return err
		}
	}
	return nil
}

// ownFiles writes the small files of the data directory itself, below own/.
func (a *archive) ownFiles() error {
	entries, err := os.ReadDir(a.s.c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxOwnFile || os.SameFile(info, a.self) {
			continue
		}
		if err := a.ownFile(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// ownFile writes one of them. They are not bodies, which are opened under a
// lock: somebody else may hold one on them.
func (a *archive) ownFile(name string) error {
	f, err := os.Open(filepath.Join(a.s.c.Dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	return a.entry(path.Join(ownFolder, name), f)
}

// file writes a body or a database.
func (a *archive) file(name, from string) error {
	f, err := openBody(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.entry(name, f)
}

// entry writes one entry of the archive.
func (a *archive) entry(name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if err := a.tar.WriteHeader(head); err != nil {
		return err
	}
	_, err = io.CopyN(a.tar, f, info.Size())
	return err
}
