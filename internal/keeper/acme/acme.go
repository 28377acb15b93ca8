package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	proto "github.com/mholt/acmez/v3/acme"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Config is what an issuer is made from.
type Config struct {
	Directory string // https URL of the CA's directory
	Roots     []byte // PEM of the roots that the directory's own certificate is of, nil for the system's
	Contact   string // mail address of who runs this, "" for none
	// Account signs for the account: P-256 or RSA. The CA makes an account for a
	// key that it has not seen; running this agrees to its terms of service.
	Account crypto.Signer
	// External binds the account to one at the CA (RFC 8555 7.3.4), when the CA
	// wants that.
	External *External
	Profile  string // one of the directory's, "" for its default
	DNS      DNS    // nil: challenges are HTTP-01, answered from Challenge
	// Timeout of one issuance; 0 means 3 minutes.
	Timeout time.Duration
	// Poll is the pause between looks at an order, where the CA says nothing of
	// it; 0 means 1 s.
	Poll time.Duration
	Log  *slog.Logger
	Now  func() time.Time
}

// External is what a CA gives its customers to bind accounts with.
type External struct {
	ID  string
	Key []byte // of the HMAC
}

// DNS publishes the TXT record of a DNS-01 challenge, and takes it away. Publish
// returns when the CA may look. Withdraw follows each Publish, one that failed
// too, under a context of its own. Two values of one name may be out at a time.
type DNS interface {
	Publish(ctx context.Context, fqdn, value string) error
	Withdraw(ctx context.Context, fqdn, value string) error
}

// Issuer is one account at one CA. It is safe for concurrent use.
type Issuer struct {
	c    Config
	base http.RoundTripper
	// registering holds one who asks for the account: the others wait for what
	// comes of it.
	registering chan struct{}

	mu      sync.Mutex
	account *proto.Account
	tokens  map[string]string // key authorizations of the challenges under way
	pauses  pauses
	advice  map[string]advised // by ARI's identifier of the certificate
}

// New checks the settings; it asks the CA nothing yet.
func New(c Config) (*Issuer, error) {
	const op = "acme.New"
	u, err := url.Parse(c.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, op, "the ACME directory is no https URL").
			WithHint("Write it as the CA documents it: https://acme-v02.api.letsencrypt.org/directory")
	}
	if c.Account == nil || !usable(c.Account.Public()) {
		return nil, fault.New(fault.Invalid, op, "the ACME account has no key of P-256 or RSA").WithHint("Make the account's key with one of these.")
	}
	if c.External != nil && (c.External.ID == "" || len(c.External.Key) == 0) {
		return nil, fault.New(fault.Invalid, op, "the external account binding has no id or no key").WithHint("Copy both from the CA's page.")
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.Roots) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.Roots) {
			return nil, fault.New(fault.Invalid, op, "the roots of the ACME directory hold no certificate").WithHint("Give them as PEM.")
		}
	}
	if c.Timeout <= 0 {
		c.Timeout = 3 * time.Minute
	}
	if c.Poll <= 0 {
		c.Poll = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Issuer{
		c: c, registering: make(chan struct{}, 1), tokens: map[string]string{}, pauses: pauses{}, advice: map[string]advised{},
		base: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}, nil
}

// Name is how identities and the ledger call the issuer.
func (i *Issuer) Name() string { return "acme" }

// Challenge answers an HTTP-01 challenge: the body to serve at
// /.well-known/acme-challenge/ and the token. It is no secret.
func (i *Issuer) Challenge(token string) (keyAuthorization string, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	keyAuthorization, ok = i.tokens[token]
	return keyAuthorization, ok
}

// usable tells whether a key is of a kind that CAs certify and that the keeper
// makes.
func usable(public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 4096
	}
	return false
}

// session is what one issuance asks the CA by.
type session struct {
	*Issuer
	*proto.Client
	wire *bounded
}

func (i *Issuer) session() *session {
	w := &bounded{base: i.base, now: i.c.Now}
	return &session{Issuer: i, wire: w, Client: &proto.Client{
		Directory: i.c.Directory, UserAgent: "sallyport", PollInterval: i.c.Poll, PollTimeout: i.c.Timeout,
		HTTPClient: &http.Client{Transport: w, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}}
}

// registered is the account at the CA, made when the CA does not know the key.
func (s *session) registered(ctx context.Context) (proto.Account, error) {
	select {
	case s.registering <- struct{}{}:
	case <-ctx.Done():
		return proto.Account{}, ctx.Err()
	}
	defer func() { <-s.registering }()
	s.mu.Lock()
	known := s.account
	s.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	a, err := s.register(ctx)
	if err != nil {
		return a, err
	}
	s.mu.Lock()
	s.account = &a
	s.mu.Unlock()
	return a, nil
}

func (s *session) register(ctx context.Context) (proto.Account, error) {
	a := proto.Account{PrivateKey: s.c.Account, TermsOfServiceAgreed: true}
	if s.c.Contact != "" {
		a.Contact = []string{"mailto:" + s.c.Contact}
	}
	if e := s.c.External; e != nil {
		if err := a.SetExternalAccountBinding(ctx, s.Client, proto.EAB{KeyID: e.ID, MACKey: base64.RawURLEncoding.EncodeToString(e.Key)}); err != nil {
			return a, err
		}
	}
	a, err := s.NewAccount(ctx, a)
	if err != nil {
		return a, err
	}
	if a.Location == "" {
		return a, errors.New("the CA gave an account without an address")
	}
	switch a.Status {
	case proto.StatusValid:
	case proto.StatusDeactivated, proto.StatusRevoked:
		return a, fault.New(fault.Denied, "acme.Account", "the CA says that the account is "+clean(a.Status)).
			WithHint("Make a new account key, or ask the CA why.")
	default:
		return a, fmt.Errorf("the CA gave an account in the state %q", a.Status)
	}
	a.ExternalAccountBinding = nil
	return a, nil
}

// forget lets the account be asked for again: a CA may have lost it.
func (i *Issuer) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.account = nil
}
