package store

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func TestUnnumbered(t *testing.T) {
	for in, want := range map[string]struct {
		text   string
		params int
	}{
		"COMMIT":                           {"COMMIT", 0},
		"INSERT INTO t VALUES ($1, $2)":    {"INSERT INTO t VALUES (?, ?)", 2},
		"UPDATE t SET a = $2 WHERE b = $1": {"UPDATE t SET a = $2 WHERE b = $1", 2},
		"SELECT $1, $1":                    {"SELECT $1, $1", 1},
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)": {"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", 11},
	} {
		if text, params := unnumbered(in); text != want.text || params != want.params {
			t.Errorf("%s: %s with %d", in, text, params)
		}
	}
}

// What a writer gives to the driver comes back as it was, of every kind that a
// row has; a wrong number of arguments is an error and not a NULL.
func TestDirectArguments(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	door := s.Road.Road()
	err = door.Change(t.Context(), func(tx RoadTx) error {
		if _, err := tx.Exec("CREATE TABLE kinds (a TEXT, b BLOB, c BIGINT, d BIGINT, e BIGINT, f TEXT)"); err != nil {
			return err
		}
		n, err := tx.Exec("INSERT INTO kinds (a, b, c, d, e, f) VALUES ($1, $2, $3, $4, $5, $6)", "ü\x00x", []byte{0, 1, 255}, int64(1)<<62, -5, uint32(7), nil)
		if n != 1 {
			t.Errorf("%d rows", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var a string
	var b []byte
	var c, d, e int64
	var f *string
	if err := door.QueryRow(t.Context(), "SELECT a, b, c, d, e, f FROM kinds").Scan(&a, &b, &c, &d, &e, &f); err != nil {
		t.Fatal(err)
	}
	if a != "ü\x00x" || string(b) != "\x00\x01\xff" || c != 1<<62 || d != -5 || e != 7 || f != nil {
		t.Errorf("%q %q %d %d %d %v", a, b, c, d, e, f)
	}
	err = door.Change(t.Context(), func(tx RoadTx) error {
		_, err := tx.Exec("DELETE FROM kinds WHERE c = $1 AND d = $2", 1)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "2 parameters") || fault.Is(err, fault.Later) {
		t.Errorf("a missing argument: %v", err)
	}
}
