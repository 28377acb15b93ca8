package api

import (
	"context"
	"net/http"

	"github.com/sallyport-mail/sallyport/internal/trace"
)

// MessageQuery is how messages and refusals are searched.
type MessageQuery struct {
	Tenant string `query:"tenant"`
	From   string `query:"from" doc:"The sender's address, or @domain"`
	To     string `query:"to" doc:"A recipient's address, or @domain"`
	Since  string `query:"since" doc:"RFC 3339, or how long ago as 24h"`
	Paging
}

// OneMessage names a message.
type OneMessage struct {
	ID string `path:"id" doc:"The message's id, or its Message-ID escaped for a URL"`
}

// TraceTLS, TraceStep: absent is null.
type TraceTLS struct {
	trace.TLS
	Client *string `json:"client" doc:"Subject of the client certificate"`
}

type TraceStep struct {
	trace.Step
	TLS *TraceTLS `json:"tls"`
}

// Message is a message as the contract shows it: absent is null.
type Message struct {
	trace.Message
	MessageID *string `json:"message_id"`
	Subject   *string `json:"subject"`
}

// Traced is a message with what happened to it.
type Traced struct {
	Message
	Steps []TraceStep `json:"steps"`
}

// Refusal is a refusal in the SMTP dialogue: absent is null.
type Refusal struct {
	trace.Refusal
	Tenant *string `json:"tenant" doc:"null when it is nobody's"`
}

func messages(r *router) {
	on(r, http.MethodGet, "/v1/messages", "Search messages, newest first", r.listMessages)
	on(r, http.MethodGet, "/v1/messages/{id}", "Show a message", r.showMessage)
	on(r, http.MethodGet, "/v1/messages/{id}/trace", "Show what happened to a message", r.traceMessage)
	on(r, http.MethodGet, "/v1/refusals", "Search refusals in the SMTP dialogue, newest first", r.listRefusals)
}

func shownMessage(m trace.Message) Message { return Message{m, or(m.MessageID), or(m.Subject)} }

func shownStep(t trace.Step) TraceStep {
	v := TraceStep{Step: t}
	if t.TLS != nil {
		v.TLS = &TraceTLS{*t.TLS, or(t.TLS.Client)}
	}
	return v
}

// filter is the query within the caller's tenant.
func (s *server) filter(ctx context.Context, q MessageQuery) (f trace.Filter, err error) {
	f = trace.Filter{From: q.From, To: q.To, After: q.After, Limit: q.Limit}
	if f.Tenant, err = scope(ctx, q.Tenant); err != nil {
		return f, err
	}
	f.Since, err = since(q.Since, s.Now())
	return f, err
}

func (s *server) listMessages(ctx context.Context, in *struct {
	MessageQuery
	State     string `query:"state" enum:"queued,delivered,partial,failed,held,dropped,refused"`
	MessageID string `query:"message_id"`
}) (*out[Page[Message]], error) {
	f, err := s.filter(ctx, in.MessageQuery)
	if err != nil {
		return nil, err
	}
	f.State, f.MessageID = in.State, in.MessageID
	page, next, err := s.Trace.List(ctx, f)
	if err != nil {
		return nil, err
	}
	return searched(s, f.Tenant, in.Paging, paged(each(page, shownMessage), next))
}

// show finds a message of the caller's.
func (s *server) show(ctx context.Context, id string) (Message, []trace.Step, error) {
	own, err := scope(ctx, "")
	if err != nil {
		return Message{}, nil, err
	}
	m, steps, err := s.Trace.Show(ctx, own, id)
	return shownMessage(m), steps, err
}

func (s *server) showMessage(ctx context.Context, in *OneMessage) (*out[Message], error) {
	m, _, err := s.show(ctx, in.ID)
	return reply(m), err
}

func (s *server) traceMessage(ctx context.Context, in *OneMessage) (*out[Traced], error) {
	m, steps, err := s.show(ctx, in.ID)
	return reply(Traced{m, each(steps, shownStep)}), err
}

func (s *server) listRefusals(ctx context.Context, in *struct{ MessageQuery }) (*out[Page[Refusal]], error) {
	f, err := s.filter(ctx, in.MessageQuery)
	if err != nil {
		return nil, err
	}
	page, next, err := s.Trace.Refusals(ctx, f)
	if err != nil {
		return nil, err
	}
	return searched(s, f.Tenant, in.Paging, paged(each(page, func(r trace.Refusal) Refusal { return Refusal{r, or(r.Tenant)} }), next))
}

// each applies f to every element.
func each[A, B any](list []A, f func(A) B) []B {
	shown := make([]B, len(list))
	for i, a := range list {
		shown[i] = f(a)
	}
	return shown
}
