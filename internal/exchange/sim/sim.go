package sim

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// Config is what a simulator is made of.
type Config struct {
	// Dir keeps the state; "" keeps it in memory alone.
	Dir string
	// Tenants is how many there are to be. Those of an earlier run stay, even
	// where they are more.
	Tenants int
	// LogDelay is how long a row of a log waits before it is shown.
	LogDelay time.Duration
	// Roots stand for the public certificate authorities: client certificates
	// below them are good for every tenant's connectors.
	Roots []*x509.Certificate
	Now   func() time.Time
	Log   *slog.Logger
}

// Sim is a running simulator.
type Sim struct {
	cfg    Config
	ca     *authority
	tokens *rsa.PrivateKey // what access tokens are signed with
	disk   *disk           // nil without a directory
	mail   *smtp.Server
	web    *http.Server

	mu       sync.Mutex
	tenants  map[string]*tenant // by Entra tenant id
	order    []string           // those ids, oldest first
	domains  map[string]*tenant // by accepted domain
	admins   map[string]*tenant // by the administrator's token
	onPrem   map[string]*tenant // those with a connector of type OnPremises
	arrivals map[string][]Arrival
	signIns  map[string][]SignIn
	audits   map[string][]Audit
	acts     map[string][]AdminAct
	seen     map[string]time.Time   // assertion ids, for strict replay refusal
	asked    map[string][]time.Time // reads of the sign-in log, for its limit
	unknown  []string
	unknowns int
	smtpAddr string
	httpAddr string
}

// Open makes a simulator, or opens the one that Config.Dir keeps.
func Open(cfg Config) (*Sim, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sim{
		cfg: cfg, tenants: map[string]*tenant{}, domains: map[string]*tenant{}, admins: map[string]*tenant{}, onPrem: map[string]*tenant{},
		arrivals: map[string][]Arrival{}, signIns: map[string][]SignIn{}, audits: map[string][]Audit{}, acts: map[string][]AdminAct{},
		seen: map[string]time.Time{}, asked: map[string][]time.Time{},
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mail = &smtp.Server{Backend: s, Log: cfg.Log, Now: cfg.Now}
	s.web = &http.Server{
		Handler: http.HandlerFunc(s.serveHTTP), ReadTimeout: time.Minute, ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// maxMessage is the size that the front takes: Exchange Online lets a tenant
// set up to 150 MB.
const maxMessage = 150 << 20

// Serve answers on both listeners until Close. It returns at once.
func (s *Sim) Serve(smtpListener, httpListener net.Listener) error {
	cert, err := s.ca.server(s.cfg.Now())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.smtpAddr, s.httpAddr = smtpListener.Addr().String(), httpListener.Addr().String()
	err = s.disk.saveIndex(s)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	go s.mail.Serve(smtpListener, smtp.Listener{
		Name: "exchange", Hostname: func(*smtp.Conn) string { return frontName },
		// A client certificate is asked for and never required (facts 1.2): who
		// shows none is anonymous. It is judged by the connectors, later.
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
			MinVersion: tls.VersionTLS12, Time: s.cfg.Now},
		MaxSize: maxMessage, MaxRcpt: mostRecipients, MaxConns: 20000, MaxErrors: 100,
		EvictSilent: 10 * time.Second, EvictIdle: time.Minute, TransactionTimeout: 10 * time.Minute,
	})
	secure := tls.NewListener(httpListener, &tls.Config{Certificates: []tls.Certificate{cert},
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Time: s.cfg.Now})
	go func() {
		if err := s.web.Serve(secure); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error("the HTTPS side stopped", "error", err)
		}
	}()
	return nil
}

// Close stops serving: what has begun is finished until ctx ends.
func (s *Sim) Close(ctx context.Context) error {
	err := s.web.Shutdown(ctx)
	if e := s.mail.Shutdown(ctx); e != nil && err == nil {
		err = e
	}
	if e := s.disk.close(); e != nil && err == nil {
		err = e
	}
	return err
}

// CA is the certificate of the simulator's own authority, PEM.
func (s *Sim) CA() []byte { return slices.Clone(s.ca.pem) }

// Pool trusts the simulator's own authority alone.
func (s *Sim) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return pool
}

// Listed is one tenant as `sim m365 list` prints it.
type Listed struct {
	EntraTenant   string `json:"entra_tenant"`
	Domain        string `json:"domain"`
	ConnectorName string `json:"connector_name"`
	AppID         string `json:"app_id"`
	AdminToken    string `json:"admin_token"`
	SMTP          string `json:"smtp"`
	Graph         string `json:"graph"`
	CAFile        string `json:"ca_file"`
}

// List is what there is, oldest tenant first.
func (s *Sim) List() []Listed {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Listed, 0, len(s.order))
	for _, id := range s.order {
		out = append(out, s.tenants[id].listed(s.smtpAddr, s.httpAddr, s.disk.caFile()))
	}
	return out
}

// mostNamed bounds how many unknown requests are kept by name.
const mostNamed = 1000

// Unknown names the requests that the simulator did not know, "METHOD path:
// what". A test that finds any has met a hole.
func (s *Sim) Unknown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.unknown)
}

// noteUnknown counts a request that is not modelled.
func (s *Sim) noteUnknown(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknowns++
	if len(s.unknown) < mostNamed {
		s.unknown = append(s.unknown, what)
	}
	s.cfg.Log.Error("request that the simulator does not know", "request", what, "so_far", s.unknowns)
}

// find is the tenant of that Entra id, nil for none. The caller holds mu.
func (s *Sim) find(id string) *tenant { return s.tenants[id] }

// random fills n bytes; the reader of crypto/rand does not fail.
func random(r io.Reader, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		panic("no randomness: " + err.Error())
	}
	return b
}
