package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api/client"
)

type domainCmd struct {
	Add    domainAdd    `cmd:"" help:"Add a domain to a tenant."`
	List   domainList   `cmd:"" help:"List a tenant's domains."`
	Show   domainShow   `cmd:"" help:"Show the DNS records to publish, checked live."`
	Remove domainRemove `cmd:"" help:"Remove a domain."`
}

type domainView struct {
	Name       string    `json:"name"`
	Tenant     string    `json:"tenant"`
	Recipients string    `json:"recipients"`
	PlusTags   bool      `json:"plus_tags"`
	CreatedAt  time.Time `json:"created_at"`
	DNS        []struct {
		Type  string   `json:"type"`
		Name  string   `json:"name"`
		Value string   `json:"value"`
		Found []string `json:"found"`
		OK    bool     `json:"ok"`
	} `json:"dns"`
}

type domainAdd struct {
	Tenant     string `arg:""`
	Domain     string `arg:""`
	Recipients string `help:"How it is known which recipients exist: ${enum}." enum:"list,probe,none" default:"none"`
	PlusTags   bool   `help:"user+tag is user, for that check."`
	IfAbsent   bool   `help:"Not an error when the same domain exists."`
}

func (c *domainAdd) Run(e *env) error {
	in := map[string]any{"name": c.Domain, "recipients": c.Recipients, "plus_tags": c.PlusTags, "if_absent": c.IfAbsent}
	return showAdded(e, at("/v1/tenants", c.Tenant)+"/domains", in, func(d domainView, made bool) string {
		if !made {
			return fmt.Sprintf("domain %s is there already, of %s (recipients: %s); nothing was changed", d.Name, d.Tenant, d.Recipients)
		}
		text := fmt.Sprintf("domain %s added to %s (recipients: %s)", d.Name, d.Tenant, d.Recipients)
		if d.Recipients == "none" {
			text += "\nEvery address of it is accepted. With --recipients list or probe unknown ones are refused."
		}
		return text + fmt.Sprintf("\nnext: sallyport connection add %s mailbox --kind smtp --host HOST", d.Tenant)
	})
}

type domainList struct {
	Tenant string `arg:""`
}

func (c *domainList) Run(e *env) error {
	return list(e, at("/v1/tenants", c.Tenant)+"/domains", nil, []string{"domain", "recipients", "plus tags", "added"},
		func(d domainView) []string {
			return []string{d.Name, d.Recipients, fmt.Sprint(d.PlusTags), when(&d.CreatedAt)}
		})
}

type domainShow struct {
	Tenant string `arg:""`
	Domain string `arg:""`
}

func (c *domainShow) Run(e *env) error {
	return show(e, "GET", at("/v1/tenants", c.Tenant, "domains", c.Domain), nil, nil, func(d domainView) string {
		lines := []string{fmt.Sprintf("%s of %s, recipients: %s", d.Name, d.Tenant, d.Recipients), "", "publish:"}
		for _, r := range d.DNS {
			state := "published"
			if !r.OK {
				state = "missing; found " + dash(strings.Join(r.Found, ", "))
			}
			lines = append(lines, fmt.Sprintf("  %s  %s  %s    (%s)", r.Name, r.Type, r.Value, state))
		}
		return strings.Join(lines, "\n")
	})
}

type domainRemove struct {
	Tenant string `arg:""`
	Domain string `arg:""`
}

func (c *domainRemove) Run(e *env) error {
	return remove(e, at("/v1/tenants", c.Tenant, "domains", c.Domain), "domain "+c.Domain)
}

type directoryCmd struct {
	Add    directoryAdd    `cmd:"" help:"Add a recipient."`
	Import directoryImport `cmd:"" help:"Add the recipients of a file, one address a line."`
	List   directoryList   `cmd:"" help:"List a tenant's recipients."`
	Remove directoryRemove `cmd:"" help:"Remove a recipient."`
}

type entryView struct {
	Address   string    `json:"address"`
	CreatedAt time.Time `json:"created_at"`
}

type directoryAdd struct {
	Tenant   string `arg:""`
	Address  string `arg:""`
	IfAbsent bool   `help:"Not an error when it is listed already."`
}

func (c *directoryAdd) Run(e *env) error {
	in := map[string]any{"address": c.Address, "if_absent": c.IfAbsent}
	return showAdded(e, at("/v1/tenants", c.Tenant)+"/directory", in, func(v entryView, made bool) string {
		if !made {
			return v.Address + " is listed already; nothing was changed"
		}
		return v.Address + " added"
	})
}

type directoryImport struct {
	Tenant string `arg:""`
	File   string `arg:"" type:"existingfile"`
}

// importBatch keeps a request well below the API's body limit.
const importBatch = 2000

func (c *directoryImport) Run(e *env) error {
	addrs, numbers, err := readLines(c.File)
	if err != nil {
		return err
	}
	added, err := e.importRecipients(c.Tenant, addrs, func(i int) string { return fmt.Sprintf("%s:%d", c.File, numbers[i]) })
	if err != nil {
		return err
	}
	return e.done(fmt.Sprintf("%d added, %d were listed already", added, len(addrs)-added),
		map[string]any{"read": len(addrs), "added": added})
}

// importRecipients adds addresses in batches and returns how many were new.
// place says where the address of an index comes from, for those that are wrong.
func (e *env) importRecipients(tenant string, addrs []string, place func(i int) string) (added int, err error) {
	c, err := e.client()
	if err != nil {
		return 0, err
	}
	for start := 0; start < len(addrs); start += importBatch {
		batch := addrs[start:min(start+importBatch, len(addrs))]
		var out struct {
			Added int `json:"added"`
		}
		err := c.Do(e.ctx, "POST", at("/v1/tenants", tenant)+"/directory/import", nil, map[string]any{"addresses": batch}, &out)
		if err != nil {
			placeFlaws(err, len(batch), func(i int) string { return place(start + i) })
			return added, err
		}
		added += out.Added
	}
	return added, nil
}

// placeFlaws has a problem name the place of each wrong address; the API counts
// the n of one request, which nobody sees.
func placeFlaws(err error, n int, place func(i int) string) {
	var p *client.Problem
	if !errors.As(err, &p) {
		return
	}
	for k, flaw := range p.Errors {
		var i int
		if _, err := fmt.Sscanf(flaw.Location, "body.addresses[%d]", &i); err == nil && i >= 0 && i < n {
			p.Errors[k].Location = place(i)
		}
	}
}

// readLines reads the lines of a file that are not empty or comments, with
// their numbers from 1.
func readLines(file string) (lines []string, numbers []int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		if l := strings.TrimSpace(s.Text()); l != "" && !strings.HasPrefix(l, "#") {
			lines, numbers = append(lines, l), append(numbers, n)
		}
	}
	return lines, numbers, s.Err()
}

type directoryList struct {
	Tenant string `arg:""`
}

func (c *directoryList) Run(e *env) error {
	return list(e, at("/v1/tenants", c.Tenant)+"/directory", nil, []string{"address", "added"}, func(v entryView) []string {
		return []string{v.Address, when(&v.CreatedAt)}
	})
}

type directoryRemove struct {
	Tenant  string `arg:""`
	Address string `arg:""`
}

func (c *directoryRemove) Run(e *env) error {
	return remove(e, at("/v1/tenants", c.Tenant, "directory", c.Address), c.Address)
}
