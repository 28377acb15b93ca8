package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

type tenantCmd struct {
	Add    tenantAdd    `cmd:"" help:"Add a tenant."`
	List   tenantList   `cmd:"" help:"List tenants."`
	Show   tenantShow   `cmd:"" help:"Show a tenant and its settings."`
	Set    tenantSet    `cmd:"" help:"Change a tenant's settings."`
	Remove tenantRemove `cmd:"" help:"Remove a tenant that has no domains and no mail."`
}

// tenantView is what the API says of a tenant.
type tenantView struct {
	Name      string         `json:"name"`
	Region    string         `json:"region"`
	CreatedAt time.Time      `json:"created_at"`
	Settings  map[string]any `json:"settings"`
}

func (t tenantView) text() string {
	lines := []string{
		"name     " + t.Name,
		"region   " + t.Region,
		"created  " + when(&t.CreatedAt),
	}
	for _, k := range sortedKeys(t.Settings) {
		lines = append(lines, fmt.Sprintf("%-22s %v", k, t.Settings[k]))
	}
	return strings.Join(lines, "\n")
}

type tenantAdd struct {
	Name     string `arg:"" help:"Slug: a-z, 0-9 and -."`
	Region   string `required:"" help:"Region that the tenant's mail and keys live in."`
	IfAbsent bool   `help:"Not an error when the same tenant exists."`
}

func (c *tenantAdd) Run(e *env) error {
	in := map[string]any{"name": c.Name, "region": c.Region, "if_absent": c.IfAbsent}
	return showAdded(e, "/v1/tenants", in, func(t tenantView, made bool) string {
		if !made {
			return fmt.Sprintf("tenant %s is there already, in region %s; nothing was changed", t.Name, t.Region)
		}
		return fmt.Sprintf("tenant %s added in region %s\nnext: sallyport domain add %s DOMAIN", t.Name, t.Region, t.Name)
	})
}

type tenantList struct{}

func (c *tenantList) Run(e *env) error {
	return list(e, "/v1/tenants", nil, []string{"name", "region", "created"}, func(t tenantView) []string {
		return []string{t.Name, t.Region, when(&t.CreatedAt)}
	})
}

type tenantShow struct {
	Name string `arg:""`
}

func (c *tenantShow) Run(e *env) error {
	return show(e, "GET", at("/v1/tenants", c.Name), nil, nil, tenantView.text)
}

type tenantSet struct {
	Name                string    `arg:""`
	TraceDays           *int      `help:"How long traces are kept, days."`
	FailedDays          *int      `help:"How long refused and held mail is kept, days."`
	ExpiryHours         *int      `help:"How long delivery is tried, hours."`
	DelayNoticeHours    *int      `help:"When own senders are told of a delay, hours; -1 never."`
	MaxSize             *int64    `help:"Largest message, bytes."`
	MaxRecipients       *int      `help:"Recipients of one message."`
	MessagesPerMinute   *int      `help:"Rate limit, 0 none."`
	RecipientsPerMinute *int      `help:"Rate limit, 0 none."`
	ConnectionsMax      *int      `help:"Submission sessions at a time, 0 none."`
	Block               *[]string `help:"Senders refused: address, domain, .domain, IP or network. Replaces the list." sep:","`
	Allow               *[]string `help:"Senders always let in. Replaces the list." sep:","`
	Egress              *string   `help:"Egress pool of outbound mail."`
}

func (c *tenantSet) Run(e *env) error {
	in := map[string]any{}
	put(in, "trace_days", c.TraceDays)
	put(in, "failed_days", c.FailedDays)
	put(in, "expiry_hours", c.ExpiryHours)
	put(in, "delay_notice_hours", c.DelayNoticeHours)
	put(in, "max_size", c.MaxSize)
	put(in, "max_recipients", c.MaxRecipients)
	put(in, "messages_per_minute", c.MessagesPerMinute)
	put(in, "recipients_per_minute", c.RecipientsPerMinute)
	put(in, "connections_max", c.ConnectionsMax)
	put(in, "block", c.Block)
	put(in, "allow", c.Allow)
	put(in, "egress", c.Egress)
	if len(in) == 0 {
		return usage("nothing to set", "Name at least one setting: see `sallyport tenant set --help`.")
	}
	return show(e, "PATCH", at("/v1/tenants", c.Name), nil, in, tenantView.text)
}

type tenantRemove struct {
	Name string `arg:""`
}

func (c *tenantRemove) Run(e *env) error {
	return remove(e, at("/v1/tenants", c.Name), "tenant "+c.Name)
}

// at joins a path of the API, each part escaped.
func at(parts ...string) string {
	for i := range parts[1:] {
		parts[i+1] = url.PathEscape(parts[i+1])
	}
	return strings.Join(parts, "/")
}

// put sets a field that was given on the command line.
func put[T any](in map[string]any, key string, v *T) {
	if v != nil {
		in[key] = *v
	}
}

// query makes a query of pairs, leaving out the empty ones.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// remove deletes one thing and says so.
func remove(e *env, path, what string) error {
	if _, err := e.call("DELETE", path, nil, nil); err != nil {
		return err
	}
	return e.done(what+" removed", map[string]any{"removed": true})
}

// done prints a sentence, or the object that stands for it under --json.
func (e *env) done(sentence string, object any) error {
	if e.flags.JSON {
		return e.printJSON(object)
	}
	_, err := fmt.Fprintln(e.stdout, sentence)
	return err
}
