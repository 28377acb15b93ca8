package deliver

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// TestSessionsEnd: what shows a certificate that is over ends, also where its
// dial had begun before; what shows another one, or is another tenant's, stays.
func TestSessionsEnd(t *testing.T) {
	old, next := &tls.Certificate{Certificate: [][]byte{[]byte("old")}}, &tls.Certificate{Certificate: [][]byte{[]byte("next")}}
	sum := sha256.Sum256([]byte("old"))
	sha := hex.EncodeToString(sum[:])
	mutual := connection.Candidate{Tenant: "acme", Connection: "mailbox", Rule: connection.TLSMutual}
	open := func(s *sessions, c connection.Candidate, shown *tls.Certificate) *conn {
		made := &conn{way: way{Candidate: c}}
		s.done(s.begin(c), made, shown)
		return made
	}
	s := newSessions()
	first, other := open(s, mutual, old), open(s, mutual, next)
	foreign := mutual
	foreign.Tenant = "globex"
	strange := open(s, foreign, old)
	early := s.begin(mutual)
	if n := s.end("acme", "mailbox", sha); n != 2 {
		t.Errorf("%d are left, want the connection and the dial", n)
	}
	if !first.ending.Load() || other.ending.Load() || strange.ending.Load() {
		t.Errorf("ending: %v %v %v", first.ending.Load(), other.ending.Load(), strange.ending.Load())
	}
	late := s.begin(mutual)
	came := &conn{way: way{Candidate: mutual}}
	s.done(early, came, old)
	if n := s.end("acme", "mailbox", sha); n != 2 || !came.ending.Load() {
		t.Errorf("%d are left, ending %v: one was dialled before it was over", n, came.ending.Load())
	}
	s.leave(first)
	s.leave(came)
	if n := s.end("acme", "mailbox", sha); n != 0 {
		t.Errorf("%d are left: a dial that began after is not waited for", n)
	}
	s.done(late, nil, nil)
	if len(s.dials) != 0 {
		t.Error("a dial is left")
	}
	if s.begin(connection.Candidate{Tenant: "acme", Rule: connection.TLSVerified}) != nil {
		t.Error("a dial without an identity is watched")
	}
}

// TestSessionsBack: a certificate that is shown again after it was ended is
// shown by connections that are used again, and its next end waits for dials
// that began since.
func TestSessionsBack(t *testing.T) {
	cert := &tls.Certificate{Certificate: [][]byte{[]byte("old")}}
	sum := sha256.Sum256([]byte("old"))
	sha := hex.EncodeToString(sum[:])
	mutual := connection.Candidate{Tenant: "acme", Connection: "mailbox", Rule: connection.TLSMutual}
	s := newSessions()
	s.end("acme", "mailbox", sha)
	s.back(sha)
	made := &conn{way: way{Candidate: mutual}}
	s.done(s.begin(mutual), made, cert)
	if made.ending.Load() {
		t.Error("ends after its first message")
	}
	s.leave(made)
	dial := s.begin(mutual)
	if n := s.end("acme", "mailbox", sha); n != 1 {
		t.Errorf("%d are left, want the dial", n)
	}
	s.done(dial, nil, nil)
}
