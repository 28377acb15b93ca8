package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// connectionChoice is one of a tenant's connections, or all of them.
type connectionChoice struct {
	Tenant string `arg:""`
	Name   string `arg:"" optional:""`
	All    bool   `help:"Every connection of the tenant."`
}

func (c connectionChoice) path(name string) string {
	return at("/v1/tenants", c.Tenant, "connections", name)
}

// names is whom the choice means; all of them in the order of the listing.
func (c connectionChoice) names(e *env) ([]string, error) {
	if c.All == (c.Name != "") {
		return nil, usage("which connection?", "Name one of the tenant's connections, or say --all.")
	}
	if !c.All {
		return []string{c.Name}, nil
	}
	api, err := e.client()
	if err != nil {
		return nil, err
	}
	var names []string
	err = api.List(e.ctx, at("/v1/tenants", c.Tenant)+"/connections", nil, 0, func(raw json.RawMessage) error {
		var v connectionView
		if err := unmarshal(raw, &v); err != nil {
			return err
		}
		names = append(names, v.Name)
		return nil
	})
	return names, err
}

// answerText makes lines of an answer about a connection; errReported with them
// says that it is bad news.
type answerText func(name string, raw json.RawMessage) (string, error)

// each does one request for every connection chosen and prints the answers: for
// one connection its own, for all of them one object that lists them, each with
// its name. An error ends it, and what was done before is done.
func (c connectionChoice) each(e *env, method, suffix string, in any, text answerText) error {
	names, err := c.names(e)
	if err != nil {
		return err
	}
	answers, bad := connectionAnswers{[]map[string]any{}}, false
	for _, name := range names {
		raw, err := e.call(method, c.path(name)+suffix, nil, in)
		if err != nil {
			return err
		}
		lines, err := text(name, raw)
		if err != nil && !errors.Is(err, errReported) {
			return err
		}
		bad = bad || err != nil
		switch {
		case !e.flags.JSON:
			fmt.Fprintln(e.stdout, strings.TrimRight(lines, "\n"))
		case !c.All:
			err = e.printJSON(raw)
		default:
			err = answers.add(name, raw)
		}
		if err != nil && !errors.Is(err, errReported) {
			return err
		}
	}
	if e.flags.JSON && c.All {
		if err := e.printJSON(answers); err != nil {
			return err
		}
	}
	if bad {
		return errReported
	}
	return nil
}

// connectionAnswers is what --json prints of all connections.
type connectionAnswers struct {
	Connections []map[string]any `json:"connections"`
}

func (a *connectionAnswers) add(name string, raw json.RawMessage) error {
	answer := map[string]any{}
	if err := unmarshal(raw, &answer); err != nil {
		return err
	}
	answer["name"] = name
	a.Connections = append(a.Connections, answer)
	return nil
}
