package demo

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
)

// regions are the seven cells.
func regions() []string { return []string{"us", "uk", "de", "ca", "za", "au", "je"} }

// tenantOf is one of the demonstration's customers. Its Microsoft 365 is the
// simulator's tenant of the same place in the list.
type tenantOf struct {
	name, region string
	place        int
}

// domain is what the simulator calls the tenant of that place.
func (t tenantOf) domain() string { return fmt.Sprintf("tenant%d.m365.test", t.place+1) }

// tenants are a dozen customers over all regions.
func tenants() []tenantOf {
	list := []tenantOf{{name: "acme", region: "us"}, {name: "borealis", region: "us"}, {name: "cobalt", region: "us"},
		{name: "dunmore", region: "uk"}, {name: "elbe", region: "de"}, {name: "fjord", region: "de"},
		{name: "garnet", region: "ca"}, {name: "heron", region: "ca"}, {name: "impala", region: "za"},
		{name: "jarrah", region: "au"}, {name: "kelpie", region: "au"}, {name: "lillie", region: "je"}}
	for i := range list {
		list[i].place = i
	}
	return list
}

func tenantNamed(name string) tenantOf {
	for _, t := range tenants() {
		if t.name == name {
			return t
		}
	}
	return tenantOf{}
}

// copyKey names one copy: a message for a recipient.
type copyKey struct {
	id string // Message-ID
	to string
}

// postOffice is a simulated Microsoft 365 with a tenant for each customer.
type postOffice struct {
	sim  *sim.Sim
	list []sim.Listed // by place
}

func openPostOffice(dir string) (*postOffice, error) {
	s, err := sim.Open(sim.Config{Dir: filepath.Join(dir, "m365"), Tenants: len(tenants())})
	if err != nil {
		return nil, err
	}
	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		mail.Close()
		return nil, err
	}
	p := &postOffice{sim: s}
	if err := s.Serve(mail, web); err != nil {
		p.close()
		return nil, err
	}
	p.list = s.List()
	return p, nil
}

func (p *postOffice) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	p.sim.Close(ctx)
}

// of is what a customer's administrator would hand over.
func (p *postOffice) of(t tenantOf) sim.Listed { return p.list[t.place] }

// arrived are all copies in the mailboxes, each with its times, oldest first.
func (p *postOffice) arrived() map[copyKey][]time.Time {
	all := map[copyKey][]time.Time{}
	for _, l := range p.list {
		for _, a := range p.sim.Arrivals(l.EntraTenant) {
			k := copyKey{a.MessageID, a.Recipient}
			all[k] = append(all[k], a.Time)
		}
	}
	return all
}

// counts are copies by region, and in all.
func (p *postOffice) counts() (byRegion map[string]int, all int) {
	byRegion = map[string]int{}
	for _, t := range tenants() {
		n := len(p.sim.Arrivals(p.of(t).EntraTenant))
		byRegion[t.region] += n
		all += n
	}
	return byRegion, all
}

// names are the certificate names by which a customer's mail came, in order.
func (p *postOffice) names(t tenantOf) []string {
	var names []string
	for _, a := range p.sim.Arrivals(p.of(t).EntraTenant) {
		if n := len(names); a.Certificate != "" && (n == 0 || names[n-1] != a.Certificate) {
			names = append(names, a.Certificate)
		}
	}
	return names
}

// connectorNames are the certificate names that a customer's connectors let
// in, asked of the customer's side.
func (p *postOffice) connectorNames(ctx context.Context, tenant string) ([]string, error) {
	m := p.of(tenantNamed(tenant))
	pool := p.sim.Pool()
	c := admin.New(admin.Config{Base: m.Graph, Tenant: m.EntraTenant, Token: func(context.Context) (string, error) { return m.AdminToken, nil },
		HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}, Timeout: 10 * time.Second}})
	list, err := c.Inbounds(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range list {
		if i.Enabled {
			names = append(names, i.TlsSenderCertificateName)
		}
	}
	return names, nil
}
