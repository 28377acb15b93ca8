package wire

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Peer is who asks: a user of this machine, or the holder of a client
// certificate.
type Peer struct {
	Local       bool // over the Unix socket
	UID         uint32
	PID         int32
	Certificate string // the certificate's first DNS name
}

// String is what the ledger calls the peer.
func (p Peer) String() string {
	switch {
	case p.Local:
		return fmt.Sprintf("uid %d (pid %d)", p.UID, p.PID)
	case p.Certificate != "":
		return "certificate " + p.Certificate
	}
	return "unknown"
}

// Grant says what one peer may ask for: a user id on the Unix socket, or a
// certificate's name over TCP.
type Grant struct {
	Local       bool
	UID         uint32
	Certificate string
	Acts        []act.Name
}

func (g Grant) isOf(p Peer) bool {
	if p.Local {
		return g.Local && g.UID == p.UID
	}
	return !g.Local && g.Certificate != "" && g.Certificate == p.Certificate
}

// known reports whether a peer has any grant.
func (s *Server) known(p Peer) bool {
	return slices.ContainsFunc(s.c.Allow, func(g Grant) bool { return g.isOf(p) })
}

// may reports whether a peer has a grant for an act.
func (s *Server) may(p Peer, n act.Name) bool {
	return slices.ContainsFunc(s.c.Allow, func(g Grant) bool { return g.isOf(p) && slices.Contains(g.Acts, n) })
}

type peerKey struct{}

// withPeer keeps the peer of a Unix connection; the kernel told it once, for
// as long as the connection lives.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, l.peer)
	}
	return ctx
}

// peerOf is who made a request; the zero Peer has no grant.
func peerOf(r *http.Request) Peer {
	if p, ok := r.Context().Value(peerKey{}).(Peer); ok {
		return p
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Peer{}
	}
	return Peer{Certificate: nameOf(r.TLS.VerifiedChains[0][0])}
}

func nameOf(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return ""
	}
	return c.DNSNames[0]
}

// peerConn is a Unix connection with its peer.
type peerConn struct {
	net.Conn
	peer Peer
	gone func()
}

func (c *peerConn) Close() error {
	c.gone()
	return c.Conn.Close()
}

// peerListener lets in only users that have a grant, and only so many
// connections at a time.
type peerListener struct {
	*net.UnixListener
	server *Server
	slots  chan struct{}
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := credentials(c)
		if err != nil || !l.server.known(p) {
			l.server.refuse(Refusal{Peer: p, Reason: "this user may not connect"})
			c.Close()
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &peerConn{Conn: c, peer: p, gone: onlyOnce(func() { <-l.slots })}, nil
		default:
			c.Close() // the client tries again: the keeper is not a queue
		}
	}
}

// credentials asks the kernel who is at the other end.
func credentials(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = got
	}
	if err != nil {
		return Peer{}, err
	}
	return Peer{Local: true, UID: cred.Uid, PID: cred.Pid}, nil
}
