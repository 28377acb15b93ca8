package edge

import (
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// idSource makes the ids of messages: ULIDs that ascend within this process,
// so that rows of the same time lie together. Their 80 random bits of each
// millisecond come from ChaCha8 with a seed of the system's, so two processes
// or two runs do not meet.
type idSource struct {
	mu      sync.Mutex
	last    uint64 // milliseconds
	entropy *ulid.MonotonicEntropy
}

func newIDSource() *idSource {
	var seed [32]byte
	crand.Read(seed[:]) // never fails (Go 1.24)
	return &idSource{entropy: ulid.Monotonic(rand.NewChaCha8(seed), 0)}
}

// next returns an id that is greater than all before it, also when the clock
// steps back.
func (s *idSource) next(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, ulid.Timestamp(now))
	for {
		id, err := ulid.New(s.last, s.entropy)
		if err == nil {
			return id.String()
		}
		s.last++ // the random part of this millisecond has run over
	}
}
