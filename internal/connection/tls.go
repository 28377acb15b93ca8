package connection

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// peer is what decides how a server is verified.
type peer struct {
	rule     string
	name     string         // that the certificate must have
	roots    *x509.CertPool // nil is the system's
	pins     []string
	identity func(*tls.CertificateRequestInfo) (*tls.Certificate, error) // nil without one
}

// peerTLS is the configuration for a peer. A pin takes the place of the chain
// and the name; with the rule required it is all that is verified.
func peerTLS(p peer) *tls.Config {
	c := &tls.Config{
		ServerName:           p.name,
		RootCAs:              p.roots,
		MinVersion:           tls.VersionTLS12,
		GetClientCertificate: p.identity,
	}
	if p.identity != nil {
		// The keeper signs handshakes of TLS 1.3 alone; and a resumed session
		// would show no certificate, so none is kept.
		c.MinVersion, c.ClientSessionCache = tls.VersionTLS13, nil
	}
	if p.rule != TLSVerified && p.rule != TLSMutual || len(p.pins) > 0 {
		c.InsecureSkipVerify = true
	}
	if len(p.pins) > 0 {
		c.VerifyConnection = func(s tls.ConnectionState) error { return checkPins(p.pins, s) }
	}
	return c
}

// PinError is a peer with another certificate than the pinned ones.
type PinError struct {
	Want []string
	Got  string
}

// Error says what was expected and what came.
func (e *PinError) Error() string {
	return fmt.Sprintf("the server's certificate is not the pinned one: expected %s, got %s", strings.Join(e.Want, " or "), e.Got)
}

// checkPins compares the leaf certificate.
func checkPins(pins []string, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return &PinError{Want: pins, Got: "none"}
	}
	got := pinOf(s.PeerCertificates[0])
	if !slices.Contains(pins, got) {
		return &PinError{Want: pins, Got: got}
	}
	return nil
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ClientTLS is the configuration by which a rule verifies a peer.
func (r *Registry) ClientTLS(c Connection, host string) (*tls.Config, error) {
	e, err := check("connection.ClientTLS", c)
	if err != nil {
		return nil, err
	}
	if e.TLS == TLSNone {
		return nil, fault.New(fault.Invalid, "connection.ClientTLS", "the TLS rule is none")
	}
	return r.entryTLS(e, host), nil
}

// entryTLS is ClientTLS for a checked connection; nil without TLS.
func (r *Registry) entryTLS(e *entry, host string) *tls.Config {
	if e.TLS == TLSNone {
		return nil
	}
	p := peer{rule: e.TLS, name: host, roots: e.ca, pins: e.Pins}
	if e.ServerName != "" {
		p.name = e.ServerName
	}
	if p.roots == nil {
		p.roots = r.roots.pool(r.c.Roots)
	}
	if e.TLS == TLSMutual {
		p.identity = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.c.Signers.ClientCertificate(i.Context(), e.Tenant, e.Name)
		}
	}
	return peerTLS(p)
}

// rootCache keeps the roots of Config parsed while they stay the same.
type rootCache struct {
	mu    sync.Mutex
	pem   []byte
	roots *x509.CertPool
}

func (c *rootCache) pool(read func() []byte) *x509.CertPool {
	if read == nil {
		return nil
	}
	pem := read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil || !bytes.Equal(pem, c.pem) {
		c.roots = x509.NewCertPool()
		c.roots.AppendCertsFromPEM(pem)
		c.pem = bytes.Clone(pem)
	}
	return c.roots
}
