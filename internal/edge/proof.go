package edge

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"sort"
	"strings"
	"time"
)

// platform is a mail service of many tenants that delivers to us with a
// certificate of its own.
type platform struct {
	name  string
	names []string // in its certificate
	field string   // says which organisation a message is from
}

func platformsOf(names map[string][]string, fields map[string]string) []platform {
	all := make([]platform, 0, len(names))
	for name, certNames := range names {
		field := fields[name]
		if field == "" {
			field = "X-OriginatorOrg"
		}
		all = append(all, platform{name: name, names: certNames, field: field})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all
}

// proof is what a client's certificate proves.
type proof struct {
	tenant     string
	connection string
	platform   *platform
}

// proven judges the client certificate, once for each handshake. Whatever is
// wrong with it, the session goes on: it is just no proof.
func (s *session) proven() proof {
	if s.conn.TLS == nil || len(s.conn.TLS.PeerCertificates) == 0 {
		return proof{}
	}
	if s.proofOf != s.conn.TLS {
		s.proofOf, s.proof = s.conn.TLS, s.edge.judge(s.conn.TLS)
	}
	return s.proof
}

func (e *Edge) judge(state *tls.ConnectionState) proof {
	leaf, now := state.PeerCertificates[0], e.c.Now()
	why := unfit(leaf, now)
	if why == "" {
		if p := e.platformOf(leaf, state.PeerCertificates[1:], now); p != nil {
			return proof{platform: p}
		}
	}
	digest := sha256.Sum256(leaf.Raw)
	sum := hex.EncodeToString(digest[:])
	name, conn, ok := e.c.Connections.ByClientCert(sum)
	if !ok {
		return proof{}
	}
	if why != "" {
		e.unprove(name, conn, sum, why)
		return proof{}
	}
	e.unprovens.prove(sum)
	return proof{tenant: name, connection: conn}
}

// forClients asks for the clientAuth purpose by name (RFC 5280 4.2.1.12). A
// certificate without any purpose would do for the standard library, but it
// may have been made for anything.
func forClients(c *x509.Certificate) bool {
	for _, use := range c.ExtKeyUsage {
		if use == x509.ExtKeyUsageClientAuth || use == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// platformOf finds the platform whose name the certificate bears and whose
// chain verifies.
func (e *Edge) platformOf(leaf *x509.Certificate, chain []*x509.Certificate, now time.Time) *platform {
	for i := range e.platforms {
		p := &e.platforms[i]
		if p.named(leaf) && e.verified(leaf, chain, now) {
			return p
		}
	}
	return nil
}

// named compares the names of the certificate, in SAN and subject: the
// platform's own name or one below it.
func (p *platform) named(leaf *x509.Certificate) bool {
	for _, want := range p.names {
		if below(leaf.Subject.CommonName, want) {
			return true
		}
		for _, name := range leaf.DNSNames {
			if below(name, want) {
				return true
			}
		}
	}
	return false
}

func below(name, want string) bool {
	name = strings.ToLower(strings.TrimPrefix(name, "*."))
	want = strings.ToLower(want)
	return name == want || strings.HasSuffix(name, "."+want)
}

func (e *Edge) verified(leaf *x509.Certificate, chain []*x509.Certificate, now time.Time) bool {
	between := x509.NewCertPool()
	for _, c := range chain {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         e.c.PlatformRoots, // nil: the system's
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}
