package store

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	// verifyPage is how many bodies one read of Verify takes.
	verifyPage = 100
	// settling is how old a file must be to be missed by a row: a younger one
	// may be on its way into its transaction.
	settling = 5 * time.Minute
)

// Problem is one thing that Verify found wrong.
type Problem struct {
	Where string `json:"where"` // "road.item 01J…", "bodies/ab/01J…"
	What  string `json:"what"`
}

// verifier gathers problems.
type verifier struct {
	s     *Store
	found []Problem
}

// Verify checks every database's own integrity, every row that names a body,
// every body's length and checksum, and lists files that no row names. It may
// run while the store is in use.
func (s *Store) Verify(ctx context.Context) ([]Problem, error) {
	if err := s.reasons.note(ctx, "verify the store"); err != nil {
		return nil, err
	}
	v := &verifier{s: s}
	for _, step := range []func(context.Context) error{v.databases, v.references, v.bodies, v.orphans} {
		if err := step(ctx); err != nil {
			return v.found, Fault("store.Verify", err)
		}
	}
	return v.found, nil
}

func (v *verifier) add(where, format string, args ...any) {
	v.found = append(v.found, Problem{Where: where, What: fmt.Sprintf(format, args...)})
}

// databases asks SQLite whether its files are sound. PostgreSQL checks its
// pages as they are read.
func (v *verifier) databases(ctx context.Context) error {
	if v.s.Road.dialect == onPostgres {
		return nil
	}
	for _, db := range v.s.databases() {
		if err := v.integrity(ctx, db); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) integrity(ctx context.Context, db *DB) error {
	db.longReads.Add(1)
	defer db.longReads.Add(-1)
	lines, err := column(ctx, db.read, "PRAGMA integrity_check")
	if err != nil {
		return err
	}
	for _, line := range lines {
		if line != "ok" {
			v.add(db.name, "%s", line)
		}
	}
	broken, err := column(ctx, db.read, `SELECT DISTINCT "table" FROM pragma_foreign_key_check`)
	for _, table := range broken {
		v.add(db.name+"."+table, "a row refers to a row that is not there")
	}
	return err
}

// references checks every table of the road that has a column body beside a
// column tenant.
func (v *verifier) references(ctx context.Context) error {
	tables, err := column(ctx, v.s.Road.read, v.s.Road.dialect.bodyTables())
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := v.dangling(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

// bodyTables lists the tables whose rows name a body.
func (d dialect) bodyTables() string {
	if d == onPostgres {
		return `SELECT a.table_name FROM information_schema.columns a JOIN information_schema.columns b
			ON b.table_schema = a.table_schema AND b.table_name = a.table_name AND b.column_name = 'tenant'
			WHERE a.table_schema = current_schema() AND a.column_name = 'body' ORDER BY 1`
	}
	return `SELECT m.name FROM sqlite_master m WHERE m.type = 'table'
		AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'body')
		AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'tenant') ORDER BY 1`
}

// dangling lists rows that name a body that is not there. The table's name
// comes from the database itself.
func (v *verifier) dangling(ctx context.Context, table string) error {
	rows, err := v.s.Road.read.QueryContext(ctx, fmt.Sprintf(
		`SELECT tenant, body FROM %q m WHERE body <> '' AND NOT EXISTS
			(SELECT 1 FROM body b WHERE b.tenant = m.tenant AND b.id = m.body)`, table))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var tenant, id string
		if err := rows.Scan(&tenant, &id); err != nil {
			return err
		}
		v.add(roadSet+"."+table+" "+id, "its body is missing (tenant %s)", tenant)
	}
	return rows.Err()
}

// bodies reads every body there is, a page of rows at a time so that no reader
// holds the WAL for long.
func (v *verifier) bodies(ctx context.Context) error {
	last := BodyRef{}
	for {
		page, err := v.bodyPage(ctx, last)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, ref := range page {
			if err := v.body(ctx, ref); err != nil {
				return err
			}
		}
		last = page[len(page)-1]
	}
}

func (v *verifier) bodyPage(ctx context.Context, last BodyRef) ([]BodyRef, error) {
	rows, err := v.s.Road.query(ctx, string(pageBodies), last.Tenant, last.ID, verifyPage)
	if err != nil {
		return nil, err
	}
	return scanRefs(rows)
}

func scanRefs(rows *sql.Rows) ([]BodyRef, error) {
	defer rows.Close()
	var refs []BodyRef
	for rows.Next() {
		var ref BodyRef
		var sum, file int64
		if err := rows.Scan(&ref.Tenant, &ref.ID, &ref.Size, &sum, &file); err != nil {
			return nil, err
		}
		ref.Sum, ref.File = uint32(sum), file != 0
		refs = append(refs, ref)
	}
	return refs, rows.Err()
}

// body reads one body through its checksum. One that went away meanwhile,
// with its row, is none to complain of.
func (v *verifier) body(ctx context.Context, ref BodyRef) error {
	err := v.s.Bodies.check(ctx, ref)
	if err == nil {
		return nil
	}
	if fault.Is(err, fault.Missing) {
		if there, e := v.s.Bodies.known(ctx, ref.Tenant, ref.ID); e != nil || !there {
			return e
		}
	}
	if fault.Is(err, fault.Later) {
		return err
	}
	v.add(roadSet+".body "+ref.ID, "%s (tenant %s)", fault.Sentence(err), ref.Tenant)
	return nil
}

// check reads a body from the disk, whatever is in memory.
func (b *Bodies) check(ctx context.Context, ref BodyRef) error {
	if !ref.File {
		_, err := b.readRow(ctx, ref)
		return err
	}
	r, err := b.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// orphans lists files without a row.
func (v *verifier) orphans(ctx context.Context) error {
	b := v.s.Bodies
	return b.walk(func(path, tenant, id string, age time.Duration) error {
		if age < settling || (tenant == "" && age < sweepAge) {
			return nil
		}
		named, err := b.known(ctx, tenant, id)
		if err != nil || named {
			return err
		}
		short, err := filepath.Rel(filepath.Dir(b.files.root), path)
		v.add(short, "no row names this file")
		return err
	})
}

// walk visits every file of the tree; tenant is "" for those that have none
// yet.
func (b *Bodies) walk(visit func(path, tenant, id string, age time.Duration) error) error {
	return filepath.WalkDir(b.files.root, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && d.IsDir() && d.Name() == spareFolder {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(b.files.root, path)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(rel, string(filepath.Separator))
		tenant := ""
		if first != incoming {
			if tenant, err = tenantOf(first); err != nil {
				tenant = first
			}
		}
		return visit(path, tenant, d.Name(), b.now().Sub(info.ModTime()))
	})
}

// known is true when there is a row for a tenant's body.
func (b *Bodies) known(ctx context.Context, tenant, id string) (bool, error) {
	if tenant == "" {
		return false, nil
	}
	var n int
	err := b.road.For(tenant).QueryRow(ctx, countBody, id).Scan(&n)
	return n > 0, Fault("store.known", err)
}

// column reads a query's first column, as text.
func column(ctx context.Context, db querier, q string) ([]string, error) {
	rows, err := db.QueryContext(ctx, q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// querier is a pool, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
}
