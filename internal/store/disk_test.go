package store

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// What the road's file has free is room for rows, while half of the reserve is
// left; files get nothing of the reserve.
func TestRoom(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name              string
		left, pages, size int64
		row, ok           bool
	}{
		{"enough for a row", 70 * mib, 0, 1000, true, true},
		{"enough for a file", 70 * mib, 0, 5 * mib, false, true},
		{"a file would take of the reserve", 66 * mib, 100 * mib, 5 * mib, false, false},
		{"the reserve is begun, a row", 60 * mib, 0, 1000, true, false},
		{"the same, but the road has pages", 60 * mib, mib, 1000, true, true},
		{"a row takes more than its body", 64*mib + 1000 + rowMargin - 1, 0, 1000, true, false},
		{"just as much as it takes", 64*mib + 1000 + rowMargin, 0, 1000, true, true},
		{"too few pages", 60 * mib, 1000, 1000, true, false},
		{"half of the reserve is gone", 31 * mib, 100 * mib, 1000, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t.TempDir(), 64*mib)
			d.asked, d.left, d.pages = time.Now(), c.left, c.pages
			if err := d.room(c.size, c.row); (err == nil) != c.ok {
				t.Errorf("room: %v, want ok: %v", err, c.ok)
			}
		})
	}
}

// Room is given away once.
func TestRoomIsSpent(t *testing.T) {
	d := newDisk(t.TempDir(), 100)
	d.asked, d.left, d.pages = time.Now(), 60, 3*(1000+rowMargin)
	for i := range 4 {
		if err := d.room(1000, true); (err == nil) != (i < 3) {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

// With little left on the disk the WAL is copied into the database soon, and
// its space is given back.
func TestTightWAL(t *testing.T) {
	for _, c := range []struct {
		name    string
		reserve int64
		small   bool
	}{{"plenty", 1, false}, {"tight", 1 << 60, true}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(t.Context(), Config{Dir: dir, Reserve: c.reserve})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for i := range 200 {
				err := s.Road.change(t.Context(), func(s *session) error {
					_, err := s.exec("INSERT INTO body (tenant, id, size, sum, file, data) VALUES ($1, $2, 0, 0, 0, $3)", "acme", strconv.Itoa(i), make([]byte, 40_000))
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			info, err := os.Stat(filepath.Join(dir, "db", "road.db-wal"))
			if err != nil {
				t.Fatal(err)
			}
			if small := info.Size() < 3*tightWAL; small != c.small {
				t.Errorf("after 8 MB the WAL has %d bytes", info.Size())
			}
		})
	}
}
