package trace

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// Message is the summary of a message.
type Message struct {
	ID         string    `json:"id"`         // ULID: message id, trace id
	MessageID  string    `json:"message_id"` // the header field, with angle brackets
	Tenant     string    `json:"tenant"`
	Region     string    `json:"region"`
	Direction  string    `json:"direction"` // "inbound" or "outbound"
	From       string    `json:"from"`
	To         []string  `json:"to"`
	Subject    string    `json:"subject"`
	Size       int64     `json:"size"`
	ReceivedAt time.Time `json:"received_at"`
	State      string    `json:"state"` // queued, delivered, partial, failed, held, dropped, refused
}

// TLS is how a step's connection was protected.
type TLS struct {
	Version  string `json:"version"`
	Cipher   string `json:"cipher"`
	Verified bool   `json:"verified"`
	Client   string `json:"client"` // subject of the client certificate, "" for none
}

// Step is one thing that happened. Absent values are null.
type Step struct {
	Time      time.Time `json:"time"`
	Step      string    `json:"step"` // received, accepted, attempt, delivered, deferred, failed, held, released, rerouted, retried, dropped, expired, notified
	Recipient *string   `json:"recipient"`
	Peer      *string   `json:"peer"`
	TLS       *TLS      `json:"tls"`
	Code      *int      `json:"code"`
	Enhanced  *string   `json:"enhanced"`
	Text      *string   `json:"text"`
}

// Counts are recipients by what became of them; an event carries how they
// change, a message the sums, and its state follows from these.
type Counts struct {
	Queued, Delivered, Failed, Held, Dropped int
}

// Event is what one commit tells of one message.
type Event struct {
	Tenant  string
	ID      string   // the message
	Message *Message // the summary, in the first event only
	Change  Counts   // signed
	Steps   []Step
}

// Write inserts the event in the transaction of what it tells. The events
// that a commit wrote are then passed to Log.Committed.
func Write(tx store.RoadTx, e Event) (seq int64, err error) { panic("skeleton") }

// Config of the log.
type Config struct {
	Road  *store.DB
	Trace *store.DB
	Log   *slog.Logger
	Now   func() time.Time
	// Keep says how long a tenant's traces are kept.
	Keep func(tenant string) time.Duration
	// RefusalsPerMinute caps how many different refusals are written; what is
	// more is summed. 0 means 600.
	RefusalsPerMinute int
}

// Log moves events and answers questions.
type Log struct { /* unexported */
}

func New(c Config) (*Log, error) { panic("skeleton") }

// Run moves events, writes refusals and ends what is past its retention,
// until ctx ends; then it moves what is left.
func (l *Log) Run(ctx context.Context) error { panic("skeleton") }

// Committed hands events over in memory, so that the mover need not read what
// the process has just written. It never blocks; when the mover is behind they
// are read from the road later.
func (l *Log) Committed(seqs []int64, events []Event) { panic("skeleton") }

// Filter of List; zero fields match everything. Tenant "" needs the operator.
type Filter struct {
	Tenant, State, From, To, MessageID string
	Since                              time.Time
	After                              string // cursor: an id from the last page; newest first
	Limit                              int
}

// List catches up with the road first, waiting at most two seconds.
func (l *Log) List(ctx context.Context, f Filter) (page []Message, next string, err error) {
	panic("skeleton")
}

// Show finds a message by id or Message-ID; tenant "" is the operator. Kind
// missing.
func (l *Log) Show(ctx context.Context, tenant, id string) (Message, []Step, error) {
	panic("skeleton")
}

// Refusal is one refusal in the SMTP dialogue.
type Refusal struct {
	Time     time.Time `json:"time"` // of the first of them
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
	Peer     string    `json:"peer"` // IP address
	Hello    string    `json:"hello"`
	Tenant   string    `json:"tenant"` // "" when it is nobody's
	From     string    `json:"from"`
	To       string    `json:"to"`
	Command  string    `json:"command"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced"`
	Text     string    `json:"text"`
}

// Refused notes a refusal; it never blocks and costs no commit.
func (l *Log) Refused(r Refusal) { panic("skeleton") }

// Refusals lists them, newest first.
func (l *Log) Refusals(ctx context.Context, f Filter) (page []Refusal, next string, err error) {
	panic("skeleton")
}
