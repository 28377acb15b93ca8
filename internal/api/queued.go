package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// QueueQuery is how the queue is searched.
type QueueQuery struct {
	Tenant      string `query:"tenant"`
	Destination string `query:"destination"`
	State       string `query:"state" doc:"ready, leased, deferred, held or failed; several parted by commas"`
	Message     string `query:"message" doc:"Id of the message"`
	Item        string `query:"item" doc:"Id of the item"`
	Reason      string `query:"reason"`
	OlderThanS  int64  `query:"older_than_s" minimum:"0" maximum:"315360000"`
	Paging
}

// OneItem names an item of the queue.
type OneItem struct {
	ID string `path:"id" doc:"The item's id"`
}

// Queued is a queue item as the contract shows it: absent is null.
type Queued struct {
	queue.Listed
	Reason *string `json:"reason" doc:"Why it is held or failed"`
}

// QueuedRecipient is one recipient of an item.
type QueuedRecipient struct {
	Address string      `json:"address"`
	State   string      `json:"state"`
	Last    *queue.Last `json:"last"`
}

// QueuedInFull is a queue item with all that is known of it.
type QueuedInFull struct {
	Queued
	Region     string            `json:"region"`
	Direction  string            `json:"direction"`
	Connection *string           `json:"connection"`
	From       string            `json:"from"`
	To         []QueuedRecipient `json:"to"`
	MessageID  *string           `json:"message_id"`
	Subject    *string           `json:"subject"`
	Size       int64             `json:"size"`
	LastAt     *time.Time        `json:"last_at"`
	ExpiresAt  *time.Time        `json:"expires_at"`
}

func queued(r *router) {
	on(r, http.MethodGet, "/v1/queue", "Search the queue", r.listQueue)
	on(r, http.MethodGet, "/v1/queue/{id}", "Show a queue item", r.showItem)
}

func (s *server) listQueue(ctx context.Context, in *QueueQuery) (*out[Page[Queued]], error) {
	own, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	states, err := itemStates(in.State)
	if err != nil {
		return nil, err
	}
	page, next, err := s.Queue.List(ctx, queue.Filter{
		Tenant: own, Destination: in.Destination, Message: in.Message, Item: in.Item, Reason: in.Reason, States: states,
		OlderThan: time.Duration(in.OlderThanS) * time.Second, After: in.After, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	return searched(s, own, in.Paging, paged(each(page, shownItem), next))
}

func shownItem(l queue.Listed) Queued { return Queued{l, or(l.Reason)} }

// itemStates reads a list of states.
func itemStates(text string) ([]queue.State, error) {
	if text == "" {
		return nil, nil
	}
	var states []queue.State
	for word := range strings.SplitSeq(text, ",") {
		switch st := queue.State(word); st {
		case queue.Ready, queue.Leased, queue.Deferred, queue.Held, queue.Failed:
			states = append(states, st)
		default:
			return nil, fault.New(fault.Invalid, "api", "an item has no state "+quoted(word)).
				WithHint("Use ready, leased, deferred, held or failed.")
		}
	}
	return states, nil
}

// item finds an item of the caller's.
func (s *server) item(ctx context.Context, id string) (queue.Item, error) {
	own, err := scope(ctx, "")
	if err != nil {
		return queue.Item{}, err
	}
	return s.Queue.Show(ctx, own, id)
}

func (s *server) showItem(ctx context.Context, in *OneItem) (*out[QueuedInFull], error) {
	it, err := s.item(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return reply(inFull(it)), nil
}

func inFull(it queue.Item) QueuedInFull {
	return QueuedInFull{
		Queued: Queued{
			Listed: queue.Listed{
				ID: it.ID, Message: it.Message, Tenant: it.Tenant, Recipients: each(it.Recipients, recipientAddress),
				Destination: it.Destination, State: it.State, Attempts: it.Attempts,
				NextAt: nextAt(it), Last: queue.LastOf(it.Last), ReceivedAt: it.ReceivedAt,
			},
			Reason: or(it.Reason),
		},
		Region: it.Region, Direction: it.Direction, Connection: or(it.Connection),
		From: it.From.String(), To: each(it.Recipients, shownRecipient),
		MessageID: or(it.MessageID), Subject: or(it.Subject), Size: it.Size,
		LastAt: instant(it.LastAt), ExpiresAt: instant(it.ExpiresAt),
	}
}

func recipientAddress(r queue.Recipient) string { return r.Address.String() }

func shownRecipient(r queue.Recipient) QueuedRecipient {
	return QueuedRecipient{recipientAddress(r), r.State, queue.LastOf(r.Last)}
}

// nextAt is when an item is tried, null when nobody will.
func nextAt(it queue.Item) *time.Time {
	if it.State == queue.Held || it.State == queue.Failed {
		return nil
	}
	return instant(it.Due)
}
