package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// openAPI makes the HTTP server and binds its address.
func (g *gateway) openAPI(ctx context.Context) error {
	scratch := filepath.Join(g.dir, "scratch") // backups on their way to a client
	if err := os.RemoveAll(scratch); err != nil {
		return fault.Wrap(fault.Invalid, "api", err)
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "api", err)
	}
	handler := api.New(api.Config{
		Tenants: g.tenants, Connections: g.connections, Directory: g.directory, Queue: g.queue, Trace: g.trace, Resolver: g.resolver,
		Hostname: g.cfg.hostname, SetCredential: g.connections.SetCredential,
		Edge: g.edge.Stats, Store: g.storeStats, Regions: g.regionStats, Certificates: g.certificates,
		Ready: g.store.Ping, Checks: g.checks(), Backup: g.store.Backup, Verify: g.verifyStore, Scratch: scratch,
		Books:       booksOf(g.keepers, g.cfg.Regions),
		OpenMetrics: !g.cfg.API.MetricsTokens, Version: version, Log: g.log, Now: time.Now,
	})
	g.http = api.NewServer(handler, g.log)
	var lc net.ListenConfig
	var err error
	if g.api, err = lc.Listen(ctx, "tcp", g.cfg.API.Address); err != nil {
		return fault.New(fault.Conflict, "", "cannot listen on "+g.cfg.API.Address+": "+err.Error()).
			WithHint("Stop what uses the port, or change [api] address in " + configName + ".")
	}
	if g.cfg.API.Certificate == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(g.cfg.API.Certificate, g.cfg.API.Key)
	if err != nil {
		return fault.Wrap(fault.Invalid, "api certificate", err)
	}
	g.api = tls.NewListener(g.api, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
	return nil
}

func (g *gateway) storeStats() api.StoreStats {
	s := g.store.Stats()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return api.StoreStats{Outbox: g.outboxWaiting(ctx), Commits: s.Commits, Changes: s.Changes, Retried: s.Retried, Waiting: s.Waiting, WALBytes: s.WALBytes, FreeBytes: s.FreeBytes}
}

// regionStats lists the regions of the settings, and those that mail is still
// of but the settings are not.
func (g *gateway) regionStats() []api.RegionStats {
	delivered := g.queue.Stats().Regions
	var out []api.RegionStats
	for _, region := range g.cfg.Regions {
		out = append(out, api.RegionStats{Region: region, Delivered: delivered[region]})
		delete(delivered, region)
	}
	for _, region := range slices.Sorted(maps.Keys(delivered)) {
		out = append(out, api.RegionStats{Region: region, Delivered: delivered[region]})
	}
	return out
}

func (g *gateway) certificates() []api.Certificate {
	var out []api.Certificate
	for _, c := range g.hostCertificates() {
		if c.err == nil {
			out = append(out, api.Certificate{Host: c.host, NotAfter: c.cert.Leaf.NotAfter})
		}
	}
	return out
}

func (g *gateway) verifyStore(ctx context.Context) ([]api.Finding, error) {
	problems, err := g.store.Verify(ctx)
	var out []api.Finding
	for _, p := range problems {
		out = append(out, api.Finding(p))
	}
	return out, err
}

// checks are what doctor looks at.
func (g *gateway) checks() []api.Check {
	return []api.Check{
		{Name: "store", Run: g.checkStore},
		{Name: "disk", Run: g.checkDisk},
		{Name: "certificates", Run: g.checkCertificates},
		{Name: "client certificates", Run: g.checkClients},
		{Name: "routes", Run: g.checkRoutes},
		{Name: "connections", Run: g.checkConnections},
		{Name: "recipients", Run: g.checkRecipients},
		{Name: "destinations", Run: g.checkDestinations},
		{Name: "stop switches", Run: g.checkStops},
		{Name: "egress", Run: g.checkEgress},
		{Name: "custody", Run: g.checkCustody},
		{Name: "keepers", Run: g.checkKeepers},
		{Name: "identities", Run: g.checkIdentities},
		{Name: "ledger", Run: g.checkLedger},
		{Name: "audit events", Run: g.checkOutbox},
		{Name: "api", Run: g.checkAPI},
	}
}

func (g *gateway) checkStore(ctx context.Context) (bool, string, string) {
	if err := g.store.Ping(ctx); err != nil {
		return false, "cannot commit: " + err.Error(), "Look at the disk or the database server; mail is answered with 4xx until it is back."
	}
	return true, "commits (" + storeName(g.cfg.Store) + ")", ""
}

func (g *gateway) checkDisk(context.Context) (bool, string, string) {
	if err := g.store.Room(100 << 20); err != nil {
		return false, fault.Sentence(err), "Free disk space: mail is refused with 452 until there is room."
	}
	return true, bytesFree(g.store.Stats().FreeBytes) + " free", ""
}

// certificateSoon is when a certificate that is about to end is a finding.
const certificateSoon = 21 * 24 * time.Hour

func (g *gateway) checkCertificates(context.Context) (bool, string, string) {
	var broken, ending, selfSigned []string
	for _, c := range g.hostCertificates() {
		switch {
		case c.err != nil:
			broken = append(broken, c.host+": "+fault.Sentence(c.err))
		case time.Until(c.cert.Leaf.NotAfter) < certificateSoon:
			ending = append(ending, c.host+" ends "+c.cert.Leaf.NotAfter.Format(time.DateOnly))
		case isSelfSigned(c.cert.Leaf):
			selfSigned = append(selfSigned, c.host)
		}
	}
	fix := "Put the certificate and key of the host into import/<host>.crt and .key of the keeper's folder (keeper/<region>/ here, when serve runs it); it takes them over by itself."
	switch {
	case len(broken) > 0:
		return false, "cannot be used: " + some(broken), fix
	case len(ending) > 0:
		return false, some(ending), fix
	case len(selfSigned) > 0:
		return false, "self-signed: " + some(selfSigned), fix + " Senders that verify (MTA-STS, DANE) refuse self-signed ones."
	}
	return true, "none ends within three weeks", ""
}

// checkClients says why mail of a tenant is refused although its client holds
// the certificate that the tenant registered.
func (g *gateway) checkClients(context.Context) (bool, string, string) {
	var bad []string
	for _, u := range g.edge.Unproven() {
		bad = append(bad, fmt.Sprintf("%s of %s (%s…): %s; last %s", u.Connection, u.Tenant, u.SHA256[:16], u.Why, u.Last.UTC().Format(time.RFC3339)))
	}
	if len(bad) > 0 {
		return false, "registered, but no proof: " + some(bad),
			"Have the client use a certificate in date, with clientAuth among its extended key usages, and add the connection anew with the --client-cert-sha256 of that one."
	}
	return true, "none that is registered was held in vain", ""
}

// eachTenant visits every tenant.
func (g *gateway) eachTenant(visit func(tenant.Tenant)) {
	for after := ""; ; {
		page := g.tenants.Tenants(after, 1000)
		for _, t := range page {
			visit(t)
			after = t.Name
		}
		if len(page) == 0 {
			return
		}
	}
}

func (g *gateway) checkRoutes(context.Context) (bool, string, string) {
	var without []string
	g.eachTenant(func(t tenant.Tenant) {
		for _, d := range g.tenants.Domains(t.Name) {
			if _, err := g.connections.Inbound(t.Name, d.Name); err != nil {
				without = append(without, d.Name)
			}
		}
	})
	if len(without) > 0 {
		return false, "domains without a connection: " + some(without), "Add one: sallyport connection add TENANT mailbox --kind smtp --host HOST"
	}
	return true, "every domain has one", ""
}

func (g *gateway) checkConnections(context.Context) (bool, string, string) {
	return failing(g.connections.List(""))
}

// failing says which connections in use did not work when they were last tried.
func failing(all []connection.Connection) (bool, string, string) {
	var bad []string
	for _, c := range all {
		if c.State != connection.Enabled || c.Health.OK == nil || *c.Health.OK {
			continue
		}
		why := "no reason is known"
		if c.Health.Reason != nil {
			why = *c.Health.Reason
		}
		bad = append(bad, c.Name+" of "+c.Tenant+": "+why)
	}
	if len(bad) > 0 {
		return false, "failing: " + strings.Join(bad[:min(few, len(bad))], "; ") + andMore(len(bad)),
			"Have each tried, which says what is wrong at which step and what to do: sallyport connection test TENANT NAME"
	}
	return true, "none that was tried is failing", ""
}

func (g *gateway) checkRecipients(context.Context) (bool, string, string) {
	var open, all []string
	g.eachTenant(func(t tenant.Tenant) {
		for _, d := range g.tenants.Domains(t.Name) {
			if d.Recipients == "none" {
				open = append(open, d.Name)
			}
			if d.Recipients == "probe" && g.directory.AcceptsAll(t.Name, d.Name) {
				all = append(all, d.Name)
			}
		}
	})
	switch {
	case len(open) > 0:
		return false, "any address is accepted for: " + some(open),
			"Mail for unknown addresses ends as failed at the tenant's server: use --recipients list or probe."
	case len(all) > 0:
		return false, "the probe says yes to every address of: " + some(all), "That server accepts everything: use --recipients list."
	}
	return true, "every domain knows its recipients", ""
}

func (g *gateway) checkDestinations(ctx context.Context) (bool, string, string) {
	all, err := g.queue.Destinations(ctx, "")
	if err != nil {
		return false, err.Error(), "See the store's check."
	}
	var bad []string
	for _, d := range all {
		if d.State != "up" {
			bad = append(bad, d.Key+" is "+d.State+" ("+d.Reason+")")
		}
	}
	if len(bad) > 0 {
		return false, some(bad), "Repair the far end, then: sallyport queue resume DESTINATION"
	}
	return true, "none is down or stopped", ""
}

func (g *gateway) checkStops(context.Context) (bool, string, string) {
	var on []string
	for _, s := range g.queue.Stops() {
		on = append(on, strings.TrimSpace(s.Scope+" "+s.Value))
	}
	if len(on) > 0 {
		return false, "mail is kept back by: " + some(on), "When the reason is gone: sallyport stop lift SCOPE VALUE"
	}
	return true, "none is set", ""
}

func (g *gateway) checkEgress(ctx context.Context) (bool, string, string) {
	if found := g.deliverer.CheckPools(ctx, g.resolver); len(found) > 0 {
		return false, some(found), "Publish matching PTR and address records: many receivers refuse senders without them."
	}
	return true, "the pools' names and addresses agree", ""
}

func (g *gateway) checkAPI(context.Context) (bool, string, string) {
	host, _, err := net.SplitHostPort(g.cfg.API.Address)
	if ip := net.ParseIP(host); err == nil && g.cfg.API.Certificate == "" && (ip == nil || !ip.IsLoopback()) {
		return false, "tokens travel in clear to " + g.cfg.API.Address, "Listen on loopback, or set certificate and key in [api]."
	}
	return true, g.cfg.API.url(), ""
}

// some lists the first few of many.
func some(all []string) string {
	return strings.Join(all[:min(few, len(all))], ", ") + andMore(len(all))
}

// few is how many of a kind a line of doctor names.
const few = 5

// andMore counts those of n that are not named.
func andMore(n int) string {
	if n <= few {
		return ""
	}
	return " and " + plural(n-few)
}
