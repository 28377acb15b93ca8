package deliver

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// sessions are the connections that show an identity of a tenant's connection,
// so that they can be ended when it is replaced.
type sessions struct {
	mu    sync.Mutex
	turn  uint64            // counts dials and calls of end
	dials map[*dial]uint64  // under way: which identity they show is not known yet
	live  map[*conn]string  // SHA-256 of the certificate shown
	ended map[string]uint64 // certificates that are not to be shown any more, and since which turn
}

// dial is one that is under way.
type dial struct{ tenant, connection string }

const maxEnded = 10_000 // forgotten all at once: a certificate is dialled with for seconds after its end at most

func newSessions() *sessions {
	return &sessions{dials: map[*dial]uint64{}, live: map[*conn]string{}, ended: map[string]uint64{}}
}

// begin notes a dial that may show an identity; nil for one that shows none.
func (s *sessions) begin(c connection.Candidate) *dial {
	if c.Rule != connection.TLSMutual || c.Connection == "" {
		return nil
	}
	d := &dial{c.Tenant, c.Connection}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	s.dials[d] = s.turn
	return d
}

// done is the end of a dial: c is the connection that it made, nil for none.
func (s *sessions) done(d *dial, c *conn, shown *tls.Certificate) {
	if d == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dials, d)
	if c == nil || len(shown.Certificate) == 0 {
		return
	}
	sum := sha256.Sum256(shown.Certificate[0])
	sha := hex.EncodeToString(sum[:])
	s.live[c] = sha
	if _, over := s.ended[sha]; over {
		c.ending.Store(true)
	}
}

// leave forgets a connection that is being closed.
func (s *sessions) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, c)
}

// end marks a connection's sessions with a certificate, and counts what is left
// of them: those that live, and dials that began before the first call.
func (s *sessions) end(tenant, name, sha string) (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, known := s.ended[sha]
	if !known {
		if len(s.ended) >= maxEnded {
			clear(s.ended)
		}
		s.turn++
		since = s.turn
		s.ended[sha] = since
	}
	for c, shown := range s.live {
		if shown == sha && c.Tenant == tenant && c.Connection == name {
			c.ending.Store(true)
			left++
		}
	}
	for d, turn := range s.dials {
		if d.tenant == tenant && d.connection == name && turn < since {
			left++
		}
	}
	return left
}

// back forgets that a certificate was ended: it is shown again, and a later end
// of it counts anew.
func (s *sessions) back(sha string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ended, sha)
}

// retire is what the registry asks when an identity is replaced: idle
// connections with it end now, the others after their message.
func (d *Deliverer) retire(tenant, name, sha256 string) (left int) {
	d.sessions.end(tenant, name, sha256)
	for _, c := range d.idle.ending() {
		d.sessions.leave(c)
		d.quit(c)
	}
	return d.sessions.end(tenant, name, sha256)
}
