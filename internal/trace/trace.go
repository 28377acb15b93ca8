package trace

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
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

	steps string // Steps as Encode has written them
}

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
type Log struct {
	c      Config
	mover  mover
	refuse refusals
}

// New makes a log. What an earlier process left on the road is moved by Run,
// or by the first reader.
func New(c Config) (*Log, error) {
	if c.Road == nil || c.Trace == nil {
		return nil, fault.New(fault.Internal, "trace.New", "both databases are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Keep == nil {
		c.Keep = func(string) time.Duration { return defaultKeep }
	}
	if c.RefusalsPerMinute == 0 {
		c.RefusalsPerMinute = 600
	}
	l := &Log{c: c}
	l.mover.init(c)
	l.refuse.init(c)
	return l, nil
}

const defaultKeep = 30 * 24 * time.Hour

// Run moves events, writes refusals and ends what is past its retention,
// until ctx ends; then it moves what is left.
func (l *Log) Run(ctx context.Context) error {
	flush := time.NewTicker(flushRefusals)
	defer flush.Stop()
	retain := time.NewTimer(time.Minute)
	defer retain.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.finish()
		case <-l.mover.kick:
			l.gather(ctx)
			l.try(ctx, "events were not moved", l.mover.move)
		case <-flush.C:
			l.try(ctx, "refusals were not written", l.refuse.flush)
		case <-retain.C:
			l.try(ctx, "old traces were not removed", l.retain)
			retain.Reset(time.Hour)
		}
	}
}

// gather lets a batch grow: the more events share a commit, the cheaper each.
func (l *Log) gather(ctx context.Context) {
	wait := time.NewTimer(pace)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-l.mover.full:
	case <-ctx.Done():
	}
}

// try does a part of the timed work; what fails is tried again at its next
// turn, for everything is still where it was.
func (l *Log) try(ctx context.Context, what string, f func(context.Context) error) {
	err := f(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	l.c.Log.Warn("trace: "+what, "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
		l.mover.nudge()
	}
}

// finish moves what is left, in bounded time: what it does not manage stays on
// the road.
func (l *Log) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(l.mover.move(ctx), l.refuse.flush(ctx))
}

// Committed hands events over in memory, so that the mover need not read what
// the process has just written. It never blocks; when the mover is behind they
// are read from the road later.
func (l *Log) Committed(seqs []int64, events []Event) { l.mover.hand(seqs, events) }

// Missed says that events may have been committed without anybody knowing
// their numbers, as when the connection is lost at a commit: they are read from
// the road.
func (l *Log) Missed() {
	l.mover.setBehind(true)
	l.mover.nudge()
}

// Filter of List; zero fields match everything. Tenant "" needs the operator.
// From and To match an address, or a whole domain when they begin with "@".
type Filter struct {
	Tenant, State, From, To, MessageID string
	Since                              time.Time
	After                              string // cursor: an id from the last page; newest first
	Limit                              int
}
