package store

import "sync"

const (
	// recentBytes is how much of what was just accepted stays in memory. Most
	// mail is delivered within milliseconds, and reading a row back costs a
	// tenth of all that a message may cost.
	recentBytes = 8 << 20
	recentCount = 4096
)

// recent remembers row bodies from their commit to their first use, or until
// newer ones need the space.
type recent struct {
	mu    sync.Mutex
	bytes int
	data  map[bodyKey][]byte
	order []bodyKey // oldest first; some may be gone already
}

type bodyKey struct{ tenant, id string }

func (ref BodyRef) key() bodyKey { return bodyKey{ref.Tenant, ref.ID} }

func (r *recent) put(key bodyKey, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.data == nil {
		r.data = map[bodyKey][]byte{}
	}
	r.data[key] = data
	r.bytes += len(data)
	r.order = append(r.order, key)
	for r.bytes > recentBytes || len(r.order) > recentCount {
		r.remove(r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) get(key bodyKey) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.data[key]
	return data, ok
}

func (r *recent) drop(key bodyKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(key)
}

func (r *recent) remove(key bodyKey) {
	r.bytes -= len(r.data[key])
	delete(r.data, key)
}
