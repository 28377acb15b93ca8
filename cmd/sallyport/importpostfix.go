package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

type importCmd struct {
	Postfix importPostfix `cmd:"" help:"Read relay_domains, transport_maps and relay_recipient_maps of a Postfix."`
}

type importPostfix struct {
	Dir    string `arg:"" help:"Postfix's configuration folder, such as /etc/postfix." type:"existingdir"`
	Tenant string `required:"" help:"Tenant that gets what is read."`
	DryRun bool   `help:"Print what would be done."`
}

// postfixPlan is what was read: domains, where each is delivered, and who
// exists in it.
type postfixPlan struct {
	Domains    []string            `json:"domains"`
	Transports map[string]hostView `json:"transports"`
	Recipients map[string][]string `json:"recipients"`
	Skipped    []string            `json:"skipped"` // what was not understood, in words
}

// Run reads first and changes nothing until all of it has been understood as
// far as it can be.
func (c *importPostfix) Run(e *env) error {
	plan, err := readPostfix(c.Dir)
	if err != nil {
		return err
	}
	if len(plan.Domains) == 0 {
		return fault.New(fault.Missing, "", c.Dir+" has no relay_domains").WithHint("Name the folder that has main.cf.")
	}
	if !c.DryRun {
		if err := e.applyPostfix(c.Tenant, plan); err != nil {
			return err
		}
	}
	if e.flags.JSON {
		return e.printJSON(plan)
	}
	return e.tellPostfix(plan, c.DryRun)
}

func (e *env) tellPostfix(plan postfixPlan, dry bool) error {
	verb := "imported"
	if dry {
		verb = "would import"
	}
	for _, d := range plan.Domains {
		to, recipients := "no transport", "probe"
		if h, ok := plan.Transports[d]; ok {
			to = fmt.Sprintf("%s:%d", h.Host, h.Port)
		}
		if n := len(plan.Recipients[d]); n > 0 {
			recipients = fmt.Sprintf("list of %d", n)
		}
		fmt.Fprintf(e.stdout, "%s %s to %s, recipients: %s\n", verb, d, to, recipients)
	}
	for _, s := range plan.Skipped {
		fmt.Fprintln(e.stdout, "skipped", s)
	}
	return nil
}

// applyPostfix adds domains, one connection for each different next hop, and
// recipients; what exists already stays.
func (e *env) applyPostfix(tenant string, plan postfixPlan) error {
	base := at("/v1/tenants", tenant)
	hops := map[hostView][]string{}
	for _, d := range plan.Domains {
		mode := "probe"
		if len(plan.Recipients[d]) > 0 {
			mode = "list"
		}
		if _, err := e.call("POST", base+"/domains", nil, map[string]any{"name": d, "recipients": mode, "if_absent": true}); err != nil {
			return err
		}
		if h, ok := plan.Transports[d]; ok {
			hops[h] = append(hops[h], d)
		}
	}
	for h, domains := range hops {
		in := map[string]any{"name": connectionName(h), "kind": "smtp", "direction": "inbound", "hosts": []hostView{h},
			"domains": domains, "if_absent": true}
		if _, err := e.call("POST", base+"/connections", nil, in); err != nil {
			return err
		}
	}
	for _, addrs := range plan.Recipients {
		if _, err := e.importRecipients(tenant, addrs, func(i int) string { return addrs[i] }); err != nil {
			return err
		}
	}
	return nil
}

// notSlug is what a connection's name cannot have.
var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// connectionName makes a slug of a next hop.
func connectionName(h hostView) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(fmt.Sprintf("%s-%d", h.Host, h.Port)), "-"), "-")
	return s[:min(len(s), 40)]
}
