package store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Config says where a store is.
type Config struct {
	Dir string // data directory: SQLite files in db/, bodies in bodies/
	URL string // "" or "sqlite" for SQLite below Dir, or postgres://…
	// RowLimit is the largest body in bytes that is kept as a row; larger ones
	// are files. 0 means DefaultRowLimit.
	RowLimit int
	// Reserve is how many free bytes of disk accept leaves for deliveries to
	// commit; see Room. 0 means DefaultReserve.
	Reserve int64
	Log     *slog.Logger
	Now     func() time.Time
}

const (
	DefaultRowLimit = 32 << 10 // measured: BenchmarkRowLimit, docs/benchmarks.md
	DefaultReserve  = 64 << 20
)

// The sets of tables: names of files, of migrations, and of DB. The gateway has
// three, the keeper one (OpenKeeper).
const (
	roadSet    = "road"
	controlSet = "control"
	traceSet   = "trace"
	keeperSet  = "keeper"
)

// Store is the open databases and the bodies.
type Store struct {
	Road    *DB // queue, bodies, trace events on their way
	Control *DB // tenants, connections, directory, tokens, outbox
	Trace   *DB // what happened to each message
	Bodies  *Bodies

	c       Config
	disk    *disk
	reasons *reasons
}

func (c Config) withDefaults() Config {
	if c.RowLimit == 0 {
		c.RowLimit = DefaultRowLimit
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) dialect() dialect {
	if c.URL == "" || c.URL == "sqlite" {
		return onSQLite
	}
	return onPostgres
}

// Open opens or creates everything, asserts the durability settings and
// migrates forward. On PostgreSQL all three DBs are one database.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.withDefaults()
	if c.Dir == "" {
		return nil, fault.New(fault.Invalid, "store.Open", "no data directory was named")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil { // a SQLite URI wants it so
		return nil, Fault("store.Open", err)
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, "bodies"), 0o750); err != nil {
		return nil, Fault("store.Open", err)
	}
	sweepCopies(c.Dir, c.Log)
	s := &Store{c: c, disk: newDisk(c.Dir, c.Reserve)}
	err = s.openDatabases(ctx)
	if err == nil {
		err = s.syncNames()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	if c.dialect() == onSQLite {
		s.disk.within = s.Road.freePages
	}
	s.reasons = &reasons{control: s.Control, now: c.Now, told: map[string]time.Time{}}
	s.Bodies = newBodies(c, s.Road, s.disk)
	if err := s.Bodies.files.spares.adopt(); err != nil {
		s.Close()
		return nil, Fault("store.Open", err)
	}
	return s, nil
}

func (s *Store) openDatabases(ctx context.Context) error {
	for _, one := range []struct {
		name  string
		cache int // KB: a batch must fit, or it is written to the WAL twice
		place **DB
	}{
		{roadSet, 2 * maxBatchBytes >> 10, &s.Road},
		{controlSet, 4 << 10, &s.Control},
		{traceSet, 4 << 10, &s.Trace},
	} {
		db, err := openDB(ctx, s, one.name, one.cache)
		if err != nil {
			return err
		}
		*one.place = db
	}
	return nil
}

func openDB(ctx context.Context, s *Store, name string, cacheKB int) (*DB, error) {
	db := &DB{name: name, dialect: s.c.dialect(), store: s, log: s.c.Log, now: s.c.Now}
	err := s.c.apart(ctx, name)
	if err != nil {
		return nil, err
	}
	workers := 1
	if db.dialect == onPostgres {
		workers = postgresWriters
		db.write, db.read, err = openPostgres(s.c.URL)
	} else {
		db.write, db.read, err = openSQLite(ctx, filepath.Join(s.c.Dir, "db", name+".db"), cacheKB)
	}
	if err != nil {
		return nil, err
	}
	if db.dialect == onPostgres {
		err = assertPostgres(ctx, db.write, s.c.Log)
	}
	if err == nil {
		db.version, err = migrate(ctx, db.write, db.dialect, name, 0)
	}
	if err != nil {
		db.read.Close()
		db.write.Close()
		return nil, err
	}
	db.commits = newCommitter(db, s.c.Log, workers)
	return db, nil
}

// syncNames makes the names of the folders durable, and those of the files of
// SQLite in them: a synced file that no name leads to is lost too.
func (s *Store) syncNames() error {
	dir, err := filepath.Abs(s.c.Dir)
	if err != nil {
		return Fault("store.Open", err)
	}
	names := []string{dir, filepath.Dir(dir)}
	if s.c.dialect() == onSQLite {
		names = append(names, filepath.Join(dir, "db"))
	}
	for _, name := range names {
		if err := syncDir(name); err != nil {
			return Fault("store.Open", err)
		}
	}
	return nil
}

func (s *Store) databases() []*DB {
	var all []*DB
	for _, db := range []*DB{s.Road, s.Trace, s.Control} {
		if db != nil {
			all = append(all, db)
		}
	}
	return all
}

// Close waits for running commits, checkpoints and closes.
func (s *Store) Close() error {
	var errs []error
	for _, db := range s.databases() {
		errs = append(errs, db.close())
	}
	return errors.Join(errs...)
}

// Room reports whether there is free space enough to accept a message of size
// bytes and still keep the reserve; kind later when not. It costs no system
// call most of the time (a statfs at most every 100 ms).
func (s *Store) Room(size int64) error { return s.disk.room(size, size <= int64(s.c.RowLimit)) }

// Ping answers whether every database can commit right now (readyz).
func (s *Store) Ping(ctx context.Context) error {
	for _, db := range s.databases() {
		err := db.change(ctx, func(s *session) error {
			var one int
			return Fault("store.Ping", s.queryRow("SELECT 1").Scan(&one))
		})
		if err != nil {
			return err
		}
	}
	return s.Room(0)
}

// Stats are figures for metrics.
type Stats struct {
	Commits, Changes, Retried uint64 // Changes/Commits is the group size
	Waiting                   int    // changes for which no commit has begun
	WALBytes                  int64
	FreeBytes                 int64
}

// Stats sums up the databases.
func (s *Store) Stats() Stats {
	var sum Stats
	for _, db := range s.databases() {
		sum.Commits += db.commits.commits.Load()
		sum.Changes += db.commits.changes.Load()
		sum.Retried += db.commits.retried.Load()
		sum.Waiting += db.commits.waits()
		sum.WALBytes += db.wal.Load()
	}
	sum.FreeBytes = s.disk.free()
	return sum
}
