package store

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
)

// sweepAge is how old a file without a row must be before it goes.
const sweepAge = 24 * time.Hour

// Sweep removes files that no row names, older than 24 h and seen so at two
// sweeps; it returns how many. It also removes old directories that have
// become empty.
func (b *Bodies) Sweep(ctx context.Context) (int, error) {
	b.mu.Lock()
	before := b.suspects
	b.mu.Unlock()
	now, gone := map[string]bool{}, 0
	err := b.walk(func(path, tenant, id string, age time.Duration) error {
		if age < sweepAge {
			return ctx.Err()
		}
		named, err := b.known(ctx, tenant, id)
		if err != nil || named {
			return err
		}
		if !before[path] {
			now[path] = true
			return nil
		}
		b.unlink(path, maxSpare+1)
		gone++
		return nil
	})
	if err != nil {
		return gone, Fault("store.Sweep", err)
	}
	b.mu.Lock()
	b.suspects = now
	b.mu.Unlock()
	return gone, Fault("store.Sweep", b.tidy())
}

// tidy removes empty directories of times so long ago that no new body goes
// there. A directory that is not empty refuses to be removed.
func (b *Bodies) tidy() error {
	dirs, err := filepath.Glob(filepath.Join(b.files.root, "*", "*"))
	if err != nil {
		return err
	}
	limit := b.now().Add(-sweepAge)
	for _, dir := range dirs {
		first, err := ulid.Parse(filepath.Base(dir) + firstOfStamp)
		if err != nil || !ulid.Time(first.Time()).Before(limit) {
			continue
		}
		b.files.forget(dir)
		os.Remove(dir)
	}
	return nil
}

// firstOfStamp makes a directory's stamp the first id that it could hold.
const firstOfStamp = "00000000000000000000"
