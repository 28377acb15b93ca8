package store_test

import (
	"database/sql"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A backup of one database restores into the other and back, whatever is in
// the tables.
func TestBackupChangesStore(t *testing.T) {
	sqlite := store.Config{Dir: t.TempDir()}
	s, err := store.Open(t.Context(), sqlite)
	must(t, err)
	bodies := []store.BodyRef{mustKeep(t, s, "acme", 1000), mustKeep(t, s, "acme", 0), mustKeep(t, s, "globex", 200_000)}
	must(t, s.Close())
	fillEveryTable(t, sqlite.Dir)
	s = testpeer.OpenStore(t, sqlite)
	must(t, s.Backup(t.Context(), filepath.Join(t.TempDir(), "first.tar"))) // its event is told once a minute
	takeLastEvent(t, sqlite.Dir)
	want := everyRow(t, sqlite.Dir)
	backup := filepath.Join(t.TempDir(), "sqlite.tar")
	must(t, s.Backup(t.Context(), backup))

	postgres := store.Config{Dir: filepath.Join(t.TempDir(), "p"), URL: testpeer.SharedPostgres(t).Database(t)}
	must(t, store.Restore(t.Context(), backup, postgres, nil))
	if _, err := os.Stat(filepath.Join(postgres.Dir, "db")); !os.IsNotExist(err) {
		t.Error("the SQLite files stayed:", err)
	}
	compare(t, want, openPostgres(t, postgres.URL))
	p := testpeer.OpenStore(t, postgres)
	for _, ref := range bodies {
		must(t, holds(t.Context(), p, ref))
	}
	backup = filepath.Join(t.TempDir(), "postgres.tar")
	must(t, p.Backup(t.Context(), backup))
	event := dump(t, openPostgres(t, postgres.URL), "outbox")
	next := fmt.Sprint(len(oddTexts())+2, "|")
	if !slices.ContainsFunc(event, func(row string) bool { return strings.HasPrefix(row, next) }) {
		t.Errorf("the backup's own event is not number %s as if none had been taken away", next)
	}

	again := store.Config{Dir: filepath.Join(t.TempDir(), "s")}
	must(t, store.Restore(t.Context(), backup, again, nil))
	want["outbox"] = event
	for _, set := range []string{"road", "control", "trace"} {
		db := openFile(t, again.Dir, set)
		there := map[string][]string{}
		for _, table := range tables(t, db) {
			there[table] = want[table]
		}
		compare(t, there, db)
		db.Close()
	}
	q := testpeer.OpenStore(t, again)
	for _, ref := range bodies {
		must(t, holds(t.Context(), q, ref))
	}
	must(t, q.Control.For("acme").Change(t.Context(), func(tx store.TenantTx) error { return tx.Audit(store.Event{Act: "x"}) }))
}

// fillEveryTable adds rows to each table of the SQLite files.
func fillEveryTable(t *testing.T, dir string) {
	t.Helper()
	for _, set := range []string{"road", "control", "trace"} {
		db := openFile(t, dir, set)
		// Parents first: the table that others refer to is tenant.
		names := tables(t, db)
		slices.SortStableFunc(names, func(a, b string) int { return strings.Compare(parent(a), parent(b)) })
		for _, table := range names {
			for i, text := range oddTexts() {
				insertRow(t, db, table, i, text)
			}
		}
		db.Close()
	}
}

// takeLastEvent takes the newest event away, as the ledger will.
func takeLastEvent(t *testing.T, dir string) {
	t.Helper()
	db := openFile(t, dir, "control")
	defer db.Close()
	if rows := dump(t, db, "outbox"); len(rows) != len(oddTexts())+2 {
		t.Fatalf("the outbox has %d lines", len(rows))
	}
	_, err := db.Exec(`DELETE FROM outbox WHERE seq = (SELECT MAX(seq) FROM outbox)`)
	must(t, err)
}

// everyRow is what PostgreSQL must have of all SQLite files.
func everyRow(t *testing.T, dir string) map[string][]string {
	t.Helper()
	want := map[string][]string{}
	for _, set := range []string{"road", "control", "trace"} {
		db := openFile(t, dir, set)
		for _, table := range tables(t, db) {
			want[table] = dump(t, db, table)
			if len(want[table]) <= len(oddTexts()) {
				t.Fatalf("table %s has %d rows", table, len(want[table]))
			}
		}
		db.Close()
	}
	return want
}

func parent(table string) string {
	if table == "tenant" {
		return ""
	}
	return table
}

func oddTexts() []string {
	return []string{
		"", `\N`, "NULL", `quo"te's \ and \\x41`, "tab\tnewline\r\nend", "grüße, 世界 \U0001F4EC \u2028 \uFFFD",
		"a NUL \x00 here", "no UTF-8 \xff\xfe\xc3(", "\x01\x02\x7f\x1b[0m", strings.Repeat("long 世 ", 20_000), "DROP TABLE item; --", "%s %d {}",
	}
}

// insertRow adds the i-th row of a table: texts with odd characters, the
// ends of each range, and NULL where it may be.
func insertRow(t *testing.T, db *sql.DB, table string, i int, text string) {
	t.Helper()
	rows, err := db.Query(`SELECT name, UPPER(type), "notnull", name IN (SELECT i.name FROM pragma_index_list($1) l JOIN pragma_index_info(l.name) i)
		FROM pragma_table_info($1)`, table)
	must(t, err)
	defer rows.Close()
	var names, places []string
	var values []any
	for rows.Next() {
		var name, kind string
		var notNull, indexed bool
		must(t, rows.Scan(&name, &kind, &notNull, &indexed))
		names, places = append(names, name), append(places, fmt.Sprintf("$%d", len(names)+1))
		values = append(values, columnValue(table, name, kind, notNull, i, cutIf(indexed, text)))
	}
	must(t, rows.Close())
	_, err = db.Exec(fmt.Sprintf(`INSERT INTO %s (%s) VALUES (%s)`, table, strings.Join(names, ", "), strings.Join(places, ", ")), values...)
	if err != nil {
		t.Fatal(table, err)
	}
}

// cutIf keeps what an index has short, as real keys are: PostgreSQL takes no
// long ones.
func cutIf(indexed bool, text string) string {
	if indexed && len(text) > 300 {
		return text[:300]
	}
	return text
}

func columnValue(table, name, kind string, notNull bool, i int, text string) any {
	big := []int64{0, 1, -1, math.MaxInt64, math.MinInt64, math.MaxInt32 + 1}
	small := []int64{0, 1, -1, math.MaxInt32, math.MinInt32}
	switch {
	case name == "seq" || name == "batch":
		return int64(i + 1)
	case table == "body" && name == "file":
		return 0 // without a file
	case !notNull && i%2 == 1:
		return nil
	case name == "tenant" && table != "tenant":
		return "t0 " // the first row of the table tenant
	case kind == "TEXT":
		return fmt.Sprintf("t%d %s", i, text)
	case kind == "BLOB":
		return []byte("\x00\x01\xff" + text)
	case kind == "INTEGER":
		return small[i%len(small)]
	}
	return big[i%len(big)]
}

func tables(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'version_*' ORDER BY 1`)
	must(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		all = append(all, name)
	}
	return all
}

func openFile(t *testing.T, dir, set string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(dir, "db", set+".db")}).String())
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func openPostgres(t *testing.T, address string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", address)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// dump is a table's columns and rows, sorted, as PostgreSQL must have them.
func dump(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.Query(fmt.Sprintf(`SELECT * FROM %q`, table))
	must(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	must(t, err)
	all := []string{strings.Join(columns, "|")}
	for rows.Next() {
		values, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		must(t, rows.Scan(places...))
		var row strings.Builder
		for _, v := range values {
			switch v := v.(type) {
			case string:
				fmt.Fprintf(&row, "%q|", strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD"))
			case []byte:
				fmt.Fprintf(&row, "%x|", v)
			default:
				fmt.Fprintf(&row, "%v|", v)
			}
		}
		all = append(all, row.String())
	}
	must(t, rows.Err())
	slices.Sort(all[1:])
	return all
}

func compare(t *testing.T, want map[string][]string, db *sql.DB) {
	t.Helper()
	for table, rows := range want {
		got := dump(t, db, table)
		if slices.Equal(got, rows) {
			continue
		}
		t.Errorf("%s has %d rows, not %d", table, len(got), len(rows))
		for i := range min(len(got), len(rows)) {
			if got[i] != rows[i] {
				t.Errorf("%s: %.200s\n not %.200s", table, got[i], rows[i])
				break
			}
		}
	}
}

// What the settings say decides, and what is in use is not written over.
func TestRestoreSettles(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	ref := mustKeep(t, s, "acme", 1000)
	backup := filepath.Join(t.TempDir(), "backup.tar")
	must(t, s.Backup(t.Context(), backup))

	address := testpeer.SharedPostgres(t).Database(t)
	settle := func(string) (string, error) { return address, nil }
	fresh := store.Config{Dir: filepath.Join(t.TempDir(), "new")}
	must(t, store.Restore(t.Context(), backup, fresh, settle))
	fresh.URL = address
	must(t, holds(t.Context(), testpeer.OpenStore(t, fresh), ref))

	other := store.Config{Dir: filepath.Join(t.TempDir(), "other")}
	for name, settle := range map[string]store.Settle{
		"in use": settle,
		"no":     func(string) (string, error) { return "", fault.New(fault.Conflict, "test", "no") },
	} {
		if err := store.Restore(t.Context(), backup, other, settle); !fault.Is(err, fault.Conflict) {
			t.Error(name, err)
		}
		if left, err := os.ReadDir(other.Dir); err != nil || len(left) > 0 {
			t.Error(name, "left", left, err)
		}
	}
}

// A row that the other database does not take ends the restore, and leaves
// neither rows nor a data directory that could be served.
func TestRestoreThatFails(t *testing.T) {
	c := store.Config{Dir: t.TempDir()}
	s := testpeer.OpenStore(t, c)
	mustKeep(t, s, "acme", 1000)
	db := openFile(t, c.Dir, "road")
	_, err := db.Exec(`INSERT INTO item_share (tenant, body, uses) VALUES ('acme', 'x', 5000000000)`)
	must(t, err)
	db.Close()
	backup := filepath.Join(t.TempDir(), "backup.tar")
	must(t, s.Backup(t.Context(), backup))
	to := store.Config{Dir: filepath.Join(t.TempDir(), "new"), URL: testpeer.SharedPostgres(t).Database(t)}
	err = store.Restore(t.Context(), backup, to, nil)
	if err == nil || !strings.Contains(err.Error(), "item_share") || !strings.Contains(fault.HintOf(err), "empty database") {
		t.Error(err, fault.HintOf(err))
	}
	if left, err := os.ReadDir(to.Dir); err != nil || len(left) > 0 {
		t.Error("left", left, err)
	}
	if rows := dump(t, openPostgres(t, to.URL), "body"); len(rows) != 1 {
		t.Error("rows stayed:", rows)
	}
}
