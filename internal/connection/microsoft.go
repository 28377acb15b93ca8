package connection

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/entra"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

const (
	graphScope = "https://graph.microsoft.com/.default"
	webTime    = 30 * time.Second // one call of Graph or the admin API
)

// microsoft is a customer's Microsoft 365 seen from one connection.
type microsoft struct {
	e    *entry
	k    Keeper
	now  func() time.Time
	http *http.Client
	// found is told of the connector that lets us in, by its name there.
	found func(ctx context.Context, name string)
}

func (r *Registry) microsoft(op string, e *entry) (*microsoft, error) {
	k, err := r.custody(op, e.Tenant)
	if err != nil {
		return nil, err
	}
	return r.microsoftOf(e, k), nil
}

func (r *Registry) microsoftOf(e *entry, k Keeper) *microsoft {
	return &microsoft{e: e, k: k, now: r.c.Now, http: r.web(e), found: func(ctx context.Context, name string) { r.noteConnector(ctx, e, name) }}
}

// web trusts the system's roots and, where the connection has a CA of its own
// (the simulator's), that one. Nothing is kept open: calls are rare.
func (r *Registry) web(e *entry) *http.Client {
	roots := r.roots.pool(r.c.Roots)
	if e.CA != "" {
		if roots != nil {
			roots = roots.Clone()
		} else if system, err := x509.SystemCertPool(); err == nil {
			roots = system
		} else {
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM([]byte(e.CA))
	}
	return &http.Client{
		Timeout:       webTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: webTime,
		},
	}
}

// asApp is Graph with a token of our own application, asked for with one
// identity's key; "" is the active one's.
func (m *microsoft) asApp(identity string) (*graph.Client, error) {
	login, err := entra.New(entra.Config{Base: m.e.Login, Tenant: m.e.EntraTenant, ClientID: m.e.AppID, HTTP: m.http,
		Assert: func(ctx context.Context, _ string, life time.Duration) (string, error) {
			return m.k.AssertClient(ctx, m.e.Tenant, m.e.Name, identity, life)
		}})
	if err != nil {
		return nil, err
	}
	return graph.New(graph.Config{Base: m.e.Graph, HTTP: m.http, Now: m.now, Token: func(ctx context.Context) (string, error) {
		t, err := login.Token(ctx, graphScope)
		return t.Value, err
	}}), nil
}

// proof has the keeper prove that it holds an identity's key.
func (m *microsoft) proof(identity string) graph.Proof {
	return func(ctx context.Context, _ string) (string, error) {
		return m.k.ProvePossession(ctx, m.e.Tenant, m.e.Name, identity, 5*time.Minute)
	}
}

// grant is what the customer's administrator lets us do.
type grant struct {
	*microsoft
	graph *graph.Client
	admin *admin.Client // nil where there is no admin API that we know
	// ours are the certificate names of a connection that was set up before: a
	// connector that names none of them is another gateway's. nil in the set-up,
	// which takes such a one over.
	ours []string
}

// granted is the administrator's rights: by the token given, or by the one in
// custody. Kind missing when there is none.
func (m *microsoft) granted(ctx context.Context, token string) (*grant, error) {
	if token == "" {
		c, err := m.k.OpenCredential(ctx, client.Use{Tenant: m.e.Tenant, Connection: m.e.Name, Purpose: purposeAdmin})
		if err != nil {
			return nil, err
		}
		token = c.Password
	}
	give := func(context.Context) (string, error) { return token, nil }
	g := &grant{microsoft: m, graph: graph.New(graph.Config{Base: m.e.Graph, HTTP: m.http, Now: m.now, Token: give})}
	if !isMicrosoft(m.e.Graph) {
		g.admin = admin.New(admin.Config{Base: m.e.Graph, Tenant: m.e.EntraTenant, Token: give, HTTP: m.http, Now: m.now})
	}
	return g, nil
}

// clouds are Graph's addresses and the login service of each. Microsoft has no
// published interface for connectors at any of them.
func clouds() map[string]string {
	return map[string]string{
		"https://graph.microsoft.com":             "https://login.microsoftonline.com",
		"https://graph.microsoft.us":              "https://login.microsoftonline.us",
		"https://dod-graph.microsoft.us":          "https://login.microsoftonline.us",
		"https://microsoftgraph.chinacloudapi.cn": "https://login.partner.microsoftonline.cn",
	}
}

func isMicrosoft(graphBase string) bool { return clouds()[graphBase] != "" }

// findApp is the customer's app registration for us: the one of that id, the
// only one there is, or the one that is called Sallyport.
func findApp(ctx context.Context, g *graph.Client, appID string) (graph.Application, error) {
	const op = "connection.FindApp"
	if appID != "" {
		return g.Application(ctx, appID)
	}
	all, err := g.Applications(ctx)
	if err != nil {
		return graph.Application{}, err
	}
	named := slices.DeleteFunc(slices.Clone(all), func(a graph.Application) bool { return !strings.EqualFold(a.DisplayName, "Sallyport") })
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(named) == 1:
		return named[0], nil
	}
	return graph.Application{}, fault.New(fault.Invalid, op, "the Entra tenant has several app registrations, or none, and it is not clear which is ours").
		WithHint("Name it with --app-id, or call it Sallyport.")
}

// key is a certificate as Graph registers it.
func key(der []byte) graph.Key {
	return graph.Key{Type: "AsymmetricX509Cert", Usage: "Verify", Key: der}
}

// registered finds a certificate in an application's list.
func registered(app graph.Application, der []byte) *graph.Key {
	for i := range app.Keys {
		if bytes.Equal(app.Keys[i].Key, der) {
			return &app.Keys[i]
		}
	}
	return nil
}

// keepKeys replaces the list by the administrator's right: exactly these.
func (g *grant) keepKeys(ctx context.Context, ders ...[]byte) error {
	app, err := g.graph.Application(ctx, g.e.AppID)
	if err != nil {
		return err
	}
	same := len(app.Keys) == len(ders)
	var keys []graph.Key
	for _, der := range ders {
		if k := registered(app, der); k != nil {
			keys = append(keys, graph.Key{KeyID: k.KeyID, Type: k.Type, Usage: k.Usage})
			continue
		}
		same = false
		keys = append(keys, key(der))
	}
	if same {
		return nil
	}
	return g.graph.SetKeys(ctx, app.ID, keys)
}

// addKey registers a certificate on the strength of an identity whose
// certificate is registered; one that is there already stays.
func (m *microsoft) addKey(ctx context.Context, by string, der []byte) error {
	g, err := m.asApp(by)
	if err != nil {
		return err
	}
	app, err := g.Application(ctx, m.e.AppID)
	if err != nil || registered(app, der) != nil {
		return err
	}
	_, err = g.AddKey(ctx, app.ID, der, m.proof(by))
	return err
}

// dropKey takes a certificate off the list on the strength of another one.
func (m *microsoft) dropKey(ctx context.Context, by string, der []byte) error {
	g, err := m.asApp(by)
	if err != nil {
		return err
	}
	app, err := g.Application(ctx, m.e.AppID)
	if err != nil {
		return err
	}
	k := registered(app, der)
	if k == nil {
		return nil
	}
	return g.RemoveKey(ctx, app.ID, k.KeyID, m.proof(by))
}

// signsIn gets a token with an identity's key, and has Graph answer to it.
func (m *microsoft) signsIn(ctx context.Context, identity string) error {
	g, err := m.asApp(identity)
	if err == nil {
		_, err = g.Application(ctx, m.e.AppID)
	}
	return err
}

// onlyKey takes everything but one certificate off the list, on the strength of
// that one's key.
func (m *microsoft) onlyKey(ctx context.Context, by string, der []byte) error {
	g, err := m.asApp(by)
	if err != nil {
		return err
	}
	app, err := g.Application(ctx, m.e.AppID)
	if err != nil {
		return err
	}
	for _, k := range app.Keys {
		if bytes.Equal(k.Key, der) {
			continue
		}
		if err := g.RemoveKey(ctx, app.ID, k.KeyID, m.proof(by)); err != nil && !fault.Is(err, fault.Missing) {
			return err
		}
	}
	return nil
}
