package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

type ledgerCmd struct {
	Search ledgerSearch `cmd:"" help:"Search a region's ledger: who did what, oldest first."`
	Show   ledgerShow   `cmd:"" help:"Show an entry."`
	Prove  ledgerProve  `cmd:"" help:"Print the proof that an entry stands in the ledger; anybody can check it."`
	Verify ledgerVerify `cmd:"" help:"Recompute the ledgers from what they publish, or check a file."`
	Export ledgerExport `cmd:"" help:"Write a region's whole ledger into a file."`
	Status ledgerStatus `cmd:"" help:"Show how each region's ledger stands, with its keys and witnesses."`
}

type ledgerEntryView struct {
	Index      int64      `json:"index"`
	Time       *time.Time `json:"time"`
	Source     string     `json:"source"`
	Actor      string     `json:"actor"`
	Act        string     `json:"act"`
	Tenant     string     `json:"tenant"`
	Connection string     `json:"connection"`
	Subject    string     `json:"subject"`
	Purpose    string     `json:"purpose"`
	Trace      string     `json:"trace"`
	Outcome    string     `json:"outcome"`
	Of         *int64     `json:"of"`
	Count      *int64     `json:"count"`
	Key        string     `json:"key"`
	Hash       string     `json:"hash"`
	Removed    bool       `json:"removed"`
}

// of is the tenant and its connection.
func (v ledgerEntryView) of() string {
	if v.Connection == "" {
		return dash(v.Tenant)
	}
	return dash(v.Tenant) + "/" + v.Connection
}

// result is the outcome, and of which entry it is.
func (v ledgerEntryView) result() string {
	switch {
	case v.Removed:
		return "removed: its retention has ended"
	case v.Of != nil:
		return fmt.Sprintf("%s (of %d)", dash(v.Outcome), *v.Of)
	}
	return dash(v.Outcome)
}

func (v ledgerEntryView) row() []string {
	return []string{strconv.FormatInt(v.Index, 10), when(v.Time), plain(dash(v.Actor)), plain(dash(v.Act)), plain(v.of()),
		plain(cut(dash(v.Subject), 40)), plain(cut(v.result(), 60))}
}

func (v ledgerEntryView) text() string {
	lines := []string{fmt.Sprintf("index       %d", v.Index)}
	if v.Removed {
		lines = append(lines, "text        removed: its retention has ended")
	} else {
		lines = append(lines, "time        "+when(v.Time), "actor       "+plain(v.Actor), "act         "+plain(v.Act)+" ("+plain(v.Source)+")",
			"of          "+plain(v.of()), "subject     "+plain(dash(v.Subject)), "purpose     "+plain(dash(v.Purpose)),
			"trace       "+plain(dash(v.Trace)), "outcome     "+plain(v.result()))
	}
	if v.Count != nil {
		lines = append(lines, fmt.Sprintf("count       %d", *v.Count))
	}
	return strings.Join(append(lines, "hash        "+v.Hash), "\n")
}

// plain shows text of others on a terminal: what could move the cursor, or
// look like what it is not, is escaped.
func plain(s string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if strings.ContainsFunc(s, odd) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// regionFlag says whose ledger; without it the gateway takes the token's
// tenant's, or its first.
type regionFlag struct {
	Region string `help:"The region whose ledger it is, when not the first." placeholder:"R"`
}

type ledgerSearch struct {
	regionFlag
	Tenant     string `help:"Only this tenant's, in the ledger of its region."`
	Connection string `help:"Only this connection's."`
	Act        string `help:"Only this act, such as open-credential."`
	Actor      string `help:"Only of this actor."`
	Trace      string `help:"Only what was done for this message." placeholder:"ID"`
	Since      string `help:"Only from this time on, or of the last D, such as 24h." placeholder:"TIME"`
	Until      string `help:"Only before this time, or longer ago than D." placeholder:"TIME"`
	Limit      int    `help:"At most so many entries; 0 is all." placeholder:"N"`
}

func (c *ledgerSearch) Run(e *env) error {
	if c.Limit < 0 {
		return usage("--limit counts from 0", "Give the most entries to show, or 0 for all.")
	}
	q := query("region", c.Region, "tenant", c.Tenant, "connection", c.Connection, "act", c.Act, "actor", c.Actor, "trace", c.Trace,
		"since", c.Since, "until", c.Until)
	head := []string{"index", "time", "actor", "act", "tenant/connection", "subject", "outcome"}
	return listUpTo(e, "/v1/ledger/entries", q, c.Limit, head, ledgerEntryView.row)
}

// entryArg is an entry of a region's ledger.
type entryArg struct {
	regionFlag
	Index int64 `arg:"" help:"Index of the entry, from 0."`
}

// path is the entry's, with what follows it.
func (c entryArg) path(more string) string {
	return fmt.Sprintf("/v1/ledger/entries/%d%s", c.Index, more)
}

type ledgerShow struct{ entryArg }

func (c *ledgerShow) Run(e *env) error {
	return show(e, "GET", c.path(""), query("region", c.Region), nil, ledgerEntryView.text)
}

type ledgerProve struct{ entryArg }

// Run prints the proof as JSON with and without --json: it is a file.
func (c *ledgerProve) Run(e *env) error {
	raw, err := e.call("GET", c.path("/proof"), query("region", c.Region), nil)
	if err != nil {
		return err
	}
	return e.printJSON(raw)
}

type ledgerExport struct {
	regionFlag
	File string `arg:"" help:"File to write, as a whole or not at all; - is standard output."`
}

func (c *ledgerExport) Run(e *env) error {
	if c.File == "-" {
		return e.export(c.Region, e.stdout)
	}
	size, err := writeWhole(c.File, func(w io.Writer) error { return e.export(c.Region, w) })
	if err != nil {
		return err
	}
	return e.done("ledger written to "+c.File+"\nCheck it with: sallyport ledger verify --export "+c.File,
		map[string]any{"file": c.File, "bytes": size})
}

// export streams a region's ledger.
func (e *env) export(region string, w io.Writer) error {
	cl, err := e.client()
	if err != nil {
		return err
	}
	path := "/v1/ledger/export"
	if region != "" {
		path += "?" + query("region", region).Encode()
	}
	return cl.Stream(e.ctx, "GET", path, w)
}

// writeWhole writes a file beside its place, syncs it and moves it there: who
// looks finds the old one or the new one. It returns the file's size.
func writeWhole(path string, fill func(io.Writer) error) (size int64, err error) {
	cannot := func(err error) error {
		return fault.New(fault.Conflict, "", "cannot write "+path+": "+err.Error()).WithHint("Name a file in a folder that you can write to.")
	}
	f, err := besideFile(filepath.Dir(path))
	if err != nil {
		return 0, cannot(err)
	}
	defer os.Remove(f.Name()) // which is not there any more when it went well
	if err = fill(f); err != nil {
		f.Close()
		return 0, err
	}
	size, _ = f.Seek(0, io.SeekCurrent)
	if err = f.Sync(); err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncParent(path)
	}
	if err != nil {
		return 0, cannot(err)
	}
	return size, nil
}

// syncParent makes sure that a file's name is on disk, as its bytes are.
func syncParent(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type ledgerView struct {
	Region     string `json:"region"`
	Size       *int64 `json:"size"`
	Checkpoint *struct {
		Size int64      `json:"size"`
		Time *time.Time `json:"time"`
	} `json:"checkpoint"`
	Keys      []string `json:"keys"`
	Witnesses []struct {
		Name       string  `json:"name"`
		Size       int64   `json:"size"`
		Error      *string `json:"error"`
		RolledBack bool    `json:"rolled_back"`
	} `json:"witnesses"`
	Error   *string `json:"error"`
	Frozen  *string `json:"frozen"`
	ForGood bool    `json:"frozen_for_good"`
}

// head is the line of a region. Of a ledger that does not open it says whose word
// it is.
func (v ledgerView) head() string {
	signed := "no checkpoint yet"
	if v.Checkpoint != nil {
		signed = fmt.Sprintf("the last checkpoint of %d signed %s", v.Checkpoint.Size, when(v.Checkpoint.Time))
	}
	switch {
	case v.Size == nil && v.ForGood:
		return v.Region + ": does not open, and its database is not readable"
	case v.Size == nil:
		return v.Region + ": not known"
	case v.ForGood:
		return fmt.Sprintf("%s: does not open; its database has %d entries, %s", v.Region, *v.Size, strings.Replace(signed, "no checkpoint yet", "no checkpoint", 1))
	}
	return fmt.Sprintf("%s: %d entries, %s", v.Region, *v.Size, signed)
}

func (v ledgerView) lines() []string {
	lines := []string{v.head()}
	if v.Error != nil {
		lines = append(lines, "  problem  "+plain(*v.Error))
	}
	switch {
	case v.ForGood:
		lines = append(lines, "  problem  the keeper is frozen for good, since the ledger does not open: put a database from before the change back; no order thaws this")
	case v.Frozen != nil:
		lines = append(lines, "  problem  the keeper is frozen: "+plain(*v.Frozen))
	}
	for _, k := range v.Keys {
		lines = append(lines, "  key      "+plain(k))
	}
	for _, w := range v.Witnesses {
		line := fmt.Sprintf("  witness  %s has agreed to %d", plain(w.Name), w.Size)
		if w.RolledBack {
			line += "; it knows more of this ledger than there is, or another"
		}
		if w.Error != nil {
			line += "; " + plain(*w.Error)
		}
		lines = append(lines, line)
	}
	if v.Size != nil && len(v.Witnesses) == 0 {
		lines = append(lines, "  witness  none: an old copy that somebody puts back can't be told")
	}
	return lines
}

type ledgerStatus struct{}

func (c *ledgerStatus) Run(e *env) error {
	return show(e, "GET", "/v1/ledger", nil, nil, func(v struct{ Regions []ledgerView }) string {
		var lines []string
		for _, r := range v.Regions {
			lines = append(lines, r.lines()...)
		}
		return strings.Join(lines, "\n")
	})
}

// ledgerRegions are the regions that have a ledger, the default first, and why
// the keepers of some are frozen.
func (e *env) ledgerRegions() (all []string, frozen map[string]string, err error) {
	raw, err := e.call("GET", "/v1/ledger", nil, nil)
	if err != nil {
		return nil, nil, err
	}
	var v struct{ Regions []ledgerView }
	if err := unmarshal(raw, &v); err != nil {
		return nil, nil, err
	}
	frozen = map[string]string{}
	for _, r := range v.Regions {
		all = append(all, r.Region)
		if r.Frozen != nil {
			frozen[r.Region] = *r.Frozen
		}
	}
	return all, frozen, nil
}
