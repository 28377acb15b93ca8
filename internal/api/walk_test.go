package api_test

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// target is how the walk calls an operation on acme's things: path parameters
// in their order, what it adds to the query, and the body.
type target struct {
	params []string
	query  string
	body   any
}

type object = map[string]any

// world is two tenants with one of everything, and what acme's things are
// called.
type world struct {
	*rig
	message, item, token string
	entry                string // index in the ledger
	identity             string
}

func newWorld(t *testing.T) *world {
	books := newShelf(t, "us")
	w := &world{rig: newRig(t, func(c *api.Config) { c.Books = books })}
	w.tenant("acme")
	w.tenant("bolt")
	w.message, w.item = w.put("acme", queue.Held)
	w.put("bolt", queue.Held)
	for _, name := range []string{"acme", "bolt"} {
		_, _, err := w.tenants.AddSubmitter(t.Context(), "system", name, name+"-printer")
		must(t, err)
	}
	for _, name := range []string{"acme", "bolt"} {
		_, err := w.connections.Add(t.Context(), "system", connection.Connection{
			Tenant: name, Name: name + "-partner", Direction: "outbound", Host: "127.0.0.1", Port: 1, TLS: "mutual"})
		must(t, err)
	}
	shown, err := w.connections.Identities(t.Context(), "acme")
	must(t, err)
	w.identity = shown[0].ID
	tok, _, err := w.tenants.AddToken(t.Context(), "system", tenant.Token{Role: tenant.Read, Tenant: "acme"})
	must(t, err)
	w.token = tok.ID
	books.enter(t, "us", slices.Repeat([]ledger.Entry{of("bolt")}, 970)...) // so that the index is like nothing else
	w.entry = fmt.Sprint(books.enter(t, "us", of("acme")))
	must(t, w.queue.SetStop(t.Context(), queue.Stop{Scope: "tenant", Value: "acme", Reason: "acme is loud"}))
	return w
}

// targets has every operation; the walk fails on one that is missing here.
func (w *world) targets() map[string]target {
	const t = "/v1/tenants/{tenant}"
	acme := []string{"acme"}
	domain, box, user, ann := []string{"acme", "acme.test"}, []string{"acme", "acme-mailbox"}, []string{"acme", "acme-printer"}, []string{"acme", "ann@acme.test"}
	message, item, identity, entry := []string{w.message}, []string{w.item}, []string{w.identity}, []string{w.entry}
	partner := []string{"acme", "acme-partner"}
	act := object{"tenant": "acme", "state": "held"}
	return map[string]target{
		"GET /healthz":                                   {},
		"GET /readyz":                                    {},
		"GET /metrics":                                   {},
		"GET /v1/tenants":                                {},
		"POST /v1/tenants":                               {body: object{"name": "new", "region": "us"}},
		"GET " + t:                                       {params: acme},
		"PATCH " + t:                                     {params: acme, body: object{"expiry_hours": 1}},
		"DELETE " + t:                                    {params: acme},
		"GET " + t + "/domains":                          {params: acme},
		"POST " + t + "/domains":                         {params: acme, body: object{"name": "stolen.test"}},
		"GET " + t + "/domains/{domain}":                 {params: domain},
		"DELETE " + t + "/domains/{domain}":              {params: domain},
		"GET " + t + "/directory":                        {params: acme},
		"POST " + t + "/directory":                       {params: acme, body: object{"address": "eve@acme.test"}},
		"POST " + t + "/directory/import":                {params: acme, body: object{"addresses": []string{"eve@acme.test"}}},
		"DELETE " + t + "/directory/{address}":           {params: ann},
		"GET " + t + "/connections":                      {params: acme},
		"POST " + t + "/connections":                     {params: acme, body: object{"name": "evil", "kind": "smtp", "direction": "outbound", "host": "127.0.0.1", "tls": "none"}},
		"GET " + t + "/connections/{name}":               {params: box},
		"DELETE " + t + "/connections/{name}":            {params: box},
		"POST " + t + "/connections/{name}/test":         {params: box, body: object{"rcpt": "ann@acme.test"}},
		"POST " + t + "/connections/{name}/enable":       {params: box},
		"POST " + t + "/connections/{name}/disable":      {params: box},
		"PUT " + t + "/connections/{name}/credential":    {params: box, body: object{"secret": "hunter2"}},
		"POST " + t + "/connections/{name}/setup":        {params: partner, body: object{"admin_token": "hunter2"}},
		"GET " + t + "/connections/{name}/replace":       {params: partner},
		"POST " + t + "/connections/{name}/replace":      {params: partner},
		"POST " + t + "/connections/{name}/replace/undo": {params: partner},
		"GET /v1/identities":                             {query: "?tenant=acme"},
		"GET /v1/identities/{id}":                        {params: identity},
		"POST /v1/identities/{id}/rotate":                {params: identity, body: object{"epoch": true}},
		"POST /v1/identities/{id}/compromise":            {params: identity},
		"GET " + t + "/credentials":                      {params: acme},
		"POST " + t + "/credentials":                     {params: acme, body: object{"user": "eve"}},
		"POST " + t + "/credentials/{user}/reset":        {params: user},
		"POST " + t + "/credentials/{user}/revoke":       {params: user},
		"GET /v1/tokens":                                 {},
		"POST /v1/tokens":                                {body: object{"role": "read", "tenant": "acme"}},
		"POST /v1/tokens/{id}/revoke":                    {params: []string{w.token}},
		"GET /v1/messages":                               {query: "?tenant=acme"},
		"GET /v1/messages/{id}":                          {params: message},
		"GET /v1/messages/{id}/trace":                    {params: message},
		"GET /v1/refusals":                               {query: "?tenant=acme"},
		"GET /v1/queue":                                  {query: "?tenant=acme"},
		"GET /v1/queue/{id}":                             {params: item},
		"POST /v1/queue/retry":                           {body: act},
		"POST /v1/queue/hold":                            {body: act},
		"POST /v1/queue/release":                         {body: act},
		"POST /v1/queue/drop":                            {body: act},
		"POST /v1/queue/reroute":                         {body: object{"tenant": "acme", "connection": "acme-mailbox"}},
		"GET /v1/held":                                   {query: "?tenant=acme"},
		"GET /v1/held/{id}":                              {params: item},
		"POST /v1/held/{id}/release":                     {params: item},
		"POST /v1/held/{id}/drop":                        {params: item},
		"GET /v1/destinations":                           {query: "?tenant=acme"},
		"POST /v1/destinations/resume":                   {body: object{"destination": "t:acme:acme-mailbox"}},
		"GET /v1/stops":                                  {},
		"POST /v1/stops":                                 {body: object{"scope": "tenant", "value": "acme"}},
		"POST /v1/stops/lift":                            {body: object{"scope": "tenant", "value": "acme"}},
		"GET /v1/lists":                                  {},
		"PUT /v1/lists":                                  {body: object{"block": []string{"example.org"}}},
		"GET /v1/status":                                 {},
		"GET /v1/doctor":                                 {},
		"POST /v1/backup":                                {},
		"POST /v1/verify":                                {},
		"GET /v1/ledger":                                 {},
		"GET /v1/ledger/entries":                         {query: "?tenant=acme"},
		"GET /v1/ledger/entries/{index}":                 {params: entry},
		"GET /v1/ledger/entries/{index}/proof":           {params: entry},
		"GET /v1/ledger/export":                          {},
		"POST /v1/orders":                                {body: object{"region": "us", "order": object{}}},
		"POST /v1/sightings":                             {body: object{"code": "us.none"}},
	}
}

// route is one operation with its target filled in.
type route struct {
	name, method, path string
	body               any
}

// routes are all operations of the document, reading ones first.
func (w *world) routes() []route {
	w.t.Helper()
	doc, _ := w.document()
	targets := w.targets()
	var all []route
	for pattern, methods := range doc.Paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + pattern
			tg, ok := targets[name]
			if !ok {
				w.t.Errorf("the walk does not know %s: add it to targets", name)
				continue
			}
			delete(targets, name)
			path := pattern
			for _, p := range tg.params {
				from, to := strings.Index(path, "{"), strings.Index(path, "}")
				path = path[:from] + p + path[to+1:]
			}
			all = append(all, route{name, strings.ToUpper(method), path + tg.query, tg.body})
		}
	}
	for name := range targets {
		w.t.Errorf("%s is not registered", name)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all
}

func (w *world) open(name string) bool {
	return name == "GET /healthz" || name == "GET /readyz" || name == "POST /v1/sightings"
}

// snapshot is everything that an operator sees of acme.
func (w *world) snapshot() string {
	w.t.Helper()
	var b strings.Builder
	for _, path := range []string{
		"/v1/tenants/acme", "/v1/tenants/acme/domains", "/v1/tenants/acme/directory", "/v1/tenants/acme/connections",
		"/v1/tenants/acme/credentials", "/v1/queue/" + w.item, "/v1/held/" + w.item, "/v1/messages/" + w.message + "/trace",
		"/v1/stops", "/v1/lists", "/v1/tenants", "/v1/identities",
	} {
		b.Write(w.ok("GET", path, w.operator, nil).body)
	}
	for _, t := range w.tenants.Tokens() {
		b.WriteString(t.ID + string(t.Role) + t.Tenant)
		if t.RevokedAt != nil {
			b.WriteString(" revoked")
		}
	}
	return b.String()
}

// TestWrongHand walks every operation with hands that may not: bolt's admin
// and reader on acme's things, no token, a bad one, and readers where
// something would change. Nothing may be shown, nothing may change.
func TestWrongHand(t *testing.T) {
	w := newWorld(t)
	hands := []struct {
		name, token string
		may         func(route) bool // what is this hand's own to ask
	}{
		{"no token", "", func(r route) bool { return w.open(r.name) }},
		{"bad token", "spt_01ARZ3NDEKTSV4RRFFQ69G5FAV_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", func(r route) bool { return w.open(r.name) }},
		{"bolt's admin", w.rig.token(tenant.Admin, "bolt"), func(r route) bool {
			return w.open(r.name) || slices.Contains([]string{"GET /v1/tenants", "GET /v1/tokens", "GET /v1/stops"}, r.name)
		}},
		{"bolt's reader", w.rig.token(tenant.Read, "bolt"), func(r route) bool {
			return w.open(r.name) || slices.Contains([]string{"GET /v1/tenants", "GET /v1/stops"}, r.name)
		}},
		{"acme's reader", w.rig.token(tenant.Read, "acme"), func(r route) bool { return r.method == "GET" }},
		{"reader of all", w.rig.token(tenant.Read, ""), func(r route) bool { return r.method == "GET" }},
	}
	routes := w.routes()
	before := w.snapshot()
	for _, h := range hands {
		for _, r := range routes {
			a := w.call(r.method, r.path, h.token, r.body)
			bad := h.token == "" || strings.HasPrefix(h.name, "bad")
			switch {
			case h.may(r):
				if strings.HasPrefix(h.name, "bolt") && strings.Contains(string(a.body), "acme") {
					t.Errorf("%s: %s shows acme: %s", h.name, r.name, a.body)
				}
			case bad && a.status != 401:
				t.Errorf("%s: %s answered %d, want 401", h.name, r.name, a.status)
			case !bad && a.status != 403 && a.status != 404:
				t.Errorf("%s: %s answered %d %s, want 403 or 404", h.name, r.name, a.status, a.body)
			default:
				a.problem(t)
			}
		}
	}
	if after := w.snapshot(); after != before {
		t.Errorf("something changed.\nbefore %s\nafter  %s", before, after)
	}
}

// TestForeignIsMissing compares what bolt's admin is told of acme's things
// with what he is told of things that do not exist: only the names differ.
func TestForeignIsMissing(t *testing.T) {
	w := newWorld(t)
	token := w.rig.token(tenant.Admin, "bolt")
	const nobody = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	names := strings.NewReplacer(w.entry, w.entry+"1", w.message, nobody, w.item, nobody, w.identity, nobody, w.token, nobody, "acme", "nobody")
	for _, r := range w.routes() {
		a := w.call(r.method, r.path, token, r.body)
		b := w.call(r.method, names.Replace(r.path), token, renamed(r.body, names))
		if a.status < 400 {
			continue
		}
		if a.status != b.status || names.Replace(string(a.body)) != string(b.body) {
			t.Errorf("%s: foreign is %d %s, missing is %d %s", r.name, a.status, a.body, b.status, b.body)
		}
	}
}

func renamed(body any, names *strings.Replacer) any {
	o, ok := body.(object)
	if !ok {
		return body
	}
	c := object{}
	for k, v := range o {
		if s, ok := v.(string); ok {
			v = names.Replace(s)
		}
		c[k] = v
	}
	return c
}

// TestRightHand walks the same with acme's own admin and the operator: what
// the table gives them works, so the refusals above are not for another cause.
func TestRightHand(t *testing.T) {
	for _, h := range []struct {
		name string
		role tenant.Role
		of   string
	}{{"operator", tenant.Operator, ""}, {"acme's admin", tenant.Admin, "acme"}} {
		t.Run(h.name, func(t *testing.T) {
			w := newWorld(t)
			must(t, w.queue.LiftStop(t.Context(), "tenant", "acme")) // it is nobody's own
			token := w.rig.token(h.role, h.of)
			operators := []string{
				"GET /metrics", "POST /v1/tenants", "DELETE /v1/tenants/{tenant}", "POST /v1/tenants/{tenant}/domains",
				"DELETE /v1/tenants/{tenant}/domains/{domain}", "GET /v1/lists", "PUT /v1/lists", "GET /v1/status", "GET /v1/doctor",
				"POST /v1/backup", "POST /v1/verify", "GET /v1/ledger", "GET /v1/ledger/export", "POST /v1/orders",
			}
			for _, r := range w.routes() {
				a := w.call(r.method, r.path, token, r.body)
				if h.of != "" && slices.Contains(operators, r.name) {
					if a.status != 403 {
						t.Errorf("%s answered %d, want 403", r.name, a.status)
					}
					continue
				}
				if a.status == 401 || a.status == 403 || a.status >= 500 && a.status != 503 {
					t.Errorf("%s answered %d %s", r.name, a.status, a.body)
				}
			}
		})
	}
}
