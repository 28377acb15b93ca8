package store

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestShed has two connections take pages from each other until there are more
// than all connections may have. From then on SQLite gives up each page after
// each statement, until the writer lets go of all.
func TestShed(t *testing.T) {
	write, read, err := openSQLite(t.Context(), filepath.Join(t.TempDir(), "x.db"), 400)
	if err != nil {
		t.Fatal(err)
	}
	db := &DB{name: "x", dialect: onSQLite, write: write, read: read, log: slog.New(slog.DiscardHandler)}
	s := &session{db: db, ctx: t.Context()}
	defer func() { s.drop(); read.Close(); write.Close() }()
	if err := s.ready(); err != nil {
		t.Fatal(err)
	}
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := s.execRaw(q, args...); err != nil {
			t.Fatal(err)
		}
	}
	const rows = 4000
	exec("CREATE TABLE body (id INTEGER PRIMARY KEY, data BLOB)")
	exec("BEGIN")
	for i := range rows {
		exec("INSERT INTO body VALUES ($1, $2)", i, make([]byte, 3000))
	}
	exec("COMMIT")
	exec("PRAGMA wal_checkpoint(TRUNCATE)")
	const times = 100
	reads := func() int { // of one row, over and over
		began := systemReads(t)
		for range times {
			exec("UPDATE body SET data = data WHERE id = $1", 7)
		}
		return systemReads(t) - began
	}
	if n := reads(); n > times/2 {
		t.Fatalf("%d reads at the beginning", n)
	}
	for i := range 1000 {
		exec("UPDATE body SET id = id WHERE id = $1", i*13%rows)
		var n int
		if err := read.QueryRow("SELECT length(data) FROM body WHERE id = $1", i*7%rows).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	var sum int
	if err := read.QueryRow("SELECT sum(length(data)) FROM body").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	if n := reads(); n < times {
		t.Errorf("%d reads of %d statements: the driver's cache has got well, nothing need be shed any more", n, times)
	}
	now := time.Now()
	db.shed(s, now)
	if n := reads(); n > times/2 {
		t.Errorf("%d reads of %d statements after all pages were let go", n, times)
	}
	db.shed(s, now.Add(shedEvery-1))
	if at := db.shedAt; !at.Equal(now) {
		t.Errorf("shed again after %v", at.Sub(now))
	}
}

// systemReads is how many reads this process has made.
func systemReads(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("reads are counted on Linux only: ", err)
	}
	for line := range bytes.Lines(raw) {
		if v, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("syscr: ")); ok {
			n, err := strconv.Atoi(string(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no count in %q", raw)
	return 0
}
