package deliver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// way is a candidate with our own side of the connection filled in.
type way struct {
	connection.Candidate
	sameness sameness
}

// sameness is what must be equal for a connection to be used again. It is
// made to err on the side of a new connection: trust is compared by the
// identity of the pool, not by its content.
type sameness struct {
	tenant, connection string
	rule, name, pins   string
	user, auth         string
	identity           [sha256.Size]byte // of our client certificate
	trust              *x509.CertPool
	config             *tls.Config // where certificates are chosen by a function: no other configuration is equal
	address, hello     string
	local              netip.Addr
	mode               smtp.TLSMode
	lmtp               bool
}

func newWay(c connection.Candidate) way {
	s := sameness{
		tenant: c.Tenant, connection: c.Connection,
		rule: c.Rule, pins: strings.Join(c.Pins, " "), user: c.User, auth: c.Auth,
		address: c.Target.Network + " " + c.Target.Address, hello: c.Target.Hello, local: c.Target.Local,
		mode: c.Target.TLS, lmtp: c.Target.LMTP,
	}
	if verifies(c.Rule) && c.Target.Config != nil {
		s.name, s.trust = c.Target.Config.ServerName, c.Target.Config.RootCAs
	}
	if cfg := c.Target.Config; cfg != nil {
		if cfg.GetClientCertificate != nil {
			s.config = cfg
		} else if len(cfg.Certificates) > 0 && len(cfg.Certificates[0].Certificate) > 0 {
			s.identity = sha256.Sum256(cfg.Certificates[0].Certificate[0])
		}
	}
	return way{Candidate: c, sameness: s}
}

// verifies reports whether a rule says who the peer must be.
func verifies(rule string) bool {
	return rule == connection.TLSVerified || rule == connection.TLSMutual
}

// peer is how a host is named in traces: "mx.example.org [192.0.2.1]:25".
func (w *way) peer() string {
	host, port, err := net.SplitHostPort(w.Target.Address)
	if err != nil || w.Host == "" || w.Host == host {
		return w.Target.Address
	}
	return w.Host + " [" + host + "]:" + port
}

// conn is one connection to a far end, used by one worker at a time.
type conn struct {
	way
	client     *smtp.Client
	name       string // peer, for attempts
	tls        *trace.TLS
	dsn        bool    // the far end tells of success itself
	route      *route  // by which it was last used
	sent       int     // transactions so far
	unrecorded *report // of the last message that was answered 250
	since      time.Time
	place      *place      // its share of the host ceiling
	ending     atomic.Bool // its identity is over: no further message
}

// open dials a way on behalf of a message. The error is a *smtp.DialError, or
// whatever else the registry met.
func (d *Deliverer) open(ctx context.Context, w way, destination, message string, p *place) (*conn, error) {
	begun := time.Now()
	candidate, shown := watchIdentity(w.Candidate)
	dialled := d.sessions.begin(candidate)
	client, err := d.routes.Dial(ctx, candidate, message)
	if err != nil {
		d.sessions.done(dialled, nil, shown)
		if ctx.Err() == nil {
			p.silent()
		}
		p.free()
		return nil, err
	}
	_, utf8 := client.Extension("SMTPUTF8")
	_, dsn := client.Extension("DSN")
	d.routes.Offered(destination, client.MaxSize(), utf8)
	d.note(w, true, time.Since(begun), "")
	c := &conn{
		way: w, client: client, name: w.peer(), dsn: dsn, place: p,
		tls: tlsOf(client.TLSState(), w.Candidate, shown),
	}
	d.sessions.done(dialled, c, shown)
	return c, nil
}

// watchIdentity notes which certificate of ours the handshake shows.
func watchIdentity(c connection.Candidate) (connection.Candidate, *tls.Certificate) {
	shown := new(tls.Certificate)
	if c.Target.Config == nil || c.Target.Config.GetClientCertificate == nil {
		return c, shown
	}
	choose := c.Target.Config.GetClientCertificate
	c.Target.Config = c.Target.Config.Clone()
	c.Target.Config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := choose(i)
		if err == nil && cert != nil {
			*shown = *cert
		}
		return cert, err
	}
	return c, shown
}

// tlsOf says how a connection is protected, nil for not at all.
func tlsOf(s *tls.ConnectionState, c connection.Candidate, shown *tls.Certificate) *trace.TLS {
	if s == nil {
		return nil
	}
	return &trace.TLS{
		Version:  tls.VersionName(s.Version),
		Cipher:   tls.CipherSuiteName(s.CipherSuite),
		Verified: c.Verified(s),
		Client:   subject(shown),
	}
}

// subject names our own certificate, "" for none.
func subject(c *tls.Certificate) string {
	leaf := c.Leaf
	if leaf == nil && len(c.Certificate) > 0 {
		leaf, _ = x509.ParseCertificate(c.Certificate[0])
	}
	if leaf == nil {
		return ""
	}
	return leaf.Subject.String()
}

// recorded waits until the 250 before this one is on disk; it is what stands
// before each final dot.
func (c *conn) recorded(ctx context.Context) error {
	r := c.unrecorded
	if r == nil {
		return nil
	}
	select {
	case <-r.done: // the usual case costs no timer
		return r.err
	default:
	}
	t := time.NewTimer(recordPatience)
	defer t.Stop()
	select {
	case <-r.done:
		return r.err
	case <-t.C:
		return fault.New(fault.Later, "deliver.Send", "the outcome of the message before could not be recorded in time")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usable reports whether a connection may take one more message.
func (d *Deliverer) usable(c *conn) bool {
	return c.sent < d.per && !c.ending.Load() && c.client.Alive()
}

// drop ends a connection that is of no more use.
func (d *Deliverer) drop(c *conn) {
	d.sessions.leave(c)
	_ = c.client.Close() // nothing is owed on it
	c.place.free()
}

// quit ends a connection with good manners, without holding anybody up.
func (d *Deliverer) quit(c *conn) {
	d.running.Go(func() {
		d.sessions.leave(c)
		_ = c.client.Quit() // the far end may be gone, and that is as well
		c.place.free()
	})
}
