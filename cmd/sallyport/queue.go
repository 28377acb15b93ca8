package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

type queueCmd struct {
	List    queueList    `cmd:"" help:"List mail that waits."`
	Show    queueShow    `cmd:"" help:"Show one queue item."`
	Retry   queueRetry   `cmd:"" help:"Try now."`
	Hold    queueHold    `cmd:"" help:"Hold mail back until it is released."`
	Release queueRelease `cmd:"" help:"Release what is held."`
	Reroute queueReroute `cmd:"" help:"Send mail by another connection of its tenant."`
	Drop    queueDrop    `cmd:"" help:"Throw mail away; its trace stays."`

	Destinations queueDestinations `cmd:"" help:"List where mail goes, and what is down or stopped."`
	Resume       queueResume       `cmd:"" help:"Try a stopped or failing destination now."`
}

type itemView struct {
	ID          string     `json:"id"`
	Message     string     `json:"message"`
	Tenant      string     `json:"tenant"`
	Recipients  []string   `json:"recipients"`
	Destination string     `json:"destination"`
	State       string     `json:"state"`
	Attempts    int        `json:"attempts"`
	NextAt      *time.Time `json:"next_at"`
	Last        *struct {
		Code     *int    `json:"code"`
		Enhanced *string `json:"enhanced"`
		Text     string  `json:"text"`
	} `json:"last"`
	Reason string `json:"reason"`
}

func (i itemView) last() string {
	if i.Last == nil {
		return dash(i.Reason)
	}
	words := []string{i.Last.Text}
	if i.Last.Enhanced != nil {
		words = append([]string{*i.Last.Enhanced}, words...)
	}
	if i.Last.Code != nil {
		words = append([]string{fmt.Sprint(*i.Last.Code)}, words...)
	}
	return strings.Join(words, " ")
}

// queueFilter says which items a verb is about.
type queueFilter struct {
	Tenant      string        `help:"Only this tenant's."`
	Destination string        `help:"Only to this destination." placeholder:"D"`
	Message     string        `help:"Only of this message." placeholder:"ID"`
	Item        string        `help:"Only this item." placeholder:"ID"`
	State       string        `help:"Only in this state: ready, deferred, held or failed."`
	Reason      string        `name:"because" help:"Only with these words in their reason or last reply."`
	OlderThan   time.Duration `help:"Only older than D, such as 24h." placeholder:"D"`
}

func (f queueFilter) query() url.Values {
	q := query("tenant", f.Tenant, "destination", f.Destination, "message", f.Message, "item", f.Item, "state", f.State, "reason", f.Reason)
	if f.OlderThan > 0 {
		q.Set("older_than_s", fmt.Sprint(int64(f.OlderThan/time.Second)))
	}
	return q
}

func (f queueFilter) body() map[string]any {
	in := map[string]any{}
	for k, v := range map[string]string{"tenant": f.Tenant, "destination": f.Destination, "message": f.Message,
		"item": f.Item, "state": f.State, "reason_is": f.Reason} {
		if v != "" {
			in[k] = v
		}
	}
	if f.OlderThan > 0 {
		in["older_than_s"] = int64(f.OlderThan / time.Second)
	}
	return in
}

// act is a bulk act on the queue.
func (e *env) act(verb string, f queueFilter, all bool, more map[string]any) error {
	in := f.body()
	if len(in) == 0 && !all {
		return usage("which mail?", "Name it with --item, --message, --tenant, --destination …, or say --all.")
	}
	in["all"] = all
	for k, v := range more {
		in[k] = v
	}
	type changed struct {
		Changed int `json:"changed"`
	}
	return show(e, "POST", "/v1/queue/"+verb, nil, in, func(v changed) string { return fmt.Sprintf("%d items: %s", v.Changed, verb) })
}

type queueList struct{ queueFilter }

func (c *queueList) Run(e *env) error {
	return list(e, "/v1/queue", c.query(), []string{"id", "tenant", "destination", "to", "state", "tries", "next", "last"}, func(i itemView) []string {
		to := ""
		if len(i.Recipients) > 0 {
			to = i.Recipients[0]
		}
		if len(i.Recipients) > 1 {
			to += fmt.Sprintf(" +%d", len(i.Recipients)-1)
		}
		return []string{i.ID, i.Tenant, i.Destination, to, i.State, fmt.Sprint(i.Attempts), when(i.NextAt), cut(i.last(), 60)}
	})
}

type queueShow struct {
	ID string `arg:""`
}

func (c *queueShow) Run(e *env) error {
	return show(e, "GET", at("/v1/queue", c.ID), nil, nil, func(i itemView) string {
		return fmt.Sprintf("item         %s\nmessage      %s\ntenant       %s\nto           %s\ndestination  %s\nstate        %s\nattempts     %d\nnext         %s\nlast         %s",
			i.ID, i.Message, i.Tenant, strings.Join(i.Recipients, ", "), i.Destination, i.State, i.Attempts, when(i.NextAt), i.last())
	})
}

// bulkFlags are those of every bulk act.
type bulkFlags struct {
	queueFilter
	All bool `help:"Every item."`
}

type queueRetry struct{ bulkFlags }

func (c *queueRetry) Run(e *env) error { return e.act("retry", c.queueFilter, c.All, nil) }

type queueHold struct {
	bulkFlags
	Note string `help:"Why."`
}

func (c *queueHold) Run(e *env) error {
	return e.act("hold", c.queueFilter, c.All, map[string]any{"reason": c.Note})
}

type queueRelease struct{ bulkFlags }

func (c *queueRelease) Run(e *env) error { return e.act("release", c.queueFilter, c.All, nil) }

type queueDrop struct {
	bulkFlags
	Note string `help:"Why."`
}

func (c *queueDrop) Run(e *env) error {
	return e.act("drop", c.queueFilter, c.All, map[string]any{"reason": c.Note})
}

type queueReroute struct {
	bulkFlags
	Connection string `required:"" help:"The tenant's connection to use instead."`
}

func (c *queueReroute) Run(e *env) error {
	return e.act("reroute", c.queueFilter, c.All, map[string]any{"connection": c.Connection})
}

type destinationView struct {
	Key      string     `json:"destination"`
	State    string     `json:"state"`
	Reason   string     `json:"reason"`
	Queued   int64      `json:"queued"`
	InFlight int        `json:"in_flight"`
	NextTry  *time.Time `json:"next_try"`
	Oldest   *time.Time `json:"oldest"`
}

type queueDestinations struct {
	Tenant string `help:"Only this tenant's."`
}

func (c *queueDestinations) Run(e *env) error {
	return list(e, "/v1/destinations", query("tenant", c.Tenant), []string{"destination", "state", "queued", "in flight", "oldest", "next try", "reason"},
		func(d destinationView) []string {
			return []string{d.Key, d.State, fmt.Sprint(d.Queued), fmt.Sprint(d.InFlight), when(d.Oldest), when(d.NextTry), cut(d.Reason, 60)}
		})
}

type queueResume struct {
	Destination string `arg:""`
}

func (c *queueResume) Run(e *env) error {
	in := map[string]any{"destination": c.Destination}
	if _, err := e.call("POST", "/v1/destinations/resume", nil, in); err != nil {
		return err
	}
	return e.done(c.Destination+" is tried now", map[string]any{"resumed": true})
}

type heldCmd struct {
	List    heldList    `cmd:"" help:"List held mail."`
	Show    heldShow    `cmd:"" help:"Show one held item."`
	Release heldRelease `cmd:"" help:"Deliver it."`
	Drop    heldDrop    `cmd:"" help:"Throw it away."`
}

type heldView struct {
	ID        string     `json:"id"`
	Message   string     `json:"message"`
	Tenant    string     `json:"tenant"`
	From      string     `json:"from"`
	To        []string   `json:"to"`
	Subject   string     `json:"subject"`
	HeldAt    *time.Time `json:"held_at"`
	Reasons   []string   `json:"reasons"`
	ExpiresAt *time.Time `json:"expires_at"`
}

type heldList struct {
	Tenant string `help:"Only this tenant's."`
}

func (c *heldList) Run(e *env) error {
	return list(e, "/v1/held", query("tenant", c.Tenant), []string{"id", "tenant", "held", "from", "to", "subject", "because"}, func(h heldView) []string {
		return []string{h.ID, h.Tenant, when(h.HeldAt), "<" + h.From + ">", cut(strings.Join(h.To, ", "), 40), cut(h.Subject, 30), cut(strings.Join(h.Reasons, "; "), 40)}
	})
}

type heldShow struct {
	ID string `arg:""`
}

func (c *heldShow) Run(e *env) error {
	return show(e, "GET", at("/v1/held", c.ID), nil, nil, func(h heldView) string {
		return fmt.Sprintf("item     %s\nmessage  %s\ntenant   %s\nfrom     <%s>\nto       %s\nsubject  %s\nheld     %s\nuntil    %s\nbecause  %s",
			h.ID, h.Message, h.Tenant, h.From, strings.Join(h.To, ", "), h.Subject, when(h.HeldAt), when(h.ExpiresAt), strings.Join(h.Reasons, "; "))
	})
}

type heldRelease struct {
	ID string `arg:""`
}

func (c *heldRelease) Run(e *env) error { return e.heldAct(c.ID, "release", "released") }

type heldDrop struct {
	ID string `arg:""`
}

func (c *heldDrop) Run(e *env) error { return e.heldAct(c.ID, "drop", "dropped") }

func (e *env) heldAct(id, verb, past string) error {
	if _, err := e.call("POST", at("/v1/held", id)+"/"+verb, nil, map[string]any{}); err != nil {
		return err
	}
	return e.done(id+" "+past, map[string]any{"id": id, past: true})
}
