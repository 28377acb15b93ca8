// Package custodian is a keeper in memory, for suites of rooms that ask one.
//
// It has real keys, certificates and signatures and the moves of the keeper's
// table, and no ledger, no seals and no socket: the real one is internal/keeper.
//
// Callers: tests.
package custodian

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
)

// Keeper keeps one region, "us" of gate.example. It can be away, and a thief
// can be given what it holds.
type Keeper struct {
	mu       sync.Mutex
	Root     *x509.Certificate
	issuer   crypto.Signer
	Life     time.Duration // of certificates
	away     bool
	bindings map[string]act.Binding
	all      []*Held
	secrets  map[string]client.Credential
	used     int // RSA keys

	// Apart: it has a second KEK for standbys, which SetStandbysAway takes
	// away.
	Apart   bool
	awayWhy string
}

// Held is an identity with its key.
type Held struct {
	act.Identity
	Key crypto.Signer
}

// New has a root of its own and nothing else.
func New(t testing.TB) *Keeper {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, err := sign.NewRoot(sign.Key{Signer: key, Use: sign.Issuer}, "us", "gate.example", 365*24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &Keeper{Root: root, issuer: key, Life: 30 * 24 * time.Hour, bindings: map[string]act.Binding{}, secrets: map[string]client.Credential{}}
}

func (c *Keeper) lock() (func(), error) {
	c.mu.Lock()
	if c.away {
		c.mu.Unlock()
		return nil, fault.New(fault.Later, "keeper", "the keeper is away").WithHint("Check that the keeper runs.")
	}
	return c.mu.Unlock, nil
}

// SetAway takes the keeper away, or brings it back.
func (c *Keeper) SetAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// SetStandbysAway takes the KEK of standbys away, or brings it back with "".
func (c *Keeper) SetStandbysAway(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awayWhy = why
}

// BindConnection is of connection.Keeper.
func (c *Keeper) BindConnection(_ context.Context, tenant, connection string, b act.Binding) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if have, ok := c.bindings[tenant+"/"+connection]; ok && have != b {
		return fault.New(fault.Conflict, "keeper", "the connection is bound to another partner")
	}
	c.bindings[tenant+"/"+connection] = b
	return nil
}

// ReleaseConnection is of connection.Keeper.
func (c *Keeper) ReleaseConnection(_ context.Context, tenant, connection string) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	delete(c.bindings, tenant+"/"+connection)
	delete(c.secrets, tenant+"/"+connection)
	for _, h := range c.all {
		if h.Tenant == tenant && h.Connection == connection && h.State != act.Compromised {
			h.State = act.Retired
		}
	}
	return nil
}

// IssueIdentity is of connection.Keeper.
func (c *Keeper) IssueIdentity(_ context.Context, tenant, connection, purpose string, q act.Issue) (act.Identity, error) {
	unlock, err := c.lock()
	if err != nil {
		return act.Identity{}, err
	}
	defer unlock()
	if _, ok := c.bindings[tenant+"/"+connection]; !ok {
		return act.Identity{}, fault.New(fault.Conflict, "keeper", "the connection has no binding")
	}
	name, err := c.named(tenant, connection, purpose, &q)
	if err != nil {
		return act.Identity{}, err
	}
	h, err := c.Make(name, purpose)
	if err != nil {
		return act.Identity{}, err
	}
	if h.Apart = q.Standby && c.Apart; h.Apart && c.awayWhy != "" {
		return act.Identity{}, fault.New(fault.Later, "keeper", c.awayWhy)
	}
	h.Tenant, h.Connection, h.Purpose, h.Epoch, h.Name, h.State = tenant, connection, purpose, q.Epoch, name, act.Issued
	if q.Issuer == "acme" {
		h.State, h.Issuer = act.Wanted, q.Issuer
	}
	c.all = append(c.all, h)
	return h.Identity, nil
}

// named is the name of what is issued next, by the keeper's rules
// (internal/keeper/issue.go); q gets its epoch.
func (c *Keeper) named(tenant, connection, purpose string, q *act.Issue) (string, error) {
	newest, unended := uint64(0), 0
	names, stolen := map[uint64]string{}, map[uint64]bool{}
	for _, h := range c.all {
		if h.Tenant != tenant || h.Connection != connection || h.Purpose != purpose {
			continue
		}
		newest, names[h.Epoch] = max(newest, h.Epoch), h.Name
		stolen[h.Epoch] = stolen[h.Epoch] || h.State == act.Compromised
		if h.State != act.Retired && h.State != act.Compromised {
			unended++
		}
	}
	if unended >= 4 {
		return "", fault.New(fault.Conflict, "keeper", "the connection has four identities that are not retired")
	}
	if q.Epoch == 0 && (q.Renew != 0 || newest != 0) {
		if q.Epoch = q.Renew; q.Epoch == 0 {
			q.Epoch = newest
		}
		if names[q.Epoch] == "" || stolen[q.Epoch] {
			return "", fault.New(fault.Conflict, "keeper", fmt.Sprintf("epoch %d is not renewed", q.Epoch))
		}
		return names[q.Epoch], nil
	}
	if q.Renew != 0 || q.Epoch != 0 && q.Epoch != newest+1 {
		return "", fault.New(fault.Conflict, "keeper", fmt.Sprintf("epoch %d does not follow %d", q.Epoch, newest))
	}
	q.Epoch = newest + 1
	return fmt.Sprintf("e%d.%s.us.gate.example", q.Epoch, strings.ToLower(rand.Text()[:12])), nil
}

// Certify gives the identities that wait for an issuer over a network.
func (c *Keeper) Certify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.all {
		if h.State == act.Wanted {
			h.State = act.Issued
		}
	}
}

func (c *Keeper) find(id string) (*Held, error) {
	for _, h := range c.all {
		if h.ID == id {
			return h, nil
		}
	}
	return nil, fault.New(fault.Missing, "keeper", "there is no identity "+id)
}

// ListIdentities is of connection.Keeper.
func (c *Keeper) ListIdentities(_ context.Context, tenant, connection string) ([]act.Identity, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var list []act.Identity
	for _, h := range c.all {
		if (tenant == "" || h.Tenant == tenant) && (connection == "" || h.Connection == connection) {
			list = append(list, h.Identity)
		}
	}
	slices.SortStableFunc(list, func(a, b act.Identity) int {
		return strings.Compare(fmt.Sprint(a.Tenant, a.Connection, a.Purpose, 1000+a.Epoch, a.ID), fmt.Sprint(b.Tenant, b.Connection, b.Purpose, 1000+b.Epoch, b.ID))
	})
	return list, nil
}

// Identity is of connection.Keeper.
func (c *Keeper) Identity(_ context.Context, id string) (act.Identity, error) {
	unlock, err := c.lock()
	if err != nil {
		return act.Identity{}, err
	}
	defer unlock()
	h, err := c.find(id)
	if err != nil {
		return act.Identity{}, err
	}
	return h.Identity, nil
}

// shown is an identity that may be used; "" is the active one.
func (c *Keeper) shown(tenant, connection, purpose, id string) (*Held, error) {
	for _, h := range c.all {
		if h.Tenant != tenant || h.Connection != connection || h.Purpose != purpose || id != "" && h.ID != id {
			continue
		}
		if h.State == act.Active || id != "" && (h.State == act.Staged || h.State == act.Retiring) {
			return h, nil
		}
		if id != "" {
			return nil, fault.New(fault.Denied, "keeper", "identity "+id+" is "+string(h.State))
		}
	}
	return nil, fault.New(fault.Missing, "keeper", "the connection has no identity for "+purpose)
}

// IdentityCertificate is of connection.Keeper.
func (c *Keeper) IdentityCertificate(_ context.Context, tenant, connection, id string) (*tls.Certificate, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	h, err := c.shown(tenant, connection, "smtp-client", id)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(h.Chain[0])
	return &tls.Certificate{Certificate: h.Chain, Leaf: leaf, PrivateKey: h.Key}, err
}

// ClientCertificate is of client.Signers.
func (c *Keeper) ClientCertificate(ctx context.Context, tenant, connection string) (*tls.Certificate, error) {
	return c.IdentityCertificate(ctx, tenant, connection, "")
}

// ServerCertificate is of client.Signers.
func (c *Keeper) ServerCertificate(string) (*tls.Certificate, error) {
	return nil, fault.New(fault.Missing, "keeper", "no certificate")
}

// AssertClient is of connection.Keeper.
func (c *Keeper) AssertClient(_ context.Context, tenant, connection, identity string, life time.Duration) (string, error) {
	unlock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	h, err := c.shown(tenant, connection, "entra-app", identity)
	if err != nil {
		return "", err
	}
	b := c.bindings[tenant+"/"+connection]
	return sign.AssertClient(sign.Key{Signer: h.Key, Use: sign.EntraApp}, sign.Assertion{
		Authority: b.Authority, Tenant: b.EntraTenant, App: b.App, Life: life, Certificate: sha256.Sum256(h.Chain[0])}, time.Now())
}

// ProvePossession is of connection.Keeper.
func (c *Keeper) ProvePossession(_ context.Context, tenant, connection, identity string, life time.Duration) (string, error) {
	unlock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	h, err := c.shown(tenant, connection, "entra-app", identity)
	if err != nil {
		return "", err
	}
	return sign.ProvePossession(sign.Key{Signer: h.Key, Use: sign.EntraApp}, sign.Proof{
		Object: c.bindings[tenant+"/"+connection].AppObject, Life: life, Certificate: sha256.Sum256(h.Chain[0])}, time.Now())
}

// SetSecret is of connection.Keeper.
func (c *Keeper) SetSecret(_ context.Context, tenant, connection, _ string, s client.Credential) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c.secrets[tenant+"/"+connection] = s
	return nil
}

// RemoveSecret is of connection.Keeper.
func (c *Keeper) RemoveSecret(_ context.Context, tenant, connection, _ string) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	delete(c.secrets, tenant+"/"+connection)
	return nil
}

// OpenCredential is of connection.Keeper.
func (c *Keeper) OpenCredential(_ context.Context, u client.Use) (client.Credential, error) {
	unlock, err := c.lock()
	if err != nil {
		return client.Credential{}, err
	}
	defer unlock()
	s, ok := c.secrets[u.Tenant+"/"+u.Connection]
	if !ok || u.Purpose != "m365-admin" {
		return client.Credential{}, fault.New(fault.Missing, "keeper", "there is no such secret")
	}
	return s, nil
}

// Status is of connection.Keeper.
func (c *Keeper) Status(context.Context) (act.State, error) {
	unlock, err := c.lock()
	if err != nil {
		return act.State{}, err
	}
	defer unlock()
	return act.State{Region: "us", Root: c.Root.Raw, StandbyAway: c.awayWhy}, nil
}

// Secrets is how many secrets are kept.
func (c *Keeper) Secrets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.secrets)
}

// Stolen is what a thief would have who broke into the keeper's memory.
func (c *Keeper) Stolen(t testing.TB, id string) *Held {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	h, err := c.find(id)
	if err != nil {
		t.Fatal(errors.Join(err, errors.New("nothing to steal")))
	}
	return h
}

// Age moves the time of an identity's certificate, as the keeper tells it.
func (c *Keeper) Age(id string, by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, err := c.find(id); err == nil {
		h.NotBefore, h.NotAfter = h.NotBefore.Add(by), h.NotAfter.Add(by)
	}
}
