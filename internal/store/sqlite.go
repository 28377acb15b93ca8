package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	// pageSize makes no difference to a busy relay that could be told from
	// chance (BenchmarkCommit10K with 4 to 32 KiB). In a long queue for
	// thousands of destinations each row lies in a page of its own, and what
	// bulk work writes grows with it.
	pageSize = 4096
	// sqliteReaders is how many reads run at once on one file.
	sqliteReaders = 4
	// passiveWAL is the size of the WAL at which what it holds is copied
	// into the database; pages that were written many times since are copied
	// once, so that a busy relay copies little.
	passiveWAL = 16 << 20
	// lookWAL is how much is written between two looks at the WAL.
	lookWAL = 2 << 20
	// tightWAL stands for passiveWAL when the disk has little left, and is looked
	// for as much more often. What the WAL holds is then written once more, into
	// the database: with no space for that, and none for the WAL to grow, nothing
	// could be committed ever again, deliveries that make room least of all. The
	// file's own space is given back each time: a WAL that keeps it may be all that
	// the reserve lacks, and accept would wait for it for ever.
	tightWAL = passiveWAL / 16
	// boundWAL is the size at which the writer waits for readers, who are cut
	// off after readLimit, to make the WAL begin anew.
	boundWAL = 128 << 20
	// shedEvery is how often a busy writer lets go of all pages that no statement
	// holds.
	//
	// The driver's SQLite keeps the pages of all connections of the process in
	// one list (SQLITE_ENABLE_MEMORY_MANAGEMENT). A connection that has as many
	// pages as it may have takes the oldest of any, and so grows at another's cost,
	// which then gets new ones: in the end there are more pages than all may have
	// together. From then on each page is given up the moment that it is not in
	// use, the roots of the tables thousands of times a second, while cold ones
	// stay. Only letting go of all ends that.
	shedEvery = 2 * time.Second
)

// openSQLite opens one file: a pool of one writer, and a pool of readers.
func openSQLite(ctx context.Context, file string, cacheKB int) (write, read *sql.DB, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return nil, nil, Fault("store.Open", err)
	}
	common := []string{"busy_timeout(10000)", "foreign_keys(1)", "temp_store(2)"}
	// The driver runs pragmas in the order of the alphabet, and the journal mode
	// after them when it stands by itself: with the WAL the file gets its pages,
	// and their size is what it is.
	write, err = sql.Open("sqlite", sqliteName(file, append(common,
		fmt.Sprintf("page_size(%d)", pageSize), "synchronous(FULL)",
		"wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", passiveWAL),
		fmt.Sprintf("cache_size(-%d)", cacheKB)))+"&_journal_mode=WAL")
	if err != nil {
		return nil, nil, Fault("store.Open", err)
	}
	write.SetMaxOpenConns(1)
	write.SetMaxIdleConns(1)
	if err := assertSQLite(ctx, write); err != nil {
		write.Close()
		return nil, nil, err
	}
	read, err = sql.Open("sqlite", sqliteName(file, append(common, "query_only(1)", "cache_size(-2000)")))
	if err != nil {
		write.Close()
		return nil, nil, Fault("store.Open", err)
	}
	read.SetMaxOpenConns(sqliteReaders)
	read.SetMaxIdleConns(sqliteReaders)
	return write, read, nil
}

func sqliteName(file string, pragmas []string) string {
	q := url.Values{"_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: file}).String() + "?" + q.Encode()
}

// assertSQLite reads back every setting that durability hangs on.
func assertSQLite(ctx context.Context, db *sql.DB) error {
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000", "wal_autocheckpoint": "0",
	} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
			return Fault("store.Open", err)
		}
		if !strings.EqualFold(got, want) {
			return fault.New(fault.Internal, "store.Open", fmt.Sprintf("SQLite runs with %s = %s, not %s", pragma, got, want)).
				WithHint("Put the data directory on a local file system.")
		}
	}
	return nil
}

// tend runs after every commit of a SQLite file: it keeps the WAL bounded.
// How much of the WAL is in use is only asked when enough was written since.
func (db *DB) tend(s *session, changes int) {
	if db.dialect != onSQLite || s.conn == nil {
		return
	}
	db.shed(s, time.Now())
	db.written += s.bytes + changes*pageSize
	look, passive := int64(lookWAL), int64(passiveWAL)
	tight := db.store.disk.tight()
	if tight {
		look, passive = lookWAL/16, tightWAL
	}
	if s.full {
		// The WAL cannot grow; copied back, it begins anew in the space that it has.
		look, passive, s.full = 0, 0, false
	}
	if int64(db.written) < look {
		return
	}
	db.written = 0
	size, pending, err := walState(s, "NOOP")
	switch {
	case err != nil:
		db.log.Error("the size of the WAL is not known", "db", db.name, "error", err)
	case (size > boundWAL || tight && pending > passive) && db.longReads.Load() == 0:
		size, _, err = walState(s, "TRUNCATE")
	case pending > passive:
		size, _, err = walState(s, "PASSIVE")
	}
	if err != nil {
		db.log.Error("checkpoint failed", "db", db.name, "error", err)
		return
	}
	db.wal.Store(size)
}

// shed lets go of cached pages from time to time.
func (db *DB) shed(s *session, now time.Time) {
	if now.Sub(db.shedAt) < shedEvery {
		return
	}
	db.shedAt = now
	if _, err := s.execRaw("PRAGMA shrink_memory"); err != nil {
		db.log.Error("cached pages cannot be given up", "db", db.name, "error", err)
	}
}

// walState runs a checkpoint (none for NOOP) and tells how many bytes of the
// WAL are in use and how many of them are not in the database yet.
func walState(s *session, mode string) (size, pending int64, err error) {
	var busy, pages, copied int64
	err = s.queryRow("PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &copied)
	const frame = pageSize + 24 // https://sqlite.org/fileformat2.html, section 4.1
	return pages * frame, (pages - copied) * frame, err
}

// freePages is how many bytes of the file are free for new rows.
func (db *DB) freePages() int64 {
	ctx, cancel := context.WithTimeout(context.Background(), diskEvery)
	defer cancel()
	var pages int64
	if err := db.read.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages); err != nil {
		db.log.Warn("free pages are not known", "db", db.name, "error", err)
	}
	return pages * pageSize
}
