package smtp

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
)

// mostEnded are kept in mind, and forgotten all at once: a certificate that is
// over is shown for seconds after its end at most.
const mostEnded = 10_000

// EndShown ends the connections whose handshake showed our certificate of that
// SHA-256 (hex), because its key is somebody else's too: at once where they
// wait for a command, with 421 4.3.2 (RFC 5321 3.8), those in DATA or BDAT after
// the reply to that message. Handshakes under way lead to no session. It counts the
// connections that it found. Certificates of a TLS configuration that does not
// give them by GetCertificate are not known.
func (s *Server) EndShown(sha string) (found int) {
	s.start()
	s.mu.Lock()
	if len(s.ended) >= mostEnded {
		clear(s.ended)
	}
	s.ended[sha] = struct{}{}
	open := make([]*door, 0, len(s.doors))
	for d := range s.doors {
		open = append(open, d)
	}
	s.mu.Unlock()
	for _, d := range open {
		d.each(func(c *dialog) {
			if c.shows(sha) {
				c.expire()
				found++
			}
		})
	}
	return found
}

// isEnded reports whether a certificate was given to EndShown.
func (s *Server) isEnded(sha string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, over := s.ended[sha]
	return over
}

// dialogKey is how a handshake's context names its dialog.
type dialogKey struct{}

// shaking is the context of c's handshake.
func (c *dialog) shaking() context.Context {
	return context.WithValue(context.Background(), dialogKey{}, c)
}

// noting is a configuration whose handshakes note which certificate they show.
// It knows no session tickets: a resumed session shows none, so nobody could say
// which key it goes back to, and it would outlive that key.
func noting(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	config = config.Clone()
	config.SessionTicketsDisabled = true
	if get := config.GetCertificate; get != nil {
		config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := get(hello)
			if c, ours := hello.Context().Value(dialogKey{}).(*dialog); ours && err == nil && cert != nil && len(cert.Certificate) > 0 {
				c.show(cert.Certificate[0])
			}
			return cert, err
		}
	}
	if choose := config.GetConfigForClient; choose != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			other, err := choose(hello)
			return noting(other), err
		}
	}
	return config
}

// show notes the leaf that a handshake shows, before it is known whether it ends
// well: whoever ends it meanwhile finds it, and the handshake looks afterwards.
func (c *dialog) show(leaf []byte) {
	sum := sha256.Sum256(leaf)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = hex.EncodeToString(sum[:])
}

// shows reports whether c's handshake shows the certificate.
func (c *dialog) shows(sha string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown == sha && sha != ""
}

// expire is wake, for a connection whose certificate is over.
func (c *dialog) expire() {
	c.expired.Store(true)
	c.wake()
}

// lookShown leaves as soon as a command is waited for if the certificate was
// ended while the handshake was under way. Only c's own goroutine changes shown.
func (c *dialog) lookShown() {
	if c.shown != "" && c.server.isEnded(c.shown) {
		c.expired.Store(true)
		c.woken.Store(true)
	}
}
