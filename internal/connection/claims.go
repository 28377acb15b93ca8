package connection

import (
	"net/netip"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// claim is something that only one tenant's clients have.
type claim struct {
	kind  string // claimNetwork, claimCert, or a platform
	value string
}

const (
	claimNetwork = "network"
	claimCert    = "client-cert"
)

// makeClaims lists what a checked connection claims.
func (e *entry) makeClaims() {
	e.claims = nil
	for _, p := range e.networks {
		e.claims = append(e.claims, claim{claimNetwork, p.String()})
	}
	for _, sum := range e.ClientCert {
		e.claims = append(e.claims, claim{claimCert, sum})
	}
	for _, org := range e.Originator {
		e.claims = append(e.claims, claim{e.Platform, org})
	}
}

// checkClaims refuses what another connection has, without saying whose it is.
func (r *Registry) checkClaims(op string, e *entry) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, p := range e.networks {
		if len(r.networks.Overlaps(p)) > 0 {
			return fault.New(fault.Conflict, op, "network "+p.String()+" is already in use, as a whole or in part").
				WithHint("Give only networks that no other connection has.")
		}
	}
	for _, c := range e.claims {
		if r.claims[c] != nil {
			return claimed(op, c)
		}
	}
	return nil
}

func claimed(op string, c claim) error {
	what := "originator " + c.value
	switch c.kind {
	case claimNetwork:
		what = "network " + c.value
	case claimCert:
		what = "client certificate " + c.value
	}
	return fault.New(fault.Conflict, op, what+" is already in use").
		WithHint("It says whose mail a client's is, so it is of one connection only: leave it out, or remove the other one.")
}

// enterClaims makes a connection's claims effective; the caller holds mu.
func (r *Registry) enterClaims(e *entry) {
	for _, p := range e.networks {
		r.networks.Put(p, e)
	}
	for _, c := range e.claims {
		if c.kind != claimNetwork {
			r.claims[c] = e
		}
	}
}

// unclaim ends them; the caller holds mu.
func (r *Registry) unclaim(e *entry) {
	for _, p := range e.networks {
		r.networks.Delete(p)
	}
	for _, c := range e.claims {
		delete(r.claims, c)
	}
}

// ByNetwork says whose mail comes from an address. A connection that is
// disabled keeps its claims and proves nothing.
func (r *Registry) ByNetwork(ip netip.Addr) (tenant, connection string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, found := r.networks.Find(ip)
	if !found || !e.enabled() {
		return "", "", false
	}
	return e.Tenant, e.Name, true
}

// ByClientCert says whose mail comes with a certificate, by the SHA-256 of its
// DER form in lower-case hex.
func (r *Registry) ByClientCert(sha256 string) (tenant, connection string, ok bool) {
	return r.byClaim(claim{claimCert, strings.ToLower(sha256)})
}

// ByOriginator says whose mail a platform's originator names. The caller has
// made sure that it was the platform that spoke.
func (r *Registry) ByOriginator(platform, org string) (tenant, connection string, ok bool) {
	if platform != PlatformExchangeOnline && platform != PlatformGoogle {
		return "", "", false
	}
	return r.byClaim(claim{platform, strings.ToLower(org)})
}

func (r *Registry) byClaim(c claim) (tenant, connection string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.claims[c]
	if e == nil || !e.enabled() {
		return "", "", false
	}
	return e.Tenant, e.Name, true
}
