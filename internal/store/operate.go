package store

import "context"

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

// Sweep removes files that no row names, older than 24 h and seen so at two
// sweeps; it returns how many.
func (b *Bodies) Sweep(ctx context.Context) (int, error) { panic("skeleton") }
