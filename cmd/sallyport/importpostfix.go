package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
		if _, err := e.importRecipients(tenant, addrs); err != nil {
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

// readPostfix reads main.cf and the maps that it names.
func readPostfix(dir string) (postfixPlan, error) {
	plan := postfixPlan{Transports: map[string]hostView{}, Recipients: map[string][]string{}}
	settings, err := readMainCF(filepath.Join(dir, "main.cf"))
	if err != nil {
		return plan, err
	}
	relay := expandPostfix(settings, settings["relay_domains"])
	for _, word := range splitPostfix(relay) {
		plan.addDomains(dir, word)
	}
	for _, word := range splitPostfix(expandPostfix(settings, settings["transport_maps"])) {
		plan.eachEntry(dir, word, plan.addTransport)
	}
	for _, word := range splitPostfix(expandPostfix(settings, settings["relay_recipient_maps"])) {
		plan.eachEntry(dir, word, plan.addRecipient)
	}
	slices.Sort(plan.Domains)
	plan.Domains = slices.Compact(plan.Domains)
	return plan, nil
}

// readMainCF reads Postfix's settings: "name = value", continued by lines
// that begin with white space (postconf(5)).
func readMainCF(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.Missing, "", "cannot read "+file+": "+err.Error()).WithHint("Name the folder that has main.cf.")
	}
	defer f.Close()
	settings := map[string]string{}
	name := ""
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := s.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case line[0] == ' ' || line[0] == '\t':
			settings[name] += " " + trimmed
		default:
			k, v, _ := strings.Cut(line, "=")
			name = strings.TrimSpace(k)
			settings[name] = strings.TrimSpace(v)
		}
	}
	return settings, s.Err()
}

// setting is $name, ${name} or $(name) within a value.
var setting = regexp.MustCompile(`\$(?:\{(\w+)\}|\((\w+)\)|(\w+))`)

// expandPostfix replaces references to other settings, ten deep at most.
func expandPostfix(settings map[string]string, v string) string {
	for range 10 {
		next := setting.ReplaceAllStringFunc(v, func(ref string) string {
			return settings[strings.Trim(ref, "${}()")]
		})
		if next == v {
			return v
		}
		v = next
	}
	return v
}

// splitPostfix splits at commas and white space.
func splitPostfix(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

func (p *postfixPlan) skip(what string) { p.Skipped = append(p.Skipped, what) }

// addDomains takes one word of relay_domains: a domain, a file of them, or a
// map whose keys they are.
func (p *postfixPlan) addDomains(dir, word string) {
	switch {
	case strings.Contains(word, ":"):
		p.eachEntry(dir, word, func(key, _ string) { p.addDomain(key) })
	case strings.HasPrefix(word, "/"):
		lines, err := readLines(word)
		if err != nil {
			p.skip("relay_domains: " + err.Error())
		}
		for _, l := range lines {
			p.addDomain(l)
		}
	default:
		p.addDomain(word)
	}
}

func (p *postfixPlan) addDomain(d string) {
	if strings.HasPrefix(d, ".") || !strings.Contains(d, ".") {
		p.skip("relay domain " + d + ": only whole domain names are taken; add subdomains by name")
		return
	}
	p.Domains = append(p.Domains, strings.ToLower(d))
}

// addTransport takes one entry of a transport table (transport(5)).
func (p *postfixPlan) addTransport(key, value string) {
	kind, hop, _ := strings.Cut(value, ":")
	if kind != "smtp" && kind != "relay" || hop == "" || strings.Contains(key, "@") {
		p.skip("transport " + key + " " + value + ": only smtp and relay to a next hop of a domain are taken")
		return
	}
	if !strings.HasPrefix(hop, "[") {
		p.skip("transport " + key + ": " + hop + " is taken as a host, without its MX")
		hop = "[" + strings.Replace(hop, ":", "]:", 1)
		if !strings.Contains(hop, "]") {
			hop += "]"
		}
	}
	h, err := parseHost(hop, 25)
	if err != nil {
		p.skip("transport " + key + " " + value + ": the next hop is not understood")
		return
	}
	p.Transports[strings.ToLower(key)] = h
}

func (p *postfixPlan) addRecipient(key, _ string) {
	local, domain, ok := strings.Cut(key, "@")
	if !ok || local == "" {
		p.skip("recipient " + key + ": a whole domain is not a list")
		return
	}
	domain = strings.ToLower(domain)
	p.Recipients[domain] = append(p.Recipients[domain], local+"@"+domain)
}

// eachEntry reads the text that a map was made from: "type:file", where the
// text is the file itself.
func (p *postfixPlan) eachEntry(dir, word string, each func(key, value string)) {
	kind, file, _ := strings.Cut(word, ":")
	switch kind {
	case "hash", "btree", "lmdb", "texthash", "cdb", "dbm", "proxy":
		file = strings.TrimPrefix(file, kind+":")
		if inner, rest, ok := strings.Cut(file, ":"); ok && kind == "proxy" && inner != "" {
			file = rest
		}
	default:
		p.skip(word + ": tables of type " + kind + " are not read")
		return
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	lines, err := readLines(file)
	if err != nil {
		p.skip(word + ": " + err.Error())
		return
	}
	for _, l := range lines {
		key, value, _ := strings.Cut(strings.Join(strings.Fields(l), " "), " ")
		each(key, value)
	}
}
