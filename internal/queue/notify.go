package queue

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

const (
	mostHeader = 64 << 10  // of the original that a notification quotes
	mostFull   = 256 << 10 // of an original that is quoted whole (RET=FULL)
)

// wantsNotice reports whether a recipient's NOTIFY asks for that kind: FAILURE
// and, as it is customary, DELAY are also told where it is absent (RFC 3461
// 4.1, 5.2.7).
func (r *Recipient) wantsNotice(kind string) bool {
	if r.Notify == "" {
		return kind != "SUCCESS"
	}
	return slices.ContainsFunc(strings.Split(r.Notify, ","), func(s string) bool {
		return strings.EqualFold(strings.TrimSpace(s), kind)
	})
}

// tellFailure makes the notification that some recipients were refused, and
// marks them as told. Where the sender said NEVER there is none, and they
// count as told. Where he cannot be reached there is none either, and they
// stay failed: the item is kept.
func (q *Queue) tellFailure(ctx context.Context, it *Item, failed []int, peer string, now time.Time) (*staged, error) {
	var about []mail.DSNRecipient
	for _, i := range failed {
		if r := &it.Recipients[i]; r.wantsNotice("FAILURE") {
			about = append(about, r.notice(peer, it.LastAt))
		}
	}
	var s *staged
	if len(about) > 0 {
		var err error
		if s, err = q.notification(ctx, it, "failed", about, now); err != nil || s == nil {
			return nil, err
		}
	}
	for _, i := range failed {
		it.Recipients[i].State = rcptBounced
	}
	return s, nil
}

// tellRelayed makes the notification that the message was handed on to a host
// that tells nothing itself, for those who asked (RFC 3461 5.2.2).
func (q *Queue) tellRelayed(ctx context.Context, it *Item, a Attempt, now time.Time) (*staged, error) {
	var about []mail.DSNRecipient
	for i := range it.Recipients {
		r := &it.Recipients[i]
		if r.State == rcptDelivered && r.wantsNotice("SUCCESS") {
			about = append(about, r.notice(a.Peer, a.At))
			r.Notify = "NEVER" // once is enough, when others of the item are still waiting
		}
	}
	if len(about) == 0 {
		return nil, nil
	}
	return q.notification(ctx, it, "relayed", about, now)
}

// tellDelay makes the notification that recipients still wait.
func (q *Queue) tellDelay(ctx context.Context, it *Item, now time.Time) (*staged, error) {
	var about []mail.DSNRecipient
	for i := range it.Recipients {
		r := &it.Recipients[i]
		if r.State == rcptQueued && r.wantsNotice("DELAY") {
			about = append(about, r.notice("", it.LastAt))
		}
	}
	if len(about) == 0 {
		return nil, nil
	}
	return q.notification(ctx, it, "delayed", about, now)
}

func (r *Recipient) notice(peer string, at time.Time) mail.DSNRecipient {
	return mail.DSNRecipient{Address: r.Address, ORcpt: r.ORcpt, Remote: peer, Reply: r.Last, LastTry: at}
}

// notification makes a message of ours to the item's sender. It is nil when
// the sender's address is served by nobody.
func (q *Queue) notification(ctx context.Context, it *Item, kind string, about []mail.DSNRecipient, now time.Time) (*staged, error) {
	if q.c.Bounce == nil {
		return nil, nil
	}
	destination, connection, ok := q.c.Bounce(it.Tenant, it.From)
	if !ok {
		return nil, nil
	}
	original, full := q.quote(ctx, it)
	host := q.hostname(it.Tenant)
	id := q.ids.next(now)
	d := mail.DSN{
		Kind: kind, Reporting: host, From: "Mail Delivery System <mailer-daemon@" + host + ">", To: it.From,
		MessageID: "<" + id + "@" + host + ">", EnvID: it.Params.EnvID, Arrived: it.ReceivedAt, Now: now,
		Recipients: about, Original: original, Full: full, Boundary: "=_" + id,
	}
	if kind == "delayed" {
		d.WillRetry = it.ExpiresAt
	}
	return q.send(ctx, it, d, id, destination, connection)
}

// send stages a notification as a message of the tenant.
func (q *Queue) send(ctx context.Context, it *Item, d mail.DSN, id, destination, connection string) (*staged, error) {
	text := mail.WriteDSN(d)
	body := q.c.Store.Bodies.New()
	if _, err := body.Write(text); err != nil {
		body.Discard()
		return nil, fault.Wrap(fault.KindOf(err), "queue.notify", err)
	}
	refs, err := body.Finish(ctx, it.Tenant)
	if err != nil {
		body.Discard()
		return nil, fault.Wrap(fault.KindOf(err), "queue.notify", err)
	}
	params := mail.FromParams{UTF8: d.NeedsUTF8()}
	if slices.ContainsFunc(text, func(b byte) bool { return b > 127 }) {
		params.Body = "8BITMIME"
	}
	about := "notification (" + d.Kind + ") about " + it.Message
	s, err := q.stage([]Message{{
		Summary: trace.Message{
			ID: id, MessageID: d.MessageID, Tenant: it.Tenant, Region: it.Region, Direction: "inbound",
			To: []string{it.From.String()}, Subject: mail.ScanHeader(text, "").Subject, Size: int64(len(text)), ReceivedAt: d.Now,
		},
		Steps: []trace.Step{{Time: d.Now, Step: "accepted", Text: &about}},
		Body:  body, Ref: refs[0],
		Items: []Item{{
			Region: it.Region, Direction: "inbound", Destination: destination, Connection: connection, Domain: it.From.Domain,
			Params: params, MessageID: d.MessageID, Subject: mail.ScanHeader(text, "").Subject,
			Recipients: []Recipient{{Recipient: mail.Recipient{Address: it.From, Notify: "NEVER"}}},
		}},
	}})
	if err != nil {
		body.Discard()
		return nil, err
	}
	s.own = body
	return s, nil
}

// quote is what a notification brings back of the original: its header, or all
// of it when the sender asked and it is small. What cannot be read any more is
// left out: the notification matters more.
func (q *Queue) quote(ctx context.Context, it *Item) (original []byte, full bool) {
	full = strings.EqualFold(it.Params.Ret, "FULL") && it.Size <= mostFull
	most := int64(mostHeader)
	if full {
		most = mostFull
	}
	r, err := q.Open(ctx, it)
	if err != nil {
		q.log.Warn("a notification goes without the original", "item", it.ID, "error", err)
		return nil, false
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		q.log.Warn("a notification goes without the original", "item", it.ID, "error", err)
		return nil, false
	}
	text = append(slices.Clone(it.Prefix), text...)
	if full {
		return text, true
	}
	return text[:min(len(text), headerLength(text))], false
}

func headerLength(text []byte) int {
	return mail.ScanHeader(text, "").Bytes
}
