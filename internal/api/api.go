package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/edge"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Config of the API. What it may not import comes as functions; a nil function
// means that this gateway does not have the thing, and its route says so.
type Config struct {
	Tenants     *tenant.Registry
	Connections *connection.Registry
	Directory   *directory.Directory
	Queue       *queue.Queue
	Trace       *trace.Log
	Resolver    dns.Resolver

	// Hostname is the MX name of a region ("mx.us.example.net").
	Hostname func(region string) string
	// SPF is the mechanism that customers put into their SPF record so that
	// our egress addresses pass (RFC 7208 5.2), "include:_spf.example.net";
	// empty leaves SPF out of the DNS to publish.
	SPF string
	// SetCredential hands the secret of a connection to its custody; nothing
	// here keeps it.
	SetCredential func(ctx context.Context, actor tenant.Actor, tenant, connection, user, secret string) error

	// Books are the ledgers of the regions; nil where there is no keeper.
	Books Books

	Edge         func() edge.Stats
	Store        func() StoreStats
	Regions      func() []RegionStats
	Certificates func() []Certificate

	Ready  func(ctx context.Context) error
	Checks []Check
	Backup func(ctx context.Context, file string) error
	Verify func(ctx context.Context) ([]Finding, error)
	// Scratch is a directory on the data disk for the backup that is being
	// streamed; it must exist.
	Scratch string

	// OpenMetrics lets /metrics be read without a token: for a listener on
	// loopback.
	OpenMetrics bool
	Version     string
	Log         *slog.Logger
	Now         func() time.Time
}

// StoreStats are the store's figures.
type StoreStats struct {
	Commits   uint64 `json:"commits"`
	Changes   uint64 `json:"changes" doc:"Changes in those commits: changes/commits is the group size"`
	Retried   uint64 `json:"retried"`
	Waiting   int    `json:"waiting" doc:"Changes for which no commit has begun"`
	WALBytes  int64  `json:"wal_bytes"`
	FreeBytes int64  `json:"free_bytes"`
	Outbox    int64  `json:"outbox" doc:"Audit events on their way to the ledger"`
}

// RegionStats are one region's figures.
type RegionStats struct {
	Region    string `json:"region"`
	Delivered uint64 `json:"delivered"`
}

// Certificate is a server certificate in use.
type Certificate struct {
	Host     string    `json:"host"`
	NotAfter time.Time `json:"not_after"`
}

// Finding is one thing that Verify found wrong.
type Finding struct {
	Where string `json:"where"`
	What  string `json:"what"`
}

// Check is one thing that doctor looks at.
type Check struct {
	Name string
	Run  func(ctx context.Context) (ok bool, detail, fix string)
}

// server is what the routes share.
type server struct {
	Config
	needs    map[string]need
	replays  *replays
	settings sync.Mutex // one change of settings at a time: PATCH reads, then writes
}

// New builds the handler of everything.
func New(c Config) http.Handler {
	s := &server{Config: c, needs: needs(), replays: newReplays(c.Now)}
	mux := http.NewServeMux()
	doc := s.register(mux)
	mux.HandleFunc("GET /openapi.json", serveJSON("application/openapi+json", doc))
	return s.outer(mux)
}

// NewServer is an HTTP server with timeouts against slow and silent clients.
// There is no WriteTimeout: a backup streams for as long as it takes, and the
// handlers bound themselves.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// actor is the caller, for audit events and traces.
func actor(ctx context.Context) tenant.Actor {
	return tenant.Actor("token:" + caller(ctx).Token)
}
