package main

import (
	"strings"
	"time"
)

type stopCmd struct {
	Set  stopSet  `cmd:"" help:"Keep mail of a scope in the queue."`
	Lift stopLift `cmd:"" help:"Let it go again."`
	List stopList `cmd:"" help:"List stop switches."`
}

type stopView struct {
	Scope  string    `json:"scope"`
	Value  string    `json:"value"`
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
	Since  time.Time `json:"since"`
}

type stopRef struct {
	Scope string `arg:"" help:"outbound (all of it), tenant, domain (of recipients) or sender." enum:"outbound,tenant,domain,sender"`
	Value string `arg:"" optional:"" help:"Which tenant, domain or sender."`
}

type stopSet struct {
	stopRef
	Note string `help:"Why."`
}

func (c *stopSet) Run(e *env) error {
	in := map[string]any{"scope": c.Scope, "value": c.Value, "reason": c.Note}
	return show(e, "POST", "/v1/stops", nil, in, func(s stopView) string {
		return strings.TrimSpace("stopped: "+s.Scope+" "+s.Value) + "\nIts mail stays in the queue until `sallyport stop lift`."
	})
}

type stopLift struct{ stopRef }

func (c *stopLift) Run(e *env) error {
	in := map[string]any{"scope": c.Scope, "value": c.Value}
	if _, err := e.call("POST", "/v1/stops/lift", nil, in); err != nil {
		return err
	}
	return e.done(strings.TrimSpace("lifted: "+c.Scope+" "+c.Value), map[string]any{"lifted": true})
}

type stopList struct{}

func (c *stopList) Run(e *env) error {
	return list(e, "/v1/stops", nil, []string{"scope", "value", "since", "by", "because"}, func(s stopView) []string {
		return []string{s.Scope, dash(s.Value), when(&s.Since), s.Actor, dash(s.Reason)}
	})
}

type senderCmd struct {
	List senderList `cmd:"" help:"Show the operator's lists."`
	Set  senderSet  `cmd:"" help:"Replace a list."`
}

type listsView struct {
	Block []string `json:"block"`
	Allow []string `json:"allow"`
}

func (l listsView) text() string {
	return "block  " + dash(strings.Join(l.Block, ", ")) + "\nallow  " + dash(strings.Join(l.Allow, ", "))
}

type senderList struct{}

func (c *senderList) Run(e *env) error {
	return show(e, "GET", "/v1/lists", nil, nil, listsView.text)
}

type senderSet struct {
	Block *[]string `help:"Address, domain, .domain, IP or network." sep:","`
	Allow *[]string `help:"The same; wins over block." sep:","`
}

func (c *senderSet) Run(e *env) error {
	raw, err := e.call("GET", "/v1/lists", nil, nil)
	if err != nil {
		return err
	}
	var l listsView
	if err := unmarshal(raw, &l); err != nil {
		return err
	}
	if c.Block != nil {
		l.Block = *c.Block
	}
	if c.Allow != nil {
		l.Allow = *c.Allow
	}
	return show(e, "PUT", "/v1/lists", nil, l, listsView.text)
}
