package store

import (
	"context"
	"log/slog"
	"time"
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
	DefaultRowLimit = 32 << 10 // measured: docs/benchmarks.md
	DefaultReserve  = 64 << 20
)

// Store is the open databases and the bodies.
type Store struct {
	Road    *DB // queue, bodies, trace events on their way
	Control *DB // tenants, connections, directory, tokens, outbox
	Trace   *DB // what happened to each message
	Bodies  *Bodies
}

// Open opens or creates everything, asserts the durability settings and
// migrates forward. On PostgreSQL all three DBs are one database.
func Open(ctx context.Context, c Config) (*Store, error) { panic("skeleton") }

// Close waits for running commits, checkpoints and closes.
func (s *Store) Close() error { panic("skeleton") }

// Room reports whether there is free space enough to accept a message of size
// bytes and still keep the reserve; kind later when not. It costs no system
// call most of the time (a statfs at most every 100 ms).
func (s *Store) Room(size int64) error { panic("skeleton") }

// Ping answers whether every database can commit right now (readyz).
func (s *Store) Ping(ctx context.Context) error { panic("skeleton") }

// Backup writes one file (a tar) from which Restore rebuilds the store, while
// it is in use: each SQLite file by VACUUM INTO (PostgreSQL: a COPY of every
// table in one snapshot), then the bodies that its rows name.
func (s *Store) Backup(ctx context.Context, file string) error { panic("skeleton") }

// Restore fills an empty directory (and an empty PostgreSQL database) from a
// backup.
func Restore(ctx context.Context, file string, c Config) error { panic("skeleton") }

// Problem is one thing that Verify found wrong.
type Problem struct {
	Where string `json:"where"` // "road.item 01J…", "bodies/ab/01J…"
	What  string `json:"what"`
}

// Verify checks every database's own integrity, every row that names a body,
// every body's length and checksum, and lists files that no row names.
func (s *Store) Verify(ctx context.Context) ([]Problem, error) { panic("skeleton") }

// Stats are figures for metrics.
type Stats struct {
	Commits, Changes, Retried uint64 // Changes/Commits is the group size
	WALBytes                  int64
	FreeBytes                 int64
}

func (s *Store) Stats() Stats { panic("skeleton") }
