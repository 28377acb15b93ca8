package edge

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// place makes a message of each group and puts them all into the queue in one
// durable write; it returns their ids.
func (s *session) place(ctx context.Context, groups []group, in incoming) ([]string, error) {
	// The messages of one tenant share one body, which the queue drops with the
	// last of them.
	tenants := owners(groups)
	refs, err := in.body.Finish(ctx, tenants...)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(groups))
	ms := make([]queue.Message, len(groups))
	for i := range groups {
		ids[i] = s.edge.ids.next(in.at)
		ms[i] = s.message(ids[i], &groups[i], in)
		ms[i].Ref = refs[slices.Index(tenants, groups[i].tenant)]
	}
	return ids, s.edge.c.Queue.Put(ctx, ms)
}

// accepted is the reply that names the messages: who asks where one is can
// name it.
func accepted(ids []string) mail.Reply {
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "Accepted as " + strings.Join(ids, ", ")}
}

// owners are the tenants of the groups, each once.
func owners(groups []group) []string {
	out := make([]string, 0, 1)
	for i := range groups {
		if !slices.Contains(out, groups[i].tenant) {
			out = append(out, groups[i].tenant)
		}
	}
	return out
}

// message is a group's message for the queue.
func (s *session) message(id string, g *group, in incoming) queue.Message {
	m := queue.Message{
		Summary: trace.Message{
			ID: id, MessageID: in.summary.MessageID, Tenant: g.tenant, Region: g.region,
			Direction: g.direction(), From: s.tx.fromText, To: addresses(g.to),
			Subject: in.summary.Subject, Size: in.body.Size(), ReceivedAt: in.at, State: g.state(),
		},
		Body: in.body,
	}
	prefix := s.prefix(id, g, in)
	if s.kind == Submission && m.Summary.MessageID == "" {
		m.Summary.MessageID = messageID(id, s.host)
	}
	m.Steps = steps(id, g, s.cameBy(g, in))
	m.Items = make([]queue.Item, len(g.parts))
	for i, p := range g.parts {
		m.Items[i] = s.item(&m, g, p, prefix)
	}
	return m
}

// item is one part of a group.
func (s *session) item(m *queue.Message, g *group, p part, prefix []byte) queue.Item {
	it := queue.Item{
		Message: m.Summary.ID, Tenant: g.tenant, Region: g.region, Direction: m.Summary.Direction,
		Destination: g.destination, Connection: g.connection, Domain: p.domain,
		From: s.tx.from, Params: s.tx.params, Own: g.own,
		MessageID: m.Summary.MessageID, Subject: m.Summary.Subject,
		Prefix: prefix, Cut: g.cut,
		ReceivedAt: m.Summary.ReceivedAt, State: queue.Ready, Due: m.Summary.ReceivedAt,
	}
	state := "queued"
	if g.verdict.Code != 0 {
		it.Reason, it.Last, it.LastAt = g.verdict.String(), g.verdict, m.Summary.ReceivedAt
		it.State, it.Due = queue.Deferred, m.Summary.ReceivedAt.Add(rateWait)
		if g.verdict.Permanent() {
			it.State, it.Due, state = queue.Failed, time.Time{}, "failed"
		}
	}
	it.Recipients = make([]queue.Recipient, len(p.to))
	for i, to := range p.to {
		it.Recipients[i] = queue.Recipient{Recipient: to, State: state, Last: g.verdict}
	}
	return it
}

func (g *group) direction() string {
	if g.outbound {
		return "outbound"
	}
	return "inbound"
}

func (g *group) state() string {
	if g.verdict.Permanent() {
		return "failed"
	}
	return "queued"
}

func addresses(to []mail.Recipient) []string {
	out := make([]string, len(to))
	for i, r := range to {
		out[i] = r.String()
	}
	return out
}
