package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// caller is who asks Graph: a tenant's administrator, or its application.
type caller struct {
	tenant *tenant
	app    *application // nil: the administrator
	roles  []string
}

// may reports whether the caller has one of these permissions.
func (c *caller) may(roles ...string) bool {
	return c.app == nil || slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(c.roles, r) })
}

// identify finds out whose bearer token came, for a resource. The caller holds mu.
func (s *Sim) identify(q *request, audience string) (*caller, *reply) {
	token := q.bearer()
	if token == "" {
		return nil, &reply{status: http.StatusUnauthorized, body: problem("InvalidAuthenticationToken", "Access token is empty.", q)}
	}
	if t := s.admins[token]; t != nil {
		return &caller{tenant: t}, nil
	}
	c, ok := s.readAccess(token)
	if ok && strings.EqualFold(c.Audience, audience) {
		if t := s.find(c.Tenant); t != nil {
			if a := t.app(c.AppID); a != nil {
				return &caller{tenant: t, app: a, roles: c.Roles}, nil
			}
		}
	}
	return nil, &reply{status: http.StatusUnauthorized, body: problem("InvalidAuthenticationToken",
		"Access token validation failure. It must be the administrator's, or one for "+audience+" that has not expired.", q)}
}

const graphAudience = "https://graph.microsoft.com"

// graph is what is modelled of Microsoft Graph.
func (s *Sim) graph(q *request) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	who, refusal := s.identify(q, graphAudience)
	if refusal != nil {
		return *refusal
	}
	if who.tenant.Switches.GraphThrottle > 0 {
		who.tenant.Switches.GraphThrottle--
		return q.throttled(time.Duration(who.tenant.Switches.RetryAfter))
	}
	route := strings.Join(q.path[1:], "/")
	switch {
	case route == "auditLogs/signIns" && q.Method == http.MethodGet:
		return s.listSignIns(q, who)
	case route == "auditLogs/directoryAudits" && q.Method == http.MethodGet:
		return s.listAudits(q, who)
	case route == "applications" && q.Method == http.MethodGet:
		return s.listApplications(q, who)
	case len(q.path) >= 2 && strings.HasPrefix(q.path[1], "applications"):
		return s.application(q, who)
	case len(q.path) == 2 && strings.HasPrefix(q.path[1], "servicePrincipals(") || len(q.path) == 3 && q.path[1] == "servicePrincipals":
		return s.principal(q, who)
	}
	return s.unknownLocked(q, "")
}

// unknownLocked is unknown for a caller that holds mu.
func (s *Sim) unknownLocked(q *request, what string) reply {
	s.mu.Unlock()
	defer s.mu.Lock()
	return q.unknown(what)
}

func (q *request) throttled(after time.Duration) reply {
	return reply{status: http.StatusTooManyRequests, body: problem("TooManyRequests", "Too many requests.", q),
		header: map[string]string{"Retry-After": strconv.FormatFloat(after.Seconds(), 'f', -1, 64)}}
}

func (q *request) forbidden() reply {
	return reply{status: http.StatusForbidden, body: problem("Authorization_RequestDenied", "Insufficient privileges to complete the operation.", q)}
}

// objectOf picks the object that a path names, by object id or by alternate
// key: /applications/{id}… or /applications(appId='…')….
func objectOf(q *request, kind string, who *caller, id func(*application) string) (a *application, rest []string) {
	segment, rest := q.path[1], q.path[2:]
	want, byKey := strings.CutPrefix(segment, kind+"(appId='")
	if byKey {
		want = strings.TrimSuffix(want, "')")
		return who.tenant.app(want), rest
	}
	if segment != kind || len(rest) == 0 {
		return nil, rest
	}
	for _, app := range who.tenant.Apps {
		if strings.EqualFold(id(app), rest[0]) {
			return app, rest[1:]
		}
	}
	return nil, rest[1:]
}

// application is one application object and its actions.
func (s *Sim) application(q *request, who *caller) reply {
	a, rest := objectOf(q, "applications", who, func(a *application) string { return a.ObjectID })
	if a == nil {
		return q.failed(missingObject(q.URL.Path))
	}
	switch action := q.Method + " " + strings.Join(rest, "/"); action {
	case "GET ":
		return s.showApplication(q, who, a)
	case "PATCH ":
		return s.patchApplication(q, who, a)
	case "POST addKey":
		return s.addKey(q, who, a)
	case "POST removeKey":
		return s.removeKey(q, who, a)
	}
	return s.unknownLocked(q, "")
}

func missingObject(path string) error {
	return fault.New(fault.Missing, "sim",
		"Resource '"+path+"' does not exist or one of its queried reference-property objects are not present.")
}

// shown is the application as Graph shows it.
func (a *application) shown(withKeys bool) object {
	keys := []object{}
	for i := range a.Keys {
		keys = append(keys, a.Keys[i].shown(withKeys))
	}
	return object{"id": a.ObjectID, "appId": a.AppID, "displayName": a.DisplayName, "signInAudience": "AzureADMyOrg",
		"keyCredentials": keys, "passwordCredentials": []object{}}
}

func (s *Sim) showApplication(q *request, who *caller, a *application) reply {
	options, err := s.options(q, "$select")
	if err != nil {
		return s.refuseBody(q, err)
	}
	if !who.may("Application.Read.All", "Application.ReadWrite.All", "Application.ReadWrite.OwnedBy") && who.app != a {
		return q.forbidden()
	}
	fields := options.Get("$select")
	o := a.shown(fields != "" && slices.Contains(strings.Split(fields, ","), "keyCredentials"))
	if fields != "" {
		o = only(o, strings.Split(fields, ","))
	}
	o["@odata.context"] = "https://graph.microsoft.com/v1.0/$metadata#applications/$entity"
	return reply{status: http.StatusOK, body: o}
}

// only keeps the properties that were asked for.
func only(o object, names []string) object {
	out := object{}
	for _, n := range names {
		if v, ok := o[n]; ok {
			out[n] = v
		}
	}
	return out
}

func (s *Sim) listApplications(q *request, who *caller) reply {
	if !who.may("Application.Read.All", "Application.ReadWrite.All") {
		return q.forbidden()
	}
	var rows []object
	for _, a := range who.tenant.Apps {
		rows = append(rows, a.shown(false))
	}
	return s.list(q, rows, "applications", "")
}

// errUnknownField is a property that the simulator does not model.
var errUnknownField = errors.New("a property that is not modelled")

// decode reads a request's JSON; a property that is not modelled is an unknown
// request, not one to be ignored.
func (q *request) decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return refuse("something follows the JSON object")
		}
		return nil
	}
	if strings.HasPrefix(err.Error(), "json: unknown field") {
		return errors.Join(errUnknownField, err)
	}
	return refuse("Unable to read JSON request payload: " + err.Error())
}

// refuseBody answers a body or a query that was not taken.
func (s *Sim) refuseBody(q *request, err error) reply {
	if errors.Is(err, errUnknownField) {
		return s.unknownLocked(q, err.Error())
	}
	return q.failed(err)
}

func (s *Sim) patchApplication(q *request, who *caller, a *application) reply {
	if !who.may("Application.ReadWrite.All", "Application.ReadWrite.OwnedBy") {
		return q.forbidden()
	}
	var in struct {
		DisplayName    *string    `json:"displayName"`
		KeyCredentials *[]sentKey `json:"keyCredentials"`
	}
	if err := q.decode(&in); err != nil {
		return s.refuseBody(q, err)
	}
	if in.KeyCredentials != nil {
		next, err := a.replaceKeys(*in.KeyCredentials)
		if err == nil {
			err = s.setKeys(q, who, a, next)
		}
		if err != nil {
			return q.failed(err)
		}
	}
	if in.DisplayName != nil {
		a.DisplayName = *in.DisplayName
		if err := s.disk.saveTenant(who.tenant); err != nil {
			return q.failed(err)
		}
	}
	return reply{status: http.StatusNoContent}
}

// setKeys changes the list and enters it in the audit log.
func (s *Sim) setKeys(q *request, who *caller, a *application, next []keyCredential) error {
	before := a.Keys
	a.Keys = next
	if err := s.disk.saveTenant(who.tenant); err != nil {
		a.Keys = before
		return err
	}
	return s.addAudit(q, who.tenant, who.app, Audit{Activity: updateKeys, TargetID: a.ObjectID, TargetName: a.DisplayName,
		TargetType: "Application", Property: "KeyDescription", Old: described(before), New: described(next)})
}

// mayRoll reports whether the caller may use addKey and removeKey on a: the
// application itself needs no permission, the proof is enough (facts 2.3).
func (c *caller) mayRoll(a *application) bool {
	return c.app == a || c.may("Application.ReadWrite.All", "Application.ReadWrite.OwnedBy")
}

func (s *Sim) addKey(q *request, who *caller, a *application) reply {
	var in struct {
		KeyCredential      *sentKey        `json:"keyCredential"`
		PasswordCredential json.RawMessage `json:"passwordCredential"`
		Proof              string          `json:"proof"`
	}
	if err := q.decode(&in); err != nil {
		return s.refuseBody(q, err)
	}
	switch {
	case !who.mayRoll(a):
		return q.forbidden()
	case in.KeyCredential == nil:
		return q.failed(refuse("keyCredential is missing"))
	case len(in.PasswordCredential) > 0 && string(in.PasswordCredential) != "null":
		return s.unknownLocked(q, "addKey with a passwordCredential")
	case len(a.Keys) >= mostKeys:
		return q.failed(refuse("keyCredentials has too many entries"))
	}
	if refusal := s.proven(q, a, in.Proof); refusal != nil {
		return *refusal
	}
	k, err := in.KeyCredential.newKey()
	if err == nil {
		err = s.setKeys(q, who, a, append(slices.Clone(a.Keys), k))
	}
	if err != nil {
		return q.failed(err)
	}
	o := k.shown(false)
	o["@odata.context"] = "https://graph.microsoft.com/v1.0/$metadata#microsoft.graph.keyCredential"
	return reply{status: http.StatusOK, body: o}
}

// proven judges a proof; nil lets it pass.
func (s *Sim) proven(q *request, a *application, proof string) *reply {
	err := a.checkProof(proof, s.cfg.Now())
	var p *proofError
	if !errors.As(err, &p) {
		return nil
	}
	status := http.StatusUnauthorized
	if p.code == "Authentication_MissingOrMalformed" {
		status = http.StatusBadRequest
	}
	return &reply{status: status, body: problem(p.code, p.text, q)}
}

func (s *Sim) removeKey(q *request, who *caller, a *application) reply {
	var in struct {
		KeyID string `json:"keyId"`
		Proof string `json:"proof"`
	}
	if err := q.decode(&in); err != nil {
		return s.refuseBody(q, err)
	}
	if !who.mayRoll(a) {
		return q.forbidden()
	}
	if refusal := s.proven(q, a, in.Proof); refusal != nil {
		return *refusal
	}
	next := slices.DeleteFunc(slices.Clone(a.Keys), func(k keyCredential) bool { return strings.EqualFold(k.KeyID, in.KeyID) })
	if len(next) == len(a.Keys) {
		return q.failed(errNoKey(in.KeyID))
	}
	if err := s.setKeys(q, who, a, next); err != nil {
		return q.failed(err)
	}
	return reply{status: http.StatusNoContent}
}

// principal is an application's service principal: shown, and switched off.
func (s *Sim) principal(q *request, who *caller) reply {
	a, rest := objectOf(q, "servicePrincipals", who, func(a *application) string { return a.PrincipalID })
	if a == nil || a.NoPrincipal {
		return q.failed(missingObject(q.URL.Path))
	}
	switch {
	case len(rest) > 0:
		return s.unknownLocked(q, "")
	case q.Method == http.MethodGet:
		if !who.may("Application.Read.All", "Application.ReadWrite.All") && who.app != a {
			return q.forbidden()
		}
		return reply{status: http.StatusOK, body: object{"id": a.PrincipalID, "appId": a.AppID, "displayName": a.DisplayName,
			"accountEnabled": !a.Disabled, "servicePrincipalType": "Application"}}
	case q.Method != http.MethodPatch:
		return s.unknownLocked(q, "")
	case !who.may("Application.ReadWrite.All"):
		return q.forbidden()
	}
	var in struct {
		AccountEnabled *bool `json:"accountEnabled"`
	}
	if err := q.decode(&in); err != nil {
		return s.refuseBody(q, err)
	}
	if in.AccountEnabled == nil {
		return reply{status: http.StatusNoContent}
	}
	before := a.Disabled
	a.Disabled = !*in.AccountEnabled
	err := s.disk.saveTenant(who.tenant)
	if err == nil {
		err = s.addAudit(q, who.tenant, who.app, Audit{Activity: "Update service principal", TargetID: a.PrincipalID, TargetName: a.DisplayName,
			TargetType: "ServicePrincipal", Property: "AccountEnabled", Old: []string{strconv.FormatBool(!before)}, New: []string{strconv.FormatBool(*in.AccountEnabled)}})
	}
	if err != nil {
		return q.failed(err)
	}
	return reply{status: http.StatusNoContent}
}

// options reads the query, refusing what is not modelled.
func (s *Sim) options(q *request, known ...string) (url.Values, error) {
	all, err := url.ParseQuery(q.URL.RawQuery)
	if err != nil {
		return nil, refuse("the query is malformed")
	}
	for name := range all {
		if !slices.Contains(known, name) {
			return nil, errors.Join(errUnknownField, errors.New("query option "+name))
		}
	}
	return all, nil
}
