package edge

import (
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Config of the edge.
type Config struct {
	Store       *store.Store
	Tenants     *tenant.Registry
	Connections *connection.Registry
	Directory   *directory.Directory
	Queue       *queue.Queue
	Trace       *trace.Log
	Limits      Limits
	// Hostname is our name for a region ("mx.us.example.net"), or for all of
	// them ("mx.example.net") when region is "".
	Hostname func(region string) string
	Log      *slog.Logger
	Now      func() time.Time
}

// Limits of the dialogue; a zero field means its default.
type Limits struct {
	ConnectionsPerIP      int // concurrent; default 50
	ConnectionsPerNetwork int // concurrent, IPv4 /24 and IPv6 /48; default 200
	ConnectsPerIPMinute   int // default 600
	MessagesPerIPMinute   int // default 1200
	RecipientsPerIPMinute int // default 6000
	UnknownPerSession     int // refused recipients before 421; default 20
	HeaderFields          int // default 1000
	HeaderBytes           int // default 256 KiB
	MaxReceived           int // default 50: loop
}

// Kind of a listener.
type Kind string

const (
	Inbound    Kind = "inbound"    // port 25: mail for our tenants' domains, and from platforms
	Submission Kind = "submission" // 587 and 465: AUTH only
)

// Edge makes sessions.
type Edge struct { /* unexported */
}

func New(c Config) *Edge { panic("skeleton") }

// Backend is what a listener of that kind is served with. region is "" for a
// listener shared by all regions.
func (e *Edge) Backend(kind Kind, region string) smtp.Backend { panic("skeleton") }

// Stats are figures for metrics.
type Stats struct {
	Sessions                    int64
	Connects, Accepted, Refused uint64
	Deferred                    uint64
}

func (e *Edge) Stats() Stats { panic("skeleton") }
