package sim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Resources that tokens are issued for, by the scope that asks for them, with
// their application ids.
func resources() map[string]string {
	return map[string]string{
		"https://graph.microsoft.com":   "00000003-0000-0000-c000-000000000000",
		"https://outlook.office365.com": "00000002-0000-0ff1-ce00-000000000000",
		"https://outlook.office.com":    "00000002-0000-0ff1-ce00-000000000000",
		"https://manage.office.com":     "c5393580-f805-4401-95e8-94b7a6ef2fc2",
		"https://ps.outlook.com":        "00000002-0000-0ff1-ce00-000000000000",
	}
}

// login is everything below a tenant's id: the token endpoint and what a
// client library reads before it asks there.
func (s *Sim) login(q *request) reply {
	rest := strings.Join(q.path[1:], "/")
	switch {
	case rest == "oauth2/v2.0/token" && q.Method == http.MethodPost:
		return s.token(q)
	case rest == "v2.0/.well-known/openid-configuration" && q.Method == http.MethodGet:
		return s.discovery(q)
	case rest == "discovery/v2.0/keys" && q.Method == http.MethodGet:
		return s.keys()
	}
	return q.unknown("")
}

// discovery is OpenID Connect Discovery 1.0 as far as MSAL reads it.
func (s *Sim) discovery(q *request) reply {
	s.mu.Lock()
	known := s.find(q.path[0]) != nil
	s.mu.Unlock()
	if !known {
		return q.aadsts(noTenant(q.path[0]))
	}
	base := "https://" + q.Host + "/" + q.path[0]
	return reply{status: http.StatusOK, body: map[string]any{
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"issuer":                                base + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"tenant_region_scope":                   "EU",
	}}
}

// keys is what access tokens are signed with (RFC 7517).
func (s *Sim) keys() reply {
	return reply{status: http.StatusOK, body: map[string]any{"keys": []map[string]any{{
		"kty": "RSA", "use": "sig", "kid": s.kid(),
		"n": base64.RawURLEncoding.EncodeToString(s.tokens.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(s.tokens.E)).Bytes()),
	}}}}
}

func (s *Sim) kid() string {
	sum := sha256.Sum256(s.tokens.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// attempt is one request for a token as it is judged.
type attempt struct {
	q        *request
	form     url.Values
	tenant   *tenant
	app      *application
	key      *keyCredential
	resource string // application id
	scope    string // the resource as it was asked for, which is the token's audience
}

// token is the client credentials grant with a certificate (facts 2.1).
func (s *Sim) token(q *request) reply {
	form, err := url.ParseQuery(string(q.body))
	if err != nil {
		return q.aadsts(&aadError{900144, "invalid_request", 400, "The request body must be application/x-www-form-urlencoded."})
	}
	if grant := form.Get("grant_type"); grant != "client_credentials" {
		return q.unknown("grant_type " + grant)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &attempt{q: q, form: form, tenant: s.find(q.path[0])}
	refusal := s.judge(a)
	var uti string
	if refusal == nil {
		uti = utiOf(q.id)
	}
	if a.app != nil {
		if err := s.noteSignIn(a, uti, refusal); err != nil {
			return q.failed(err)
		}
	}
	if refusal != nil {
		return q.aadsts(refusal)
	}
	access, err := s.mint(a.tenant, a.app, a.scope, uti)
	if err != nil {
		return q.failed(err)
	}
	return reply{status: http.StatusOK, body: map[string]any{
		"token_type": "Bearer", "expires_in": tokenLife, "ext_expires_in": tokenLife, "access_token": access,
	}, header: map[string]string{"x-ms-ests-server": "2.1.simulator", "x-ms-srs": "1.P", "Cache-Control": "no-store"}}
}

// tokenLife is an access token's life in seconds: 60 to 90 minutes as
// documented, here always the least.
const tokenLife = 3599

// judge walks the checks in order; nil lets the application in.
func (s *Sim) judge(a *attempt) *aadError {
	if a.tenant == nil {
		return noTenant(a.q.path[0])
	}
	if a.tenant.Switches.TokenThrottle {
		return &aadError{90055, "temporarily_unavailable", 429, "The server is busy because this tenant has sent too many requests."}
	}
	id := a.form.Get("client_id")
	if a.app = a.tenant.app(id); a.app == nil {
		return &aadError{700016, "unauthorized_client", 400, "Application with identifier '" + id + "' was not found in the directory '" +
			a.tenant.Domain + "'. This can happen if the application has not been installed by the administrator of the tenant."}
	}
	if err := a.readScope(); err != nil {
		return err
	}
	switch {
	case a.app.NoPrincipal:
		return &aadError{7000229, "invalid_client", 401, "The client application '" + id +
			"' is missing service principal in the tenant '" + a.tenant.ID + "'. See instructions here: https://go.microsoft.com/fwlink/?linkid=2225119"}
	case a.app.Disabled:
		return &aadError{7000112, "unauthorized_client", 400, "Application '" + id + "'(" + a.app.DisplayName + ") is disabled."}
	case a.form.Get("client_secret") != "":
		// No secrets are modelled, so that every one is wrong.
		return &aadError{7000215, "invalid_client", 401, "Invalid client secret provided."}
	case a.form.Get("client_assertion") == "":
		return &aadError{7000218, "invalid_client", 401,
			"The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	if err := s.judgeAssertion(a); err != nil {
		return err
	}
	if allowed := a.tenant.Switches.AllowedAddresses; len(allowed) > 0 && !contains(allowed, a.q.ip) {
		return &aadError{53003, "access_denied", 400, "Access has been blocked by Conditional Access policies."}
	}
	return nil
}

func contains(prefixes []string, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(ip)
		}
		one, err := netip.ParseAddr(s)
		return err == nil && one == ip
	})
}

// readScope asks for one resource's /.default.
func (a *attempt) readScope() *aadError {
	// The scopes of OpenID Connect mean nothing here; MSAL adds them to every
	// request.
	scopes := slices.DeleteFunc(strings.Fields(a.form.Get("scope")), func(s string) bool {
		return s == "openid" || s == "offline_access" || s == "profile"
	})
	if len(scopes) > 1 {
		return &aadError{28002, "invalid_request", 400, "Provided value for the input parameter scope is not valid: one resource at a time."}
	}
	if len(scopes) == 1 {
		if resource, ok := strings.CutSuffix(scopes[0], "/.default"); ok {
			if id := resources()[resource]; id != "" {
				a.scope, a.resource = resource, id
				return nil
			}
		}
	}
	return &aadError{70011, "invalid_scope", 400, "The provided value for the input parameter 'scope' is not valid. The scope " +
		a.form.Get("scope") + " is not valid."}
}

// judgeAssertion is the client assertion of RFC 7523, with the certificate
// that its header names.
func (s *Sim) judgeAssertion(a *attempt) *aadError {
	const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	if kind := a.form.Get("client_assertion_type"); kind != jwtBearer {
		return &aadError{7000218, "invalid_client", 401, "The request body must contain the following parameter: 'client_assertion_type' of " + jwtBearer + "."}
	}
	t, err := parseJWT(a.form.Get("client_assertion"))
	if err != nil || t.thumbprint == nil {
		return &aadError{50012, "invalid_client", 401, "Authentication failed: the client assertion is malformed, or names no certificate."}
	}
	now := s.cfg.Now()
	if a.key = a.app.byThumbprint(t.thumbprint); a.key == nil {
		return a.keyError("The key was not found.", t.thumbprint)
	}
	if !now.Before(a.key.EndDateTime) {
		return a.keyError("The key used is expired.", t.thumbprint)
	}
	if now.Before(a.key.StartDateTime) {
		return a.keyError("The key is not within its validity period.", t.thumbprint)
	}
	cert, err := a.key.certificate()
	if err != nil || !t.signedBy(cert) {
		return a.keyError("The signature is not valid.", t.thumbprint)
	}
	return s.judgeClaims(a, t, now)
}

func (a *attempt) keyError(reason string, thumbprint []byte) *aadError {
	return &aadError{700027, "invalid_client", 401, fmt.Sprintf(
		"The certificate with identifier used to sign the client assertion is not registered on application. "+
			"[Reason - %s, Thumbprint of key used by client: '%s', Please visit the Azure Portal to see configured keys for app Id '%s'.]",
		reason, strings.ToUpper(hex.EncodeToString(thumbprint)), a.app.AppID)}
}

func (s *Sim) judgeClaims(a *attempt, t *jwt, now time.Time) *aadError {
	c := &t.claims
	if !c.timely(now) {
		return &aadError{700024, "invalid_client", 401, fmt.Sprintf(
			"Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s.",
			stampTime(now), stampSeconds(c.NotBefore), stampSeconds(c.Expires))}
	}
	base := "https://" + a.q.Host + "/" + a.tenant.ID
	public := "https://login.microsoftonline.com/" + a.tenant.ID
	if !c.Audience.has(base+"/oauth2/v2.0/token", base+"/oauth2/token", base+"/v2.0", base,
		public+"/oauth2/v2.0/token", public+"/oauth2/token", public+"/v2.0", public) {
		return &aadError{50012, "invalid_client", 401, "Authentication failed: the audience of the client assertion is not this tenant's token endpoint."}
	}
	if !strings.EqualFold(c.Issuer, a.app.AppID) || !strings.EqualFold(c.Subject, a.app.AppID) {
		return &aadError{50012, "invalid_client", 401, "Authentication failed: issuer and subject of the client assertion must be the client id."}
	}
	if a.tenant.Switches.StrictJTI {
		id := a.app.AppID + " " + c.ID
		if c.ID == "" || now.Before(s.seen[id]) {
			return &aadError{50012, "invalid_client", 401, "Authentication failed: the client assertion has been used before."}
		}
		for k, until := range s.seen { // an id is remembered while its assertion lives
			if !now.Before(until) {
				delete(s.seen, k)
			}
		}
		s.seen[id] = time.Unix(*c.Expires, 0).Add(skew)
	}
	return nil
}

func stampTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

func stampSeconds(s *int64) string {
	if s == nil {
		return "none"
	}
	return stampTime(time.Unix(*s, 0))
}

// aadError is an AADSTS error: its number, OAuth's word, the status and text.
type aadError struct {
	code   int
	word   string
	status int
	text   string
}

func noTenant(id string) *aadError {
	return &aadError{90002, "invalid_request", 400, "Tenant '" + id + "' not found. Check to make sure you have the correct tenant ID."}
}

// aadsts is an error in the token endpoint's shape (facts 2.1).
func (q *request) aadsts(e *aadError) reply {
	now := q.sim.cfg.Now().UTC()
	correlation := q.Header.Get("client-request-id")
	if _, err := uuid.Parse(correlation); err != nil {
		correlation = uuid.NewString()
	}
	r := reply{status: e.status, body: map[string]any{
		"error": e.word,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			e.code, e.text, q.id, correlation, now.Format("2006-01-02 15:04:05Z")),
		"error_codes": []int{e.code}, "timestamp": now.Format("2006-01-02 15:04:05Z"), "trace_id": q.id.String(),
		"correlation_id": correlation, "error_uri": fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", e.code),
	}}
	if e.status == http.StatusTooManyRequests {
		r.header = map[string]string{"Retry-After": "1"}
	}
	return r
}

// utiOf is the token's identifier: the request's GUID in .NET's byte order,
// whose first three fields are little-endian (facts 3.2).
func utiOf(id uuid.UUID) string {
	b := id
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5] = b[5], b[4]
	b[6], b[7] = b[7], b[6]
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// accessClaims are what an access token says.
type accessClaims struct {
	Audience string   `json:"aud"`
	Issuer   string   `json:"iss"`
	IssuedAt int64    `json:"iat"`
	Before   int64    `json:"nbf"`
	Expires  int64    `json:"exp"`
	AppID    string   `json:"appid"`
	ACR      string   `json:"appidacr"` // "2": a certificate
	Provider string   `json:"idp"`
	Type     string   `json:"idtyp"`
	Object   string   `json:"oid"`
	Subject  string   `json:"sub"`
	Roles    []string `json:"roles,omitempty"`
	Tenant   string   `json:"tid"`
	UTI      string   `json:"uti"`
	Version  string   `json:"ver"`
}

// mint signs an access token.
func (s *Sim) mint(t *tenant, a *application, aud, uti string) (string, error) {
	now := s.cfg.Now()
	issuer := "https://sts.windows.net/" + t.ID + "/"
	c := accessClaims{Audience: aud, Issuer: issuer, IssuedAt: now.Unix(), Before: now.Unix(), Expires: now.Unix() + tokenLife,
		AppID: a.AppID, ACR: "2", Provider: issuer, Type: "app", Object: a.PrincipalID, Subject: a.PrincipalID,
		Roles: t.Switches.AppRoles, Tenant: t.ID, UTI: uti, Version: "1.0"}
	head, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "RS256", "kid": s.kid()})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, s.tokens, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// readAccess verifies an access token and returns what it says.
func (s *Sim) readAccess(text string) (accessClaims, bool) {
	var c accessClaims
	parts := strings.Split(text, ".")
	if len(text) > maxJWT || len(parts) != 3 || decodePart(parts[1], &c) != nil {
		return c, false
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(&s.tokens.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return c, false
	}
	return c, s.cfg.Now().Before(time.Unix(c.Expires, 0))
}
