package queue

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Recipient is one recipient of an item.
type Recipient struct {
	mail.Recipient
	State string     `json:"state"` // "queued", "delivered", "failed", or "bounced": failed, and the sender was told
	Last  mail.Reply `json:"last"`
}

// States of a recipient.
const (
	rcptQueued    = "queued"
	rcptDelivered = "delivered"
	rcptFailed    = "failed"
	rcptBounced   = "bounced"
)

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
	Cut         []mail.Span // of the body, in order: what is left out wherever it is read
	Size        int64       // prefix and body, without what is cut
	ReceivedAt  time.Time
	ExpiresAt   time.Time
	State       State
	Reason      string // of held, failed
	Due         time.Time
	Attempts    int
	Last        mail.Reply
	LastAt      time.Time

	bytes  []byte // the body, while there is room for it in memory
	shared bool   // the body is another item's too
	told   bool   // the sender was told of delay
}

// Message is what Put takes: one message of one tenant with its items.
type Message struct {
	Summary trace.Message
	Steps   []trace.Step // how it came
	Body    *store.Body  // shared by the messages of one transaction
	Ref     store.BodyRef
	Items   []Item // ids, Message, Tenant, Body, Size and times are filled in by Put
}

// flags of an item's row.
const (
	flagFile   = 1 << iota // the body is a file
	flagShared             // the body is another item's too
	flagTold               // the sender was told of delay
	flagOwn                // the sender may be told of delay and failure
)

func (it *Item) flags() int {
	return flag(it.Body.File, flagFile) | flag(it.shared, flagShared) | flag(it.told, flagTold) | flag(it.tellable(), flagOwn)
}

func flag(set bool, bit int) int {
	if set {
		return bit
	}
	return 0
}

// tellable reports whether notifications may go to the sender: to our own
// tenants' senders only, and never in answer to one (RFC 3464 2, RFC 3461 6.1).
func (it *Item) tellable() bool { return it.Own && !it.From.IsNull() }

// open is how many recipients the item's state is about: those that failed
// when it has failed, those that wait otherwise.
func (it *Item) open() int {
	want := rcptQueued
	if it.State == Failed {
		want = rcptFailed
	}
	n := 0
	for i := range it.Recipients {
		if it.Recipients[i].State == want {
			n++
		}
	}
	return n
}

// counts is what an item in this state adds to its message's sums.
func counts(s stored, rcpts int) trace.Counts {
	switch s {
	case storedHeld:
		return trace.Counts{Held: rcpts}
	case storedFailed:
		return trace.Counts{Failed: rcpts}
	}
	return trace.Counts{Queued: rcpts}
}

func minus(a, b trace.Counts) trace.Counts {
	return trace.Counts{
		Queued: a.Queued - b.Queued, Delivered: a.Delivered - b.Delivered, Failed: a.Failed - b.Failed,
		Held: a.Held - b.Held, Dropped: a.Dropped - b.Dropped,
	}
}

// detail is the part of a row that the road does not read.
type detail struct {
	Region     string          `json:"r,omitempty"`
	Direction  string          `json:"d,omitempty"`
	Domain     string          `json:"n,omitempty"`
	From       mail.Address    `json:"f"`
	Params     mail.FromParams `json:"p"`
	Recipients []Recipient     `json:"t"`
	Own        bool            `json:"o,omitempty"`
	MessageID  string          `json:"i,omitempty"`
	Subject    string          `json:"s,omitempty"`
	Prefix     []byte          `json:"x,omitempty"`
	Cut        []mail.Span     `json:"c,omitempty"`
	Last       mail.Reply      `json:"l"`
	LastAt     int64           `json:"a,omitempty"`
}

// encode appends by hand what detail reads: every message pays for it.
func (it *Item) encode() string {
	b := make([]byte, 0, 256+len(it.Prefix)*4/3+160*len(it.Recipients))
	b = append(b, `{"r":`...)
	b = trace.AppendJSON(b, it.Region)
	b = text(b, `,"d":`, it.Direction)
	b = text(b, `,"n":`, it.Domain)
	b = appendAddress(append(b, `,"f":{`...), it.From)
	b = append(b, `},"p":{"size":`...)
	b = strconv.AppendInt(b, it.Params.Size, 10)
	b = text(b, `,"body":`, it.Params.Body)
	b = text(b, `,"ret":`, it.Params.Ret)
	b = text(b, `,"envid":`, it.Params.EnvID)
	b = strconv.AppendBool(append(b, `,"utf8":`...), it.Params.UTF8)
	b = append(b, `},"t":[`...)
	for i := range it.Recipients {
		if i > 0 {
			b = append(b, ',')
		}
		b = it.Recipients[i].append(b)
	}
	b = strconv.AppendBool(append(b, `],"o":`...), it.Own)
	b = text(b, `,"i":`, it.MessageID)
	b = text(b, `,"s":`, it.Subject)
	b = base64.StdEncoding.AppendEncode(append(b, `,"x":"`...), it.Prefix)
	b = appendSpans(append(b, '"'), it.Cut)
	b = appendReply(append(b, `,"l":`...), it.Last)
	b = strconv.AppendInt(append(b, `,"a":`...), micros(it.LastAt), 10)
	return string(append(b, '}'))
}

func text(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return trace.AppendJSON(append(b, key...), value)
}

func appendAddress(b []byte, a mail.Address) []byte {
	b = trace.AppendJSON(append(b, `"local":`...), a.Local)
	return trace.AppendJSON(append(b, `,"domain":`...), a.Domain)
}

func (r *Recipient) append(b []byte) []byte {
	b = appendAddress(append(b, '{'), r.Address)
	b = text(b, `,"notify":`, r.Notify)
	b = text(b, `,"orcpt":`, r.ORcpt)
	b = text(b, `,"state":`, r.State)
	return append(appendReply(append(b, `,"last":`...), r.Last), '}')
}

func appendReply(b []byte, r mail.Reply) []byte {
	b = strconv.AppendInt(append(b, `{"code":`...), int64(r.Code), 10)
	b = text(b, `,"enhanced":`, r.Enhanced)
	b = text(b, `,"text":`, r.Text)
	return append(b, '}')
}

func appendSpans(b []byte, spans []mail.Span) []byte {
	for i, s := range spans {
		if i == 0 {
			b = append(b, `,"c":[{"from":`...)
		} else {
			b = append(b, `},{"from":`...)
		}
		b = strconv.AppendInt(b, int64(s.From), 10)
		b = strconv.AppendInt(append(b, `,"to":`...), int64(s.To), 10)
	}
	if len(spans) > 0 {
		b = append(b, "}]"...)
	}
	return b
}

func (it *Item) decode(text string) error {
	var d detail
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return fault.Wrap(fault.Internal, "queue.decode", err)
	}
	it.Region, it.Direction, it.Domain, it.From, it.Params = d.Region, d.Direction, d.Domain, d.From, d.Params
	it.Recipients, it.Own, it.MessageID, it.Subject, it.Prefix, it.Cut = d.Recipients, d.Own, d.MessageID, d.Subject, d.Prefix, d.Cut
	it.Last, it.LastAt = d.Last, fromMicros(d.LastAt)
	return nil
}

// row is an item without its envelope: what the road reads.
type row struct {
	id, message, tenant, destination, connection string
	state                                        stored
	due, expires, received                       int64
	rcpts                                        int
	reason                                       string
	flags                                        int
	body                                         string
	size, sum                                    int64
}

type scanner interface{ Scan(dest ...any) error }

func (r *row) scan(s scanner) error {
	return s.Scan(&r.id, &r.message, &r.tenant, &r.destination, &r.connection, &r.state, &r.due, &r.expires, &r.received,
		&r.rcpts, &r.reason, &r.flags, &r.body, &r.size, &r.sum)
}

func (r *row) ref() store.BodyRef {
	return store.BodyRef{Tenant: r.tenant, ID: r.body, Size: r.size, Sum: uint32(r.sum), File: r.flags&flagFile != 0}
}

// scanItem reads an item with its envelope.
func scanItem(s scanner) (*Item, error) {
	var r row
	var attempts int
	var text string
	if err := s.Scan(&r.id, &r.message, &r.tenant, &r.destination, &r.connection, &r.state, &r.due, &r.expires, &r.received,
		&attempts, &r.rcpts, &r.reason, &r.flags, &r.body, &r.size, &r.sum, &text); err != nil {
		return nil, err
	}
	it := &Item{
		ID: r.id, Message: r.message, Tenant: r.tenant, Destination: r.destination, Connection: r.connection,
		State: r.state.state(), Due: fromMicros(r.due), ExpiresAt: fromMicros(r.expires), ReceivedAt: fromMicros(r.received),
		Attempts: attempts, Reason: r.reason, Body: r.ref(),
		shared: r.flags&flagShared != 0, told: r.flags&flagTold != 0,
	}
	if err := it.decode(text); err != nil {
		return nil, err
	}
	it.Size = it.size()
	it.revive()
	return it, nil
}

// revive makes the failed recipients of an item that is tried again wait
// again: a retry changes the row's state and does not rewrite the envelope.
func (it *Item) revive() {
	if it.State == Failed || it.open() > 0 {
		return
	}
	for i := range it.Recipients {
		if it.Recipients[i].State == rcptFailed {
			it.Recipients[i].State = rcptQueued
		}
	}
}

func (it *Item) insert(tx store.RoadTx, text string) error {
	_, err := tx.Exec(insertItem, it.ID, it.Message, it.Tenant, it.Destination, it.Connection, int(it.State.stored()),
		micros(it.Due), micros(it.ExpiresAt), micros(it.ReceivedAt), it.Attempts, it.open(), clean(it.Reason), it.flags(),
		it.Body.ID, it.Body.Size, int64(it.Body.Sum), text)
	return err
}

// size is how many bytes are sent.
func (it *Item) size() int64 {
	return int64(len(it.Prefix)) + it.Body.Size - int64(mail.Length(it.Cut))
}

// memory is roughly what the item costs while it is kept in memory.
func (it *Item) memory() int64 {
	const itself = 1024
	return itself + int64(len(it.bytes)+len(it.Prefix)+200*len(it.Recipients)+16*len(it.Cut))
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// clean keeps a text to what a column of PostgreSQL takes, and short.
func clean(s string) string {
	const most = 500
	if len(s) > most {
		s = s[:most]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�")
}

// identifiers gives ULIDs in the order of their making.
type identifiers struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy
}

func (g *identifiers) next(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entropy == nil {
		g.entropy = ulid.Monotonic(rand.Reader, 0)
	}
	id, err := ulid.New(ulid.Timestamp(now), g.entropy)
	if err != nil { // the entropy of this millisecond is used up
		id = ulid.MustNew(ulid.Timestamp(now), rand.Reader)
	}
	return id.String()
}

// itemID is the id of a message's nth item: the nth ULID from the message's
// own, so that the items of a message are found by their key.
func itemID(message string, n int) (string, error) {
	id, err := ulid.ParseStrict(message)
	if err != nil {
		return "", fault.New(fault.Invalid, "queue.Put", "the message id "+message+" is not a ULID")
	}
	for i := len(id) - 1; i >= 0 && n > 0; i-- {
		n += int(id[i])
		id[i] = byte(n)
		n >>= 8
	}
	return id.String(), nil
}

// mostItems is how many items a message may have.
const mostItems = 1000
