package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// custody is the keepers of the regions, and what lies in files of a gateway
// from before there was a keeper until it has been brought there.
type custody struct {
	*client.Cells
	files    *client.Files
	children map[string]*child
	home     *os.File // of the children, when the paths of their sockets are long
}

// openCustody makes the clients of the keepers, and runs those that have none
// of their own. None is waited for: what needs one waits by itself.
func (g *gateway) openCustody(context.Context) (err error) {
	files := client.ExistingFiles(g.dir)
	if n, err := files.Sweep(); err != nil || n > 0 {
		g.log.Warn("custody was swept of files that a kill had left half written", "files", n, "error", err)
	}
	c := &custody{files: files, children: map[string]*child{}}
	g.custody = c
	keepers := map[string]*client.Remote{}
	for _, region := range g.cfg.Regions {
		if keepers[region], err = g.openKeeper(c, region); err != nil {
			return err
		}
	}
	c.Cells, err = client.NewCells(client.CellsConfig{Regions: g.cfg.Regions, Base: g.cfg.BaseDomain, Keepers: keepers, RegionOf: g.tenants.RegionOf, Now: time.Now})
	if err != nil {
		return err
	}
	g.keepers, g.signers = c.Cells, c
	g.closers = append(g.closers, func(context.Context) error { c.close(); return nil })
	if err := g.moveServerPairs(); err != nil {
		return err
	}
	g.wakeKeepers()
	return nil
}

// openKeeper is the client of a region's keeper: the one in the settings, or a
// child.
func (g *gateway) openKeeper(c *custody, region string) (*client.Remote, error) {
	for _, k := range g.cfg.Keepers {
		if k.Region == region {
			return k.remote(g.endSessions)
		}
	}
	home := filepath.Join(g.dir, "keeper")
	one, err := newChild(region, filepath.Join(home, region), g.cfg.hostsOf(region), g.cfg.BaseDomain, g.log)
	if err != nil {
		return nil, err
	}
	c.children[region] = one
	socket := filepath.Join(one.dir, socketName)
	if len(socket) > longestSocket { // through the folder above, since the child's own may not be there yet
		if c.home == nil {
			if err := os.MkdirAll(home, 0o700); err != nil {
				return nil, fault.Wrap(fault.Invalid, "keeper", err)
			}
			if c.home, err = os.Open(home); err != nil {
				return nil, fault.Wrap(fault.Invalid, "keeper", err)
			}
		}
		socket = fmt.Sprintf("/proc/self/fd/%d/%s/%s", c.home.Fd(), region, socketName)
	}
	return client.NewRemote(client.RemoteConfig{Region: region, Socket: socket, Wake: one.wake, HostEnded: g.endSessions})
}

// wakeKeepers starts the children that will be asked soon.
func (g *gateway) wakeKeepers() {
	soon := map[string]bool{g.cfg.Regions[0]: true}
	for _, l := range g.cfg.Listeners {
		soon[l.Region] = true
	}
	g.eachTenant(func(t tenant.Tenant) { soon[t.Region] = true })
	for region, one := range g.custody.children {
		if soon[region] {
			one.begin()
		}
	}
}

// close ends the children and the clients.
func (c *custody) close() {
	var all sync.WaitGroup
	for _, one := range c.children {
		all.Go(one.stop)
	}
	all.Wait()
	c.Cells.Close()
	if c.home != nil {
		c.home.Close()
	}
}

// asleep reports a child that nobody has needed yet.
func (c *custody) asleep(region string) bool {
	one := c.children[region]
	return one != nil && !one.hasBegun()
}

// ClientCertificate is of client.Signers. An identity that somebody put into
// identities/ by hand is shown as before where the keeper has none.
func (c *custody) ClientCertificate(ctx context.Context, tenant, connection string) (*tls.Certificate, error) {
	cert, err := c.Cells.ClientCertificate(ctx, tenant, connection)
	if fault.Is(err, fault.Missing) {
		if own, e := c.files.ClientCertificate(ctx, tenant, connection); e == nil {
			return own, nil
		}
	}
	return cert, err
}

// OpenCredential is of client.Credentials: a password that is still on its way
// into the keeper is read where it lies.
func (c *custody) OpenCredential(ctx context.Context, u client.Use) (client.Credential, error) {
	got, err := c.Cells.OpenCredential(ctx, u)
	if fault.Is(err, fault.Missing) {
		if old, e := c.files.OpenCredential(ctx, u); !fault.Is(e, fault.Missing) {
			return old, e
		}
	}
	return got, err
}

// SetCredential is of client.Credentials.
func (c *custody) SetCredential(ctx context.Context, tenant, connection string, s client.Credential) error {
	if err := c.Cells.SetCredential(ctx, tenant, connection, s); err != nil {
		return err
	}
	return ignoreMissing(c.files.RemoveCredential(ctx, tenant, connection))
}

// RemoveCredential is of client.Credentials.
func (c *custody) RemoveCredential(ctx context.Context, tenant, connection string) error {
	old := c.files.RemoveCredential(ctx, tenant, connection)
	err := c.Cells.RemoveCredential(ctx, tenant, connection)
	if fault.Is(err, fault.Missing) {
		return old
	}
	return err
}

func ignoreMissing(err error) error {
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}

// keeperOf is connection's way to a tenant's keeper.
func (g *gateway) keeperOf(tenant string) (connection.Keeper, error) { return g.custody.For(tenant) }

// moveServerPairs hands what is in tls/ to the children, which take it over
// when they start. A keeper that is not a child has its folder elsewhere:
// there it is the operator who does it, and doctor says so.
func (g *gateway) moveServerPairs() error {
	for _, info := range g.custody.files.ServerCertificates() {
		region := g.custody.HostRegion(info.Host)
		one := g.custody.children[region]
		if one == nil || !slices.Contains(g.cfg.hostsOf(region), info.Host) {
			continue
		}
		if err := one.makeFolder(); err != nil {
			return err
		}
		to := filepath.Join(one.dir, importDir)
		if err := os.MkdirAll(to, 0o700); err != nil {
			return fault.Wrap(fault.Invalid, "import", err)
		}
		// The key last: a certificate without one is not taken over.
		for _, ext := range []string{".crt", ".key"} {
			from := filepath.Join(g.dir, "tls", info.Host+ext)
			err := os.Rename(from, filepath.Join(to, info.Host+ext))
			if err != nil && !os.IsNotExist(err) {
				return fault.Wrap(fault.Invalid, "import", err)
			}
		}
		g.log.Info("a server certificate and its key are handed to the keeper", "host", info.Host, "region", region)
	}
	return nil
}

// importDir is where a keeper looks for pairs to take over, below its folder.
const importDir = "import"

// bringSecrets brings the passwords in secrets/ into the keepers, each once,
// and tries again as long as a keeper is away.
func (g *gateway) bringSecrets(ctx context.Context) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		left := g.bringSecretsOnce(ctx)
		if left == 0 {
			return nil
		}
		g.log.Warn("passwords are still files, not in the keeper", "passwords", left, "again_in", wait.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (g *gateway) bringSecretsOnce(ctx context.Context) (left int) {
	g.eachTenant(func(t tenant.Tenant) {
		if ctx.Err() != nil {
			return
		}
		list, err := g.custody.files.ListCredentials(ctx, t.Name)
		if err != nil {
			left++
			return
		}
		for _, info := range list {
			if err := g.bringSecret(ctx, t.Name, info.Connection); err != nil {
				g.log.Warn("a password could not be brought into the keeper", "tenant", t.Name, "connection", info.Connection, "error", err)
				left++
			}
		}
	})
	return left
}

// bringSecret brings one. The connection's own lock is not needed: who sets a
// new one meanwhile writes it into the keeper, and that one stays.
func (g *gateway) bringSecret(ctx context.Context, tenant, name string) error {
	c, ok := g.connections.Get(tenant, name)
	if !ok {
		return g.custody.files.RemoveCredential(ctx, tenant, name) // of a connection that is gone
	}
	r, err := g.custody.For(tenant)
	if err != nil {
		return err
	}
	have, err := r.ListCredentials(ctx, tenant)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(have, func(i client.CredentialInfo) bool { return i.Connection == name }) {
		secret, err := g.custody.files.OpenCredential(ctx, client.Use{Tenant: tenant, Connection: name, Purpose: "migration"})
		if err != nil {
			return err
		}
		if err := g.connections.Bind(ctx, c.Tenant, c.Name); err != nil {
			return err
		}
		if err := r.SetCredential(ctx, tenant, name, secret); err != nil {
			return err
		}
		g.log.Info("a password went from a file into the keeper", "tenant", tenant, "connection", name)
	}
	return ignoreMissing(g.custody.files.RemoveCredential(ctx, tenant, name))
}

// hostCertificate is one of our host names' certificate in use.
type hostCertificate struct {
	host string
	cert *tls.Certificate
	err  error
}

// hostCertificates are those of the regions whose keepers are at work.
func (g *gateway) hostCertificates() []hostCertificate {
	var all []hostCertificate
	for _, host := range g.cfg.hostnames() {
		if g.custody.asleep(g.custody.HostRegion(host)) {
			continue
		}
		cert, err := g.custody.ServerCertificate(host)
		all = append(all, hostCertificate{host, cert, err})
	}
	return all
}

// keeperStates asks every keeper at work how it is; one that does not answer
// has an error.
func (g *gateway) keeperStates(ctx context.Context) []keeperState {
	all := make([]keeperState, 0, len(g.cfg.Regions))
	for _, region := range g.cfg.Regions {
		s := keeperState{region: region, asleep: g.custody.asleep(region)}
		_, s.child = g.custody.children[region]
		all = append(all, s)
	}
	var asked sync.WaitGroup
	for i := range all {
		s := &all[i]
		if s.asleep {
			continue
		}
		asked.Go(func() {
			r, err := g.custody.Region(s.region)
			if err == nil {
				s.state, err = r.Status(ctx)
			}
			s.err = err
		})
	}
	asked.Wait()
	return all
}

// keeperState is how a region's keeper is.
type keeperState struct {
	region string
	child  bool
	asleep bool // a child that nobody has needed yet
	state  act.State
	err    error
}
