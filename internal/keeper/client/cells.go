package client

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// CellsConfig is what Cells are made from.
type CellsConfig struct {
	// Regions in order; the first one's keeper has what is of no region.
	Regions []string
	Base    string // base domain: mx.<region>.<base> is a host name of a region
	Keepers map[string]*Remote
	// RegionOf tells a tenant's region, also of one that was removed lately.
	RegionOf func(tenant string) (region string, ok bool)
	Now      func() time.Time
}

// Cells are the keepers of all regions, each asked for what is its own. They
// fulfil Signers and Credentials. They are safe for concurrent use.
type Cells struct {
	c CellsConfig

	mu      sync.Mutex
	certs   map[place]certEntry
	changes uint64 // how often Forget was called
}

// place is a tenant's connection.
type place struct{ tenant, connection string }

// certEntry is the certificate of a connection's active identity, for a while.
type certEntry struct {
	at   time.Time
	cert *tls.Certificate
}

const (
	certFresh = 10 * time.Second
	certsKept = 10_000
)

// NewCells checks that each region has its keeper; kind invalid.
func NewCells(c CellsConfig) (*Cells, error) {
	const op = "client.NewCells"
	if len(c.Regions) == 0 || c.RegionOf == nil {
		return nil, fault.New(fault.Invalid, op, "keepers are of regions, and tenants have one").WithHint("Give regions and RegionOf.")
	}
	for _, r := range c.Regions {
		if c.Keepers[r] == nil {
			return nil, fault.New(fault.Invalid, op, "region "+r+" has no keeper").WithHint("Name its keeper, or let the gateway run one.")
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Cells{c: c, certs: map[place]certEntry{}}, nil
}

// For is the keeper of a tenant's region; kind missing when there is no such
// tenant, or its region is none of this gateway's.
func (c *Cells) For(tenant string) (*Remote, error) {
	const op = "client.For"
	region, ok := c.c.RegionOf(tenant)
	if !ok {
		return nil, fault.New(fault.Missing, op, "there is no tenant "+tenant).WithHint("Look at: tenant list")
	}
	return c.Region(region)
}

// Region is the keeper of a region; kind missing when it is none of ours.
func (c *Cells) Region(region string) (*Remote, error) {
	if r := c.c.Keepers[region]; r != nil {
		return r, nil
	}
	return nil, fault.New(fault.Missing, "client.Region", "region "+region+" has no keeper here").
		WithHint("Add the region to the settings, with its keeper.")
}

// Regions are the regions in order.
func (c *Cells) Regions() []string { return slices.Clone(c.c.Regions) }

// Close closes idle connections.
func (c *Cells) Close() {
	for _, r := range c.c.Keepers {
		r.Close()
	}
}

// HostRegion is the region whose keeper has the certificate of a host name:
// the one in the name, else the first.
func (c *Cells) HostRegion(host string) string {
	name, ok := strings.CutSuffix(strings.ToLower(host), "."+c.c.Base)
	if _, region, two := strings.Cut(name, "."); ok && two && slices.Contains(c.c.Regions, region) {
		return region
	}
	return c.c.Regions[0]
}

// ServerCertificate is of Signers.
func (c *Cells) ServerCertificate(host string) (*tls.Certificate, error) {
	return c.c.Keepers[c.HostRegion(host)].ServerCertificate(host)
}

// ClientCertificate is of Signers. What the keeper said counts for at most ten
// seconds, and no longer than until Forget: many dials share an answer. The
// signature is asked for at each handshake all the same.
func (c *Cells) ClientCertificate(ctx context.Context, tenant, connection string) (*tls.Certificate, error) {
	p, now := place{tenant, connection}, c.c.Now()
	c.mu.Lock()
	e, ok := c.certs[p]
	changes := c.changes
	c.mu.Unlock()
	if age := now.Sub(e.at); ok && age >= 0 && age < certFresh {
		return e.cert, nil
	}
	r, err := c.For(tenant)
	if err != nil {
		return nil, err
	}
	cert, err := r.ClientCertificate(ctx, tenant, connection)
	if err == nil {
		c.keep(p, certEntry{at: now, cert: cert}, changes)
	}
	return cert, err
}

// keep keeps an answer, unless something was forgotten while it was on its
// way: it may be that.
func (c *Cells) keep(p place, e certEntry, changes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != changes {
		return
	}
	if len(c.certs) >= certsKept {
		clear(c.certs)
	}
	c.certs[p] = e
}

// Forget makes a changed identity count at the next dial.
func (c *Cells) Forget(tenant, connection string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	delete(c.certs, place{tenant, connection})
}

// OpenCredential is of Credentials.
func (c *Cells) OpenCredential(ctx context.Context, u Use) (Credential, error) {
	r, err := c.For(u.Tenant)
	if err != nil {
		return Credential{}, err
	}
	return r.OpenCredential(ctx, u)
}

// SetCredential is of Credentials.
func (c *Cells) SetCredential(ctx context.Context, tenant, connection string, s Credential) error {
	r, err := c.For(tenant)
	if err != nil {
		return err
	}
	return r.SetCredential(ctx, tenant, connection, s)
}

// RemoveCredential is of Credentials.
func (c *Cells) RemoveCredential(ctx context.Context, tenant, connection string) error {
	r, err := c.For(tenant)
	if err != nil {
		return err
	}
	return r.RemoveCredential(ctx, tenant, connection)
}

// ListCredentials is of Credentials.
func (c *Cells) ListCredentials(ctx context.Context, tenant string) ([]CredentialInfo, error) {
	r, err := c.For(tenant)
	if err != nil {
		return nil, err
	}
	return r.ListCredentials(ctx, tenant)
}
