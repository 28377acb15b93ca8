package sim

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Thief plays who has stolen a tenant's key, against a simulator that serves:
// what it does goes over the wire like anybody's request.
type Thief struct {
	sim  *Sim
	from netip.Addr
	http *http.Client
}

// Thief works from an address that is not the gateway's.
func (s *Sim) Thief(from netip.Addr) *Thief {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Pool(), Time: s.cfg.Now}, DisableKeepAlives: true}
	return &Thief{sim: s, from: from, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// SignIn asks for a Graph token with a stolen key and the certificate that
// belongs to it, and returns the token.
func (th *Thief) SignIn(ctx context.Context, tenantID, appID string, cert *x509.Certificate, key crypto.Signer) (string, error) {
	th.sim.mu.Lock()
	base := "https://" + th.sim.httpAddr
	th.sim.mu.Unlock()
	endpoint := base + "/" + tenantID + "/oauth2/v2.0/token"
	assertion, err := forge(endpoint, appID, cert, key, th.sim.cfg.Now())
	if err != nil {
		return "", err
	}
	form := url.Values{"client_id": {appID}, "scope": {graphAudience + "/.default"}, "grant_type": {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set(AddressHeader, th.from.String())
	r.Header.Set("User-Agent", "python-requests/2.32")
	answer, err := th.http.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var out struct {
		Token       string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&out); err != nil {
		return "", err
	}
	if out.Token == "" {
		return "", fault.New(fault.Denied, "sim.Thief", out.Description)
	}
	return out.Token, nil
}

// forge makes the client assertion that the key's owner would have made.
func forge(audience, appID string, cert *x509.Certificate, key crypto.Signer, now time.Time) (string, error) {
	print := sha256.Sum256(cert.Raw)
	head, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "PS256", "x5t#S256": base64.RawURLEncoding.EncodeToString(print[:])})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]any{"aud": audience, "iss": appID, "sub": appID, "jti": uuid.NewString(),
		"nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// MintToken makes a token that nobody was issued: the forged token of 2023,
// which no sign-in log has.
func (th *Thief) MintToken(tenantID string) (string, error) {
	th.sim.mu.Lock()
	defer th.sim.mu.Unlock()
	t := th.sim.find(tenantID)
	if t == nil {
		return "", noSuchTenant(tenantID)
	}
	return th.sim.mint(t, t.Apps[0], graphAudience, utiOf(uuid.New()))
}

// HideLogs keeps the rows of a tenant's sign-ins so far from being shown for
// so long again, or for ever where delay is negative.
func (th *Thief) HideLogs(tenantID string, delay time.Duration) error {
	th.sim.mu.Lock()
	defer th.sim.mu.Unlock()
	if th.sim.find(tenantID) == nil {
		return noSuchTenant(tenantID)
	}
	rows := th.sim.signIns[tenantID]
	if delay < 0 {
		th.sim.signIns[tenantID] = nil
		return nil
	}
	for i := range rows {
		rows[i].Shown = rows[i].Shown.Add(delay)
	}
	return nil
}
