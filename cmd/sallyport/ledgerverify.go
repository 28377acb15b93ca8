package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
)

// ledgerVerify recomputes in this process: the gateway is only where the bytes
// come from, and its word that all is well counts for nothing. A keeper that
// says of its own ledger that it is an old copy is believed.
type ledgerVerify struct {
	Region string   `help:"Verify this region's ledger alone, not all." placeholder:"R"`
	Export string   `help:"Check this export instead, without a gateway; - is standard input." xor:"what" placeholder:"FILE"`
	Proof  string   `help:"Check this proof of one entry instead, without a gateway; - is standard input." xor:"what" placeholder:"FILE"`
	Anchor []string `help:"File with a checkpoint that was kept elsewhere: alone, in a proof, or a witness's file. Can be given several times." sep:"none" placeholder:"FILE"`
	Key    []string `help:"Verifier key that the ledger is known by. Can be given several times." sep:"none" placeholder:"KEY"`
}

// regionReport is what was found of one region.
type regionReport struct {
	Region string `json:"region"`
	audit.Report
	Error *string `json:"error"` // why it could not be verified
}

// allReports is what was found of all; what it says beside ok is of the first
// region with a problem, else of the first.
type allReports struct {
	OK bool `json:"ok"`
	audit.Report
	Regions []regionReport `json:"regions"`
}

func (c *ledgerVerify) Run(e *env) error {
	if c.Region != "" && c.Export+c.Proof != "" {
		return usage("--region is for a gateway's ledgers, and a file is of one", "Leave --region out.")
	}
	k, err := readKnown(c.Key, c.Anchor)
	if err != nil {
		return err
	}
	switch {
	case c.Proof != "":
		return c.proof(e, k)
	case c.Export != "":
		return c.file(e, k)
	}
	regions, frozen, err := e.ledgerRegions()
	if err != nil {
		return err
	}
	if c.Region != "" {
		regions = []string{c.Region}
	}
	if err := k.allUsed(regions); err != nil {
		return err
	}
	var all []regionReport
	for _, region := range regions {
		r, err := e.verifyRegion(region, k.of(region))
		if err != nil && (len(regions) == 1 || e.ctx.Err() != nil) {
			return err
		}
		one := regionReport{Region: region, Report: r}
		if err != nil {
			one.Report = audit.Report{Verdict: "not verified", Problems: []audit.Problem{}}
			one.Error = new(fault.Sentence(err))
		}
		if why := frozen[region]; why != "" {
			one.frozen(why)
		}
		all = append(all, one)
	}
	return e.reported(all, liveNext)
}

// frozen adds what a keeper knows of its ledger that the ledger does not show:
// that there was a newer one, or another.
func (r *regionReport) frozen(why string) {
	r.OK = false
	r.Verdict = "not the ledger that it was; " + r.Verdict
	r.Problems = append(r.Problems, audit.Problem{Index: ofNoEntry, What: "the keeper is frozen: " + why})
}

// ofNoEntry is the index of a problem of the ledger as a whole.
const ofNoEntry = -1

// file verifies an export that lies here.
func (c *ledgerVerify) file(e *env, k known) error {
	o, err := k.one()
	if err != nil {
		return err
	}
	f, err := e.openIn(c.Export)
	if err != nil {
		return err
	}
	defer f.Close()
	r, region, err := verifyExport(f, "", o)
	if err != nil {
		return err
	}
	return e.reported([]regionReport{{Region: region, Report: r}}, fileNext)
}

// openIn opens a file, or standard input.
func (e *env) openIn(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(e.stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Missing, "", "cannot read "+path+": "+err.Error()).WithHint("Name a file that there is.")
	}
	return f, nil
}

// maxProofFile is more than any proof has: audit takes 1 MB.
const maxProofFile = 2 << 20

func (c *ledgerVerify) proof(e *env, k known) error {
	o, err := k.one()
	if err != nil {
		return err
	}
	f, err := e.openIn(c.Proof)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProofFile))
	if err != nil {
		return err
	}
	r, err := audit.VerifyProof(raw, o)
	if err != nil {
		return err
	}
	var entries int64
	if r.Checkpoint != nil {
		entries = r.Checkpoint.Size
	}
	if e.flags.JSON {
		err = e.printJSON(struct {
			audit.ProofReport
			Entries int64 `json:"entries"`
		}{r, entries})
	} else {
		fmt.Fprintln(e.stdout, strings.Join(proofLines(r), "\n"))
	}
	if err == nil && !r.OK {
		err = errReported
	}
	return err
}

func proofLines(r audit.ProofReport) []string {
	lines := []string{fmt.Sprintf("entry %d: %s", r.Index, r.Verdict)}
	if r.Entry != nil {
		lines = append(lines, "  "+plain(string(r.Entry)))
	}
	if r.Checkpoint != nil {
		lines = append(lines, fmt.Sprintf("  checkpoint of %d entries signed %s", r.Checkpoint.Size, when(r.Checkpoint.Time)))
	}
	lines = append(lines, problemLines(r.Problems, 0)...)
	if r.KeysFrom != "options" {
		lines = append(lines, "The keys are the proof's own: give those you know the ledger by with --key.")
	}
	return lines
}

// verifyRegion verifies a region's export as it comes from the gateway, in
// constant memory.
func (e *env) verifyRegion(region string, o audit.Options) (audit.Report, error) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	bounded := *e
	bounded.ctx = ctx
	r, w := io.Pipe()
	streamed := make(chan error, 1)
	go func() {
		err := bounded.export(region, w)
		w.CloseWithError(err)
		streamed <- err
	}()
	report, _, err := verifyExport(r, region, o)
	r.CloseWithError(errRead)
	cancel()
	if s := <-streamed; err != nil && s != nil && !errors.Is(s, errRead) && !errors.Is(s, context.Canceled) {
		return audit.Report{}, s // what came was no export because of that
	}
	return report, err
}

// errRead ends a stream that nobody reads any more.
var errRead = errors.New("no more is read")

// verifyExport verifies an export, and that it is of the region when one is
// named. It returns the region that the export names.
func verifyExport(r io.Reader, region string, o audit.Options) (audit.Report, string, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head := exportHead(in)
	report, err := audit.Verify(in, o)
	if err != nil {
		return report, head.Region, err
	}
	if region != "" && (!originOf(head.Origin, region) || head.Region != region) {
		report.OK = false
		report.Verdict = "not consistent"
		report.Problems = append(report.Problems, audit.Problem{What: fmt.Sprintf("the export is of %.100q in region %.20q, not of region %q", head.Origin, head.Region, region)})
	}
	return report, head.Region, nil
}

type headLine struct{ Region, Origin string }

// exportHead looks at the first line, and leaves it there. One that is not
// understood is the verifier's business.
func exportHead(in *bufio.Reader) (h headLine) {
	for n := 1 << 10; n <= in.Size(); n *= 2 {
		b, err := in.Peek(n)
		if line, _, whole := bytes.Cut(b, []byte("\n")); whole {
			_ = json.Unmarshal(line, &h)
			return h
		}
		if err != nil {
			return h
		}
	}
	return h
}

// What to do when something is wrong: with a ledger as it is, and with a file.
const (
	liveNext = `Next: change nothing, and delete nothing. Keep an export (sallyport ledger export FILE) and a copy of the keeper's database;
hold the ledger against a checkpoint that was kept elsewhere (--anchor). docs/ledger.md, "When verify finds something", goes on from there.`
	fileNext = `Next: keep this file, and verify the ledger that it is of (sallyport ledger verify): if that is whole, the file was changed.
docs/ledger.md, "When verify finds something", goes on from there.`
	untailedNext = "This export is from before there were tails: entries behind its last checkpoint may have been cut off. Make another: sallyport ledger export FILE"
)

// reported prints what was found, and fails when anything is wrong; next is
// what to do then.
func (e *env) reported(all []regionReport, next string) error {
	if len(all) == 0 {
		return fault.New(fault.Missing, "", "there is no ledger to verify").WithHint("Configure a keeper for a region.")
	}
	first := max(0, slices.IndexFunc(all, func(r regionReport) bool { return len(r.Problems) > 0 }))
	ok := !slices.ContainsFunc(all, func(r regionReport) bool { return !r.OK })
	if e.flags.JSON {
		if err := e.printJSON(allReports{Report: all[first].Report, OK: ok, Regions: all}); err != nil {
			return err
		}
	} else {
		for _, r := range all {
			fmt.Fprintln(e.stdout, strings.Join(r.lines(), "\n"))
		}
		if hint := anchorHint(all); hint != "" {
			fmt.Fprintln(e.stdout, hint)
		}
		if slices.ContainsFunc(all, func(r regionReport) bool { return len(r.Problems) > 0 }) {
			fmt.Fprintln(e.stdout, next)
		}
	}
	if !ok {
		return errReported
	}
	return nil
}

// shownProblems is how many a person reads; --json has all.
const shownProblems = 20

func (r regionReport) lines() []string {
	name := plain(dash(r.Region)) + ": "
	if r.Error != nil {
		return []string{name + r.Verdict + ": " + plain(*r.Error)}
	}
	lines := []string{name + r.Verdict}
	signed := "no checkpoint"
	if r.Checkpoint != nil {
		signed = fmt.Sprintf("the last good checkpoint of %d signed %s", r.Checkpoint.Size, when(r.Checkpoint.Time))
	}
	if r.Tail != nil {
		signed += "; the tail says that these are all"
	}
	lines = append(lines, fmt.Sprintf("  %d entries, %s", r.Entries, signed))
	return append(lines, problemLines(r.Problems, r.More)...)
}

func problemLines(all []audit.Problem, more int64) []string {
	var lines []string
	for _, p := range all[:min(len(all), shownProblems)] {
		line := "  " + plain(p.What)
		if p.Index != ofNoEntry {
			line = fmt.Sprintf("  entry %d: %s", p.Index, plain(p.What))
		}
		lines = append(lines, line)
	}
	if more += int64(len(all) - len(lines)); more > 0 {
		lines = append(lines, "  "+plural(int(more)))
	}
	return lines
}

func anchorHint(all []regionReport) string {
	var hints []string
	for _, r := range all {
		if r.OK && !r.Anchored && len(hints) == 0 {
			hints = append(hints, "An old copy can't be told from the newest without a checkpoint that was kept elsewhere: give one with --anchor.")
		}
	}
	if slices.ContainsFunc(all, func(r regionReport) bool { return r.OK && r.Tail == nil }) {
		hints = append(hints, untailedNext)
	}
	for _, r := range all {
		if r.OK && r.KeysFrom != "options" {
			return strings.Join(append(hints, "Give the keys that you know the ledger by with --key."), "\n")
		}
	}
	return strings.Join(hints, "\n")
}
