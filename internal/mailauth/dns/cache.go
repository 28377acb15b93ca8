package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How long an answer is kept: shorter lives would ask again within the same
// delivery, longer ones would hide a change of MX for too long.
const (
	minTTL         = 5 * time.Second
	maxTTL         = time.Hour
	maxNegativeTTL = 10 * time.Minute
)

// The cache holds this many bytes, reckoned by wire size and a fixed cost for
// each entry. An answer that is larger than its share is not kept.
const (
	maxCacheCost  = 16 << 20
	entryCost     = 300
	maxEntryShare = 256 // an entry may cost a 256th
)

// cache keeps answers until they expire; the one unused longest goes first
// when it is full.
type cache struct {
	now     func() time.Time
	limit   int
	mu      sync.Mutex
	cost    int
	entries map[question]*list.Element // of *entry
	recent  *list.List                 // front is the one used last
}

type entry struct {
	q       question
	a       answer
	expires time.Time
	cost    int
}

func newCache(limit int, now func() time.Time) *cache {
	return &cache{now: now, limit: limit, entries: make(map[question]*list.Element), recent: list.New()}
}

// get returns a live answer with the rest of its TTL.
func (c *cache) get(q question) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[q]
	if el == nil {
		return answer{}, false
	}
	e := el.Value.(*entry)
	left := e.expires.Sub(c.now())
	if left <= 0 {
		c.drop(el)
		return answer{}, false
	}
	c.recent.MoveToFront(el)
	a := e.a
	a.ttl = left
	return a, true
}

// put keeps an answer and gives it back.
func (c *cache) put(q question, a answer) answer {
	cost := entryCost + len(q.name)
	for _, rr := range a.records {
		cost += dns.Len(rr)
	}
	if cost > max(c.limit/maxEntryShare, entryCost*2) {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[q]; old != nil {
		c.drop(old)
	}
	for c.cost+cost > c.limit && c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
	c.entries[q] = c.recent.PushFront(&entry{q, a, c.now().Add(a.ttl), cost})
	c.cost += cost
	return a
}

func (c *cache) drop(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.q)
	c.cost -= e.cost
}
