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
	answers, bad := []map[string]any{}, false
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
		if !e.flags.JSON {
			fmt.Fprintln(e.stdout, strings.TrimRight(lines, "\n"))
			continue
		}
		answer := map[string]any{}
		if err := unmarshal(raw, &answer); err != nil {
			return err
		}
		answer["name"] = name
		answers = append(answers, answer)
	}
	if err := c.printAnswers(e, answers); err != nil || !bad {
		return err
	}
	return errReported
}

func (c connectionChoice) printAnswers(e *env, answers []map[string]any) error {
	switch {
	case !e.flags.JSON:
		return nil
	case c.All:
		return e.printJSON(map[string]any{"connections": answers})
	}
	return e.printJSON(answers[0])
}
