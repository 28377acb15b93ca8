package edge

import (
	"hash/maphash"
	"sync"
)

// rate is one of the rates that a key has.
type rate int

const (
	rateConnects rate = iota
	rateMessages
	rateRecipients
	rateFailures
	rates
)

const (
	shards   = 64
	perShard = 1024 // 65,536 keys in a table, some 8 MB
	sampled  = 16   // keys looked at to find the best to go
	patience = 64   // keys looked at to find any
	minute   = int64(60_000_000)
)

// usage is what a key uses: its connections, and for each rate the time in
// microseconds at which all of what it spent will have flowed off (the
// generic cell rate algorithm: one number a rate instead of a window).
type usage struct {
	open int32
	full [rates]int64
}

// debt is when the key owes nothing any more.
func (u *usage) debt() int64 {
	d := u.full[0]
	for _, t := range u.full[1:] {
		d = max(d, t)
	}
	return d
}

// table keeps the usage of keys. It is sharded, so that sessions do not wait
// for each other, and bounded, so that a botnet with more addresses than it
// holds costs no more memory than one with as many: then the key goes that
// owes least and has no connection open.
type table[K comparable] struct {
	seed   maphash.Seed
	shards [shards]shard[K]
}

type shard[K comparable] struct {
	mu   sync.Mutex
	keys map[K]*usage
}

func newTable[K comparable]() *table[K] {
	t := &table[K]{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].keys = make(map[K]*usage)
	}
	return t
}

func (t *table[K]) shard(k K) *shard[K] {
	return &t.shards[maphash.Comparable(t.seed, k)%shards]
}

// enter counts a connection in when fewer than limit are open and the rate
// allows it; a negative limit is none.
func (t *table[K]) enter(k K, now int64, limit, perMinute int) bool {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usage(k, now)
	if u == nil || limit >= 0 && int(u.open) >= limit || !u.spend(now, rateConnects, perMinute) {
		return false
	}
	u.open++
	return true
}

// leave ends what enter began.
func (t *table[K]) leave(k K) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.keys[k]; u != nil && u.open > 0 {
		u.open--
	}
}

// spend takes one of the rate; false when none is left.
func (t *table[K]) spend(k K, now int64, r rate, perMinute int) bool {
	if perMinute < 0 {
		return true
	}
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usage(k, now)
	return u != nil && u.spend(now, r, perMinute)
}

// left reports whether spend would succeed.
func (t *table[K]) left(k K, now int64, r rate, perMinute int) bool {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.keys[k]
	return u == nil || perMinute < 0 || u.allows(now, r, perMinute)
}

func (t *table[K]) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}

func (u *usage) allows(now int64, r rate, perMinute int) bool {
	return perMinute > 0 && max(u.full[r], now)+minute/int64(perMinute) <= now+minute
}

// spend allows a minute's worth at once and then as much as flows off.
func (u *usage) spend(now int64, r rate, perMinute int) bool {
	if perMinute < 0 {
		return true
	}
	if !u.allows(now, r, perMinute) {
		return false
	}
	u.full[r] = max(u.full[r], now) + minute/int64(perMinute)
	return true
}

// usage finds or makes a key's usage; nil when the shard is full and next to
// all of its keys have connections open.
func (s *shard[K]) usage(k K, now int64) *usage {
	if u := s.keys[k]; u != nil {
		return u
	}
	if len(s.keys) >= perShard && !s.evict(now) {
		return nil
	}
	u := new(usage)
	s.keys[k] = u
	return u
}

// evict removes keys that owe nothing from a sample (maps are walked from a
// random place on), or else the one of it that owes least.
func (s *shard[K]) evict(now int64) bool {
	var least *usage
	var victim K
	before, looked := len(s.keys), 0
	for k, u := range s.keys {
		if looked++; looked > patience || looked > sampled && (least != nil || len(s.keys) < before) {
			break
		}
		switch {
		case u.open > 0:
		case u.debt() <= now:
			delete(s.keys, k)
		case least == nil || u.debt() < least.debt():
			least, victim = u, k
		}
	}
	if len(s.keys) == before && least != nil {
		delete(s.keys, victim)
	}
	return len(s.keys) < before
}
