package directory

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	shards     = 16
	generation = 4096 // entries of half a shard: 131,072 in all
)

// name is an address of one tenant. The tenant is part of it because a domain
// can move to another.
type name struct{ tenant, key string }

// fact is what is remembered of an address.
type fact struct {
	answer Answer
	at     time.Time
	text   string // the far end's words for a "no"
	kept   bool   // the database has a "yes"
}

// memory is a bounded cache. A shard has two generations: when the younger is
// full the older is thrown away, and what is asked for moves to the younger.
// That costs no bookkeeping when something is only looked up.
type memory struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu         sync.Mutex
	young, old map[name]fact
	changes    uint64
}

func newMemory() *memory {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].young = make(map[name]fact)
	}
	return m
}

func (m *memory) shard(n name) *shard {
	return &m.shards[maphash.String(m.seed, n.key)%shards]
}

// get returns a fact, and a mark for putting one when there is none.
func (m *memory) get(n name) (f fact, ok bool, mark uint64) {
	s := m.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok = s.young[n]; ok {
		return f, true, s.changes
	}
	if f, ok = s.old[n]; ok {
		s.put(n, f)
	}
	return f, ok, s.changes
}

// put remembers a fact.
func (m *memory) put(n name, f fact) {
	s := m.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(n, f)
}

// putRead remembers what was read from the database, unless something was
// forgotten since the mark: then the reading may be older than the change.
func (m *memory) putRead(n name, f fact, mark uint64) {
	s := m.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == mark {
		s.put(n, f)
	}
}

func (s *shard) put(n name, f fact) {
	if len(s.young) >= generation {
		s.old, s.young = s.young, make(map[name]fact, generation)
	}
	s.young[n] = f
}

// forget drops a fact.
func (m *memory) forget(n name) {
	s := m.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	delete(s.young, n)
	delete(s.old, n)
}

// clear drops everything.
func (m *memory) clear() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.changes++
		s.young, s.old = make(map[name]fact), nil
		s.mu.Unlock()
	}
}
