package queue

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Config of the queue.
type Config struct {
	Store *store.Store
	Trace *trace.Log
	Log   *slog.Logger
	Now   func() time.Time
	// Window is how many items of a destination are in memory; 0 means 500.
	Window int
	// WindowBytes bounds the bodies kept in memory for quick delivery over all
	// destinations; 0 means 32 MiB.
	WindowBytes int64
	// Slots is how many deliveries run at a time over all destinations; 0
	// means 200.
	Slots int
	// Limit says how many connections a destination may have at a time, over
	// which it is reached.
	Limit func(destination string) int
	// Times of a tenant: how long to try, and when to tell an own sender of
	// delay (0: never).
	Times func(tenant string) (expiry, delayNotice time.Duration)
	// Bounce gives the route for a notification to one of our own tenants'
	// senders; ok false when the address is not served by that tenant.
	Bounce func(tenant string, to mail.Address) (destination, connection string, ok bool)
	// Hostname is the Reporting-MTA of a tenant's notifications.
	Hostname func(tenant string) string
}

// State of an item.
type State string

const (
	Ready    State = "ready"
	Leased   State = "leased" // never stored: memory of this process
	Deferred State = "deferred"
	Held     State = "held"
	Failed   State = "failed" // kept: listed, retryable, until its retention ends
)

// Recipient is one recipient of an item.
type Recipient struct {
	mail.Recipient
	State string     `json:"state"` // "queued", "delivered", "failed"
	Last  mail.Reply `json:"last"`
}

// Item is a message on a route.
type Item struct {
	ID          string
	Message     string // the message's id, the trace id
	Tenant      string
	Region      string
	Direction   string // "inbound" or "outbound"
	Destination string
	Connection  string // of the tenant, "" for the internet
	Domain      string // of the recipients, for MX look-ups
	From        mail.Address
	Params      mail.FromParams
	Recipients  []Recipient
	Own         bool // the sender is an authenticated one of the tenant: DSNs may be sent
	MessageID   string
	Subject     string
	Prefix      []byte // trace header fields of ours, sent before the body
	Body        store.BodyRef
	Size        int64 // prefix and body
	ReceivedAt  time.Time
	ExpiresAt   time.Time
	State       State
	Reason      string // of held, failed
	Due         time.Time
	Attempts    int
	Last        mail.Reply
	LastAt      time.Time

	// unexported: the cached body, window bookkeeping
}

// Message is what Put takes: one message of one tenant with its items.
type Message struct {
	Summary trace.Message
	Steps   []trace.Step // how it came
	Body    *store.Body  // shared by the messages of one transaction
	Ref     store.BodyRef
	Items   []Item // ids, Message, Tenant, Body and times are filled in by Put
}

// Queue is the queue.
type Queue struct { /* unexported */
}

// New opens the queue: it reads destinations and counts, not items.
func New(ctx context.Context, c Config) (*Queue, error) { panic("skeleton") }

// Put commits messages, with their bodies and first steps, in one durable
// write. Nothing of them is kept when it fails. Items may start Held, Failed
// or Deferred.
func (q *Queue) Put(ctx context.Context, ms []Message) error { panic("skeleton") }

// Run does the timed work (due items, expiry, delay notices, retention) until
// ctx ends.
func (q *Queue) Run(ctx context.Context) error { panic("skeleton") }

// Slot is the right to use one connection to a destination.
type Slot struct {
	Destination string
	Probe       bool // the destination is down: this slot gets one item
	// unexported
}

// Slot waits for a destination that has items to deliver and room for one more
// connection; fair between destinations.
func (q *Queue) Slot(ctx context.Context) (*Slot, error) { panic("skeleton") }

// Next leases the destination's next item, fair between tenants, oldest first
// within one. It waits up to idle for one to come; ok is false when none did,
// or when the destination has been stopped or is to be left.
func (s *Slot) Next(ctx context.Context, idle time.Duration) (it *Item, ok bool) { panic("skeleton") }

// Release gives the slot back.
func (s *Slot) Release() { panic("skeleton") }

// Open reads an item's body, from memory when it is still there.
func (q *Queue) Open(ctx context.Context, it *Item) (io.ReadCloser, error) { panic("skeleton") }

// Bytes is the item's body when it is in memory, else nil.
func (q *Queue) Bytes(it *Item) []byte { panic("skeleton") }

// Attempt is what an attempt on a leased item brought.
type Attempt struct {
	At      time.Time
	Peer    string // host and address that was talked to
	TLS     *trace.TLS
	Stage   string       // "resolve", "connect", "greeting", "hello", "tls", "auth", "mail", "rcpt", "data", "sent" (dot sent, no answer)
	Whole   *mail.Reply  // a reply that is everybody's: a failed connection, a refused MAIL, DATA or dot; a Code of 0 has our own words in Text
	Replies []mail.Reply // per recipient still queued, in order, when Whole is nil
	Skipped bool         // nothing was tried: give the item back as it was
}

// Report ends a lease with what the attempt brought: classifies, transitions,
// writes item, event and notifications in one commit. It returns when that is
// durable. The destination's own state follows from it.
func (q *Queue) Report(ctx context.Context, it *Item, a Attempt) error { panic("skeleton") }

// Filter of List and of the bulk acts; zero fields match everything. Tenant ""
// needs the operator.
type Filter struct {
	Tenant, Destination, Message, Item, Reason string
	States                                     []State
	OlderThan                                  time.Duration
	After                                      string
	Limit                                      int
}

// Listed is an item as the contract shows it.
type Listed struct {
	ID          string     `json:"id"`
	Message     string     `json:"message"`
	Tenant      string     `json:"tenant"`
	Recipients  []string   `json:"recipients"`
	Destination string     `json:"destination"`
	State       State      `json:"state"`
	Attempts    int        `json:"attempts"`
	NextAt      *time.Time `json:"next_at"`
	Last        *Last      `json:"last"`
	Reason      string     `json:"reason"`
	ReceivedAt  time.Time  `json:"received_at"`
}

// Last is the last reply to an item.
type Last struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced"`
	Text     string `json:"text"`
}

func (q *Queue) List(ctx context.Context, f Filter) (page []Listed, next string, err error) {
	panic("skeleton")
}

// Show is one item with what List leaves out; kind missing.
func (q *Queue) Show(ctx context.Context, tenant, id string) (Item, error) { panic("skeleton") }

// Bulk acts return how many items they changed; they run in batches and stop
// when ctx ends. actor goes into the trace.
func (q *Queue) Retry(ctx context.Context, actor string, f Filter) (int, error) { panic("skeleton") }
func (q *Queue) Hold(ctx context.Context, actor string, f Filter, reason string) (int, error) {
	panic("skeleton")
}
func (q *Queue) Unhold(ctx context.Context, actor string, f Filter) (int, error) { panic("skeleton") }
func (q *Queue) Drop(ctx context.Context, actor string, f Filter, reason string) (int, error) {
	panic("skeleton")
}
func (q *Queue) Reroute(ctx context.Context, actor string, f Filter, destination, connection string) (int, error) {
	panic("skeleton")
}

// Destination is a destination's state, for the api and for alarms.
type Destination struct {
	Key      string     `json:"destination"`
	State    string     `json:"state"` // "up", "down" (host), "stopped" (route),
	Reason   string     `json:"reason"`
	Queued   int64      `json:"queued"`
	InFlight int        `json:"in_flight"`
	NextTry  *time.Time `json:"next_try"`
	Oldest   *time.Time `json:"oldest"`
	Since    *time.Time `json:"since"` // of the state
}

func (q *Queue) Destinations(ctx context.Context, tenant string) ([]Destination, error) {
	panic("skeleton")
}

// Resume ends a destination's stop or back-off at once.
func (q *Queue) Resume(ctx context.Context, actor, destination string) error { panic("skeleton") }

// Stop is a stop switch: nothing that matches is delivered until it is lifted.
type Stop struct {
	Scope  string    `json:"scope"` // "outbound" (all of it), "tenant", "domain" (of recipients), "sender"
	Value  string    `json:"value"`
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
	Since  time.Time `json:"since"`
}

func (q *Queue) SetStop(ctx context.Context, s Stop) error               { panic("skeleton") }
func (q *Queue) LiftStop(ctx context.Context, scope, value string) error { panic("skeleton") }
func (q *Queue) Stops() []Stop                                           { panic("skeleton") }

// InUse is of kind conflict when the tenant has items.
func (q *Queue) InUse(tenant string) error { panic("skeleton") }

// Stats are figures for metrics and the demo.
type Stats struct {
	Queued, Ready, Deferred, Held, Failed, InFlight int64
	Accepted, Delivered, Deferrals, Failures        uint64 // since start
	Destinations                                    int
	OldestReady                                     *time.Time
}

func (q *Queue) Stats() Stats { panic("skeleton") }
