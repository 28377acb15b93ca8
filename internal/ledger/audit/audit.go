package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	exportFormat = "sallyport-ledger-2"
	// untailed is the format of exports from before there were tails.
	untailed    = "sallyport-ledger-1"
	tileWidth   = 256
	maxLine     = 1 << 20
	maxProblems = 1000
	maxWhat     = 500 // bytes of one problem's text
	maxKeys     = 100
	// mostUnsigned is how many entries may stand behind the last checkpoint: one
	// is signed when 1,000 are uncovered, and a commit has 4,096 at most.
	mostUnsigned = 20_000
	retainAct    = "ledger.retain"
)

// Options of a verification.
type Options struct {
	// Anchor is a checkpoint of this log that is known from elsewhere: from a
	// witness, an earlier export, a proof.
	Anchor []byte
	// Keys are the verifier keys of the log as they are known. Without any,
	// those in the export are taken, and the report says so.
	Keys []string
}

// Where keys come from.
const (
	fromOptions = "options"
	fromExport  = "export"
	fromProof   = "proof"
)

// keyring is the known keys, or those that came with what is verified.
func (o Options) keyring(offered []string) (k keyring, from string, err error) {
	from = fromOptions
	if len(o.Keys) == 0 {
		o.Keys, from = offered, fromExport
	}
	k, err = readKeys(o.Keys)
	return k, from, err
}

// Problem is one thing that is wrong, at an entry.
type Problem struct {
	Index int64  `json:"index"`
	What  string `json:"what"`
}

// Report is what a verification found.
type Report struct {
	OK         bool        `json:"ok"`
	Verdict    string      `json:"verdict"`
	Entries    int64       `json:"entries"`
	Removed    int64       `json:"removed"`  // entries of which retention left the hash
	Unsigned   int64       `json:"unsigned"` // entries behind the last checkpoint
	Anchored   bool        `json:"anchored"`
	KeysFrom   string      `json:"keys_from"`  // "options", or "export"
	Checkpoint *Checkpoint `json:"checkpoint"` // the newest that holds
	// Tail is the log's own word that it ends where the entries do. Nil in an
	// export of the old format: its end may have been cut off behind Checkpoint.
	Tail     *Tail     `json:"tail"`
	Problems []Problem `json:"problems"`
	More     int64     `json:"more_problems,omitempty"` // that are not listed
}

// Verify reads an export to its end and recomputes all of it. What is wrong
// with the log is in the report; an error says that the bytes are no export, or
// could not be read.
func Verify(r io.Reader, o Options) (Report, error) {
	v := &verifier{in: bufio.NewReaderSize(r, 64<<10), report: Report{Problems: []Problem{}}}
	if err := v.begin(o); err != nil {
		return Report{}, fault.Wrap(fault.Invalid, "audit.Verify", err)
	}
	for !v.ended {
		line, err := v.line()
		if errors.Is(err, io.EOF) {
			v.brokeOff()
			break
		}
		if err == nil {
			err = v.read(line)
		}
		if err != nil {
			return Report{}, fault.Wrap(fault.Invalid, "audit.Verify", err)
		}
	}
	if _, err := v.in.ReadByte(); v.ended && err == nil {
		v.problem(v.from, "something stands behind the end of the export")
	}
	return v.conclude(), nil
}

// brokeOff names an export without its last line.
func (v *verifier) brokeOff() {
	at, before := v.from+int64(len(v.lines)), ""
	if v.ending.promised != "" && v.ending.lines == 0 {
		before = ", before its tail"
	}
	v.problem(at, "the export breaks off here%s: its last line is missing", before)
}

// verifier is a verification under way. Entries wait for the hashes line of
// their tile, and hashes for the checkpoints that end among them.
type verifier struct {
	in     *bufio.Reader
	keys   keyring
	anchor *Checkpoint
	report Report
	ended  bool
	met    bool // the anchor was held against the tree
	signed bool // a checkpoint of the log's key was there, whether it held or not
	ending ending

	size    int64 // that the export claims to have
	from    int64 // the first index of the tile being read
	lines   []seen
	named   map[int64]bool // of the tile before, entries of which a problem is known
	tree    peaks
	pending []sum
	claims  []claim // of this tile, that no checkpoint covers yet
	older   claim   // those of earlier tiles as one, with the highest index
	claimed int64   // signed retention entries say that texts below this were removed
	removed int64   // the highest index behind a removed text
}

// seen is an entry's line.
type seen struct {
	index   int64 // as it says itself, -1 when it says nothing
	hash    sum
	removed bool
}

func (v *verifier) problem(index int64, format string, args ...any) {
	if len(v.report.Problems) == maxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{Index: index, What: brief(fmt.Sprintf(format, args...))})
}

// brief bounds a problem's text: parts of it are the file's.
func brief(what string) string {
	if len(what) > maxWhat {
		return strings.ToValidUTF8(what[:maxWhat], "") + "…"
	}
	return what
}

// line is the next line without its end. A last line without an end is none.
func (v *verifier) line() ([]byte, error) {
	line, err := v.in.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) && len(long) <= maxLine {
		line, err = v.in.ReadSlice('\n')
		long = append(long, line...)
	}
	switch {
	case len(long) > maxLine:
		return nil, errors.New("a line of the export does not end")
	case err != nil:
		return nil, err
	}
	return long[:len(long)-1], nil
}

// begin reads the first line.
func (v *verifier) begin(o Options) error {
	line, err := v.line()
	if err != nil {
		return errors.New("this is no export of a ledger: it has no first line")
	}
	var head struct {
		Format, Origin, Region string
		Keys                   []string
		Size                   int64
	}
	if err := json.Unmarshal(line, &head); err != nil || head.Format == "" {
		return errors.New("this is no export of a ledger")
	}
	switch head.Format {
	case exportFormat:
		v.ending.promise("the format of the export says that")
	case untailed:
	default:
		return fmt.Errorf("the format of the export is %.40q, not %q", head.Format, exportFormat)
	}
	if head.Size < 0 {
		return errors.New("the export claims to have less than no entry")
	}
	v.size = head.Size
	if v.keys, v.report.KeysFrom, err = o.keyring(head.Keys); err != nil {
		return err
	}
	if head.Origin != v.keys.origin {
		v.problem(0, "the export says it is of %.100q, and the key is of %q", head.Origin, v.keys.origin)
	}
	if !ofRegion(v.keys.origin, head.Region) {
		v.problem(0, "the export says it is of the region %.100q, and the key is of %.100q", head.Region, v.keys.origin)
	}
	if len(o.Anchor) == 0 {
		return nil
	}
	a, err := v.keys.open(o.Anchor)
	if err != nil {
		return fmt.Errorf("the anchor is no checkpoint of this log: %w", err)
	}
	v.anchor = &a
	return nil
}

// ofRegion reports whether an origin is of a region: it begins with
// "sallyport.<region>".
func ofRegion(origin, region string) bool {
	rest, ok := strings.CutPrefix(origin, "sallyport."+region)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '/')
}

// read takes one line.
func (v *verifier) read(line []byte) error {
	if bytes.HasPrefix(line, []byte(`{"index":`)) {
		return v.entry(line)
	}
	var x struct {
		Removed    *int64
		Hashes     []byte
		From       int64
		Misfiled   []int64
		Checkpoint *string
		Tail       *string
		End        bool
		Entries    int64
	}
	if err := json.Unmarshal(line, &x); err != nil {
		return v.entry(line) // it stands where an entry should
	}
	switch {
	case x.Removed != nil:
		v.report.Removed++
		return v.see(seen{index: *x.Removed, removed: true})
	case x.Hashes != nil:
		return v.hashes(x.From, x.Hashes)
	case x.Misfiled != nil:
		for _, index := range x.Misfiled {
			v.misfiled(index)
		}
	case x.Checkpoint != nil:
		v.checkpoint(*x.Checkpoint)
	case x.Tail != nil:
		v.takeTail(*x.Tail)
	case x.End:
		v.end(x.Entries)
	default:
		return v.entry(line)
	}
	return nil
}

// misfiled names an entry that is searched by other things than it says. Of one
// that was changed itself that is no news.
func (v *verifier) misfiled(index int64) {
	if !v.named[index] {
		v.problem(index, "the entry is whole, but what the ledger finds it by was changed: searches miss it, or find it where it does not belong")
	}
}

// entry takes an entry's line, whatever it says.
func (v *verifier) entry(line []byte) error {
	s := seen{index: -1, hash: leafHash(line)}
	if e, err := readEntry(line); err == nil {
		s.index = e.index
		v.claim(e)
	}
	return v.see(s)
}

// see keeps an entry until its tile is complete. More than a tile holds are
// rows that somebody added.
func (v *verifier) see(s seen) error {
	if len(v.lines) > 2*tileWidth {
		return errors.New("the export has entries without end between two lines of hashes")
	}
	v.lines = append(v.lines, s)
	return nil
}

// said is what an entry says of itself, as far as it matters here.
type said struct {
	index                int64
	act, source, subject string
	actor                string
}

func readEntry(leaf []byte) (said, error) {
	var e struct {
		Index                *int64
		Act, Source, Subject string
		Actor                string
	}
	if err := json.Unmarshal(leaf, &e); err != nil {
		return said{}, err
	}
	if e.Index == nil || !bytes.HasPrefix(leaf, strconv.AppendInt([]byte(`{"index":`), *e.Index, 10)) {
		return said{}, errors.New("an entry begins with its index")
	}
	return said{*e.Index, e.Act, e.Source, e.Subject, e.Actor}, nil
}

// hashes takes the hashes of a tile, and holds its entries against them.
func (v *verifier) hashes(from int64, raw []byte) error {
	want := min(v.size-v.from, tileWidth)
	if from != v.from || len(raw)%len(sum{}) != 0 || int64(len(raw)/len(sum{})) != want || want == 0 {
		return fmt.Errorf("the hashes of the entries from %d on are not where or as many as they should be", v.from)
	}
	v.advance(v.from)
	v.pending = v.pending[:0]
	for ; len(raw) > 0; raw = raw[len(sum{}):] {
		v.pending = append(v.pending, sum(raw[:len(sum{})]))
	}
	v.named = nil
	v.reconcile()
	v.from += want
	v.lines = v.lines[:0]
	return nil
}

// advance grows the tree to a size, out of the hashes that wait.
func (v *verifier) advance(size int64) {
	for v.tree.size < size && len(v.pending) > 0 {
		if v.anchor != nil && v.anchor.Size == v.tree.size {
			v.meet()
		}
		v.tree.add(v.pending[0])
		v.pending = v.pending[1:]
	}
}

// meet holds the anchor against the tree of its size.
func (v *verifier) meet() {
	if v.met {
		return
	}
	v.met = true
	if v.tree.root() != v.anchor.root {
		v.problem(v.tree.size-1, "the log is not the one that the anchor of %d entries was signed of: it was rewritten, or is an old copy that has grown another way", v.anchor.Size)
		return
	}
	v.report.Anchored = true
}

// checkpoint holds a checkpoint of the export against the tree of its size.
func (v *verifier) checkpoint(text string) {
	c, err := v.keys.open([]byte(text))
	if err != nil {
		v.problem(max(v.from-1, 0), "a checkpoint does not count: %v", err)
		return
	}
	v.signed = true
	if c.tailed {
		v.ending.promise("a checkpoint says that")
	}
	if c.Size > v.size {
		if v.ending.cut == nil || c.Size > v.ending.cut.Size {
			v.ending.cut = &c
		}
		return
	}
	if c.Size < v.tree.size || c.Size > v.from {
		v.problem(max(c.Size-1, 0), "the checkpoint of %d entries does not stand behind them", c.Size)
		return
	}
	v.advance(c.Size)
	if v.tree.root() != c.root {
		v.ending.astray = true
		first := int64(0)
		if v.report.Checkpoint != nil {
			first = v.report.Checkpoint.Size
		}
		v.problem(first, "the hashes of the entries %d to %d do not lead to what was signed%s: at least one of them was changed, or this is an old copy that has grown another way", first, c.Size-1, c.when())
		return
	}
	v.report.Checkpoint = &c
	v.cover(c.Size)
}

func (c Checkpoint) when() string {
	if c.Time == nil {
		return ""
	}
	return " at " + c.Time.Format("2006-01-02T15:04:05Z")
}

// end takes the last line.
func (v *verifier) end(entries int64) {
	v.ended = true
	if entries != v.size || v.from != v.size || len(v.lines) > 0 {
		v.problem(v.from, "the export claims %d entries and has %d", max(entries, v.size), v.from)
	}
}

// conclude says what follows from all of it.
func (v *verifier) conclude() Report {
	v.advance(v.from)
	if v.anchor != nil && v.anchor.Size == v.tree.size {
		v.meet()
	}
	v.settle()
	r := &v.report
	r.Entries = v.from
	var signed int64
	if r.Checkpoint != nil {
		signed = r.Checkpoint.Size
	}
	r.Unsigned = r.Entries - signed
	switch {
	case !v.signed && r.Entries > 0:
		v.problem(0, "no checkpoint was signed of any of it")
	case r.Unsigned > mostUnsigned:
		v.problem(signed, "%d entries are behind the last checkpoint: those of them were taken away, or the log was not signed for long", r.Unsigned)
	case v.removed > v.claimed:
		v.problem(v.removed-1, "the texts of entries up to %d were removed, and the log says so only below %d", v.removed-1, v.claimed)
	}
	if v.anchor != nil && !v.met {
		v.problem(v.tree.size, "the anchor was signed of %d entries, and here are %d: the end was cut off, or an old copy was put in its place", v.anchor.Size, v.tree.size)
	}
	r.OK = len(r.Problems) == 0
	r.Verdict = verdict(*r)
	return *r
}

func verdict(r Report) string {
	var more []string
	if r.Removed > 0 {
		more = append(more, fmt.Sprintf("of %d entries only the hash is kept", r.Removed))
	}
	if r.Unsigned > 0 {
		covered := ""
		if r.Tail != nil {
			covered = ", and the tail covers them"
		}
		more = append(more, fmt.Sprintf("%d entries are behind the last checkpoint%s", r.Unsigned, covered))
	}
	if r.OK && r.Tail == nil {
		more = append(more, "no tail says that these are all")
	}
	if r.KeysFrom == fromExport {
		more = append(more, "the keys are the export's own")
	}
	head := "not consistent"
	switch {
	case r.OK && r.Anchored:
		head = "consistent and anchored"
	case r.OK:
		head = "consistent, not anchored"
	}
	return strings.Join(append([]string{head}, more...), "; ")
}
