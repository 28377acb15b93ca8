package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// need is what a route asks of its caller.
type need int

const (
	needNothing  need = iota // no token
	needReader               // any role; a token of one tenant sees that tenant only
	needAdmin                // operator, or the admin of the tenant concerned
	needWatcher              // any role, of a token that is not confined to a tenant
	needOperator             // operator
)

// needs is the one table of who may do what. Registering a route that has no
// row here panics when the API is built.
//
// Claims that nothing proves yet (a domain, a client network) are for the
// operator: a tenant's admin could take another's mail with them.
func needs() map[string]need {
	const t = "/v1/tenants/{tenant}"
	return map[string]need{
		"GET /healthz": needNothing,
		"GET /readyz":  needNothing,
		"GET /metrics": needWatcher, // needNothing with Config.OpenMetrics

		"GET /v1/tenants":  needReader,
		"POST /v1/tenants": needOperator,
		"GET " + t:         needReader,
		"PATCH " + t:       needAdmin,
		"DELETE " + t:      needOperator,

		"GET " + t + "/domains":             needReader,
		"POST " + t + "/domains":            needOperator,
		"GET " + t + "/domains/{domain}":    needReader,
		"DELETE " + t + "/domains/{domain}": needOperator,

		"GET " + t + "/directory":              needReader,
		"POST " + t + "/directory":             needAdmin,
		"POST " + t + "/directory/import":      needAdmin,
		"DELETE " + t + "/directory/{address}": needAdmin,

		"GET " + t + "/connections":                      needReader,
		"POST " + t + "/connections":                     needAdmin,
		"GET " + t + "/connections/{name}":               needReader,
		"DELETE " + t + "/connections/{name}":            needAdmin,
		"POST " + t + "/connections/{name}/test":         needAdmin,
		"POST " + t + "/connections/{name}/enable":       needAdmin,
		"POST " + t + "/connections/{name}/disable":      needAdmin,
		"PUT " + t + "/connections/{name}/credential":    needAdmin,
		"POST " + t + "/connections/{name}/setup":        needAdmin,
		"GET " + t + "/connections/{name}/replace":       needReader,
		"POST " + t + "/connections/{name}/replace":      needAdmin,
		"POST " + t + "/connections/{name}/replace/undo": needAdmin,

		"GET /v1/identities":                  needReader,
		"GET /v1/identities/{id}":             needReader,
		"POST /v1/identities/{id}/rotate":     needAdmin,
		"POST /v1/identities/{id}/compromise": needAdmin,

		"GET " + t + "/credentials":                needReader,
		"POST " + t + "/credentials":               needAdmin,
		"POST " + t + "/credentials/{user}/reset":  needAdmin,
		"POST " + t + "/credentials/{user}/revoke": needAdmin,

		"GET /v1/tokens":              needAdmin,
		"POST /v1/tokens":             needAdmin,
		"POST /v1/tokens/{id}/revoke": needAdmin,

		"GET /v1/messages":            needReader,
		"GET /v1/messages/{id}":       needReader,
		"GET /v1/messages/{id}/trace": needReader,
		"GET /v1/refusals":            needReader,

		"GET /v1/queue":          needReader,
		"GET /v1/queue/{id}":     needReader,
		"POST /v1/queue/retry":   needAdmin,
		"POST /v1/queue/hold":    needAdmin,
		"POST /v1/queue/release": needAdmin,
		"POST /v1/queue/drop":    needAdmin,
		"POST /v1/queue/reroute": needAdmin,

		"GET /v1/held":               needReader,
		"GET /v1/held/{id}":          needReader,
		"POST /v1/held/{id}/release": needAdmin,
		"POST /v1/held/{id}/drop":    needAdmin,

		"GET /v1/destinations":         needReader,
		"POST /v1/destinations/resume": needAdmin,
		"GET /v1/stops":                needReader,
		"POST /v1/stops":               needAdmin,
		"POST /v1/stops/lift":          needAdmin,
		"GET /v1/lists":                needWatcher,
		"PUT /v1/lists":                needOperator,

		"GET /v1/status":  needWatcher,
		"GET /v1/doctor":  needWatcher,
		"POST /v1/backup": needOperator,
		"POST /v1/verify": needOperator,

		"GET /v1/ledger":                       needWatcher,
		"GET /v1/ledger/entries":               needReader,
		"GET /v1/ledger/entries/{index}":       needReader,
		"GET /v1/ledger/entries/{index}/proof": needReader,
		"GET /v1/ledger/export":                needWatcher,
		"POST /v1/orders":                      needOperator,
		"POST /v1/sightings":                   needNothing, // the code in it is the proof
	}
}

// allows reports whether a principal fulfils a need. An admin without a tenant
// is nobody: only operators and readers may be of every tenant.
func (n need) allows(p tenant.Principal) bool {
	global := p.Tenant == ""
	switch n {
	case needNothing:
		return true
	case needReader:
		return p.Role == tenant.Operator || p.Role == tenant.Read || p.Role == tenant.Admin && !global
	case needAdmin:
		return p.Role == tenant.Operator || p.Role == tenant.Admin && !global
	case needWatcher:
		return global && (p.Role == tenant.Operator || p.Role == tenant.Read)
	case needOperator:
		return global && p.Role == tenant.Operator
	default:
		return false
	}
}

// wants is the need in words, for the hint of a refusal.
func (n need) wants() string {
	switch n {
	case needAdmin:
		return "Use a token of role admin for that tenant, or of role operator."
	case needWatcher:
		return "Use a token of role operator or read that names no tenant."
	case needOperator:
		return "Use a token of role operator."
	default:
		return "Use a valid token."
	}
}

// admit proves the request's token, checks the route's need, and confines a
// route below a tenant to the caller's own and to one that exists.
func (s *server) admit(r *http.Request, n need) (tenant.Principal, error) {
	if n == needNothing {
		return tenant.Principal{}, nil
	}
	p, err := s.authenticate(r.Header.Get("Authorization"))
	if err != nil {
		return tenant.Principal{}, err
	}
	if !n.allows(p) {
		return p, fault.New(fault.Denied, "api.admit", "this token may not do that").WithHint(n.wants())
	}
	if name := r.PathValue("tenant"); name != "" {
		if _, err := s.existing(withCaller(r.Context(), p), name); err != nil {
			return p, err
		}
	}
	return p, nil
}

// authenticate reads "Bearer <token>" (RFC 6750 2.1).
func (s *server) authenticate(header string) (tenant.Principal, error) {
	scheme, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return tenant.Principal{}, &unauthorized{"a token is needed"}
	}
	p, err := s.Tenants.Authenticate(secret)
	if fault.Is(err, fault.Denied) {
		return tenant.Principal{}, &unauthorized{"the token is unknown, revoked or expired"}
	}
	return p, err
}

type callerKey struct{}

func withCaller(ctx context.Context, p tenant.Principal) context.Context {
	return context.WithValue(ctx, callerKey{}, p)
}

// caller is who asks; the zero Principal, which may do nothing, when nobody
// was asked for a token.
func caller(ctx context.Context) tenant.Principal {
	p, _ := ctx.Value(callerKey{}).(tenant.Principal)
	return p
}

// scope is where a handler gets its tenant from: the one requested, or the
// caller's own. "" is every tenant and only given to callers who are of none.
// A foreign tenant is missing, in the same words as one that does not exist.
func scope(ctx context.Context, requested string) (string, error) {
	p := caller(ctx)
	switch {
	case p.Tenant == "" && p.Role != tenant.Operator && p.Role != tenant.Read:
		return "", fault.New(fault.Denied, "api.scope", "this token is of no tenant")
	case p.Tenant == "" || requested == p.Tenant:
		return requested, nil
	case requested == "":
		return p.Tenant, nil
	default:
		return "", noTenant(requested)
	}
}

// existing is scope for a tenant that must exist.
func (s *server) existing(ctx context.Context, requested string) (tenant.Tenant, error) {
	name, err := scope(ctx, requested)
	if err != nil {
		return tenant.Tenant{}, err
	}
	t, ok := s.Tenants.Tenant(name)
	if !ok {
		return tenant.Tenant{}, noTenant(requested)
	}
	return t, nil
}

// searched is a page of what was found of a tenant, "" being all of them. One of
// nothing is known to be of a tenant.
func searched[T any](s *server, name string, asked Paging, page *out[Page[T]]) (*out[Page[T]], error) {
	if asked.After != "" || page.Body.Next != "" || len(page.Body.Items) > 0 {
		return page, nil
	}
	return page, s.known(name)
}

// known is for a search or an act that found nothing of a tenant: a name that
// is no tenant's is missing, not without mail. It is not asked before, because
// traces outlive a tenant that is removed, and its name still finds them. Nobody
// learns of another's tenant here: scope has refused every name but his own.
func (s *server) known(name string) error {
	if _, ok := s.Tenants.Tenant(name); !ok && name != "" {
		return noTenant(name)
	}
	return nil
}

func noTenant(name string) error {
	return fault.New(fault.Missing, "api.scope", "there is no tenant "+quoted(name)).
		WithHint("List the tenants to see their names.")
}
