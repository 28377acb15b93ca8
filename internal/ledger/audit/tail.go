package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// tailTitle is the first line of a tail, so that it is no checkpoint.
const tailTitle = "sallyport ledger tail"

// Tail is the signed statement of where the log ends, as a report shows it.
type Tail struct {
	Size      int64  `json:"size"`
	Hash      string `json:"hash"`      // hex
	Signature string `json:"signature"` // the line of the log's key

	origin string
	root   sum
}

// ending is what an export says of the log's end.
type ending struct {
	promised string      // what says that there is a tail, empty when nothing does
	lines    int         // of tails
	tail     *Tail       // the one that a key has signed
	cut      *Checkpoint // the one that speaks of the most entries, when they are not all here
	astray   bool        // a checkpoint does not agree with the entries
}

// promise notes that there must be a tail.
func (e *ending) promise(by string) {
	if e.promised == "" {
		e.promised = by
	}
}

// openTail reads a tail that a key has signed.
func (k keyring) openTail(raw []byte) (Tail, error) {
	n, err := note.Open(raw, k.list)
	if err != nil {
		var unknown *note.UnverifiedNoteError
		if errors.As(err, &unknown) {
			if t, err := readTail(unknown.Note.Text); err == nil && t.origin != k.origin {
				return t, fmt.Errorf("it is of another log, %.100q", t.origin)
			}
		}
		return Tail{}, fmt.Errorf("its signature is not one of the log's keys (%w)", err)
	}
	t, err := readTail(n.Text)
	if err != nil {
		return t, err
	}
	if t.origin != k.origin {
		return t, fmt.Errorf("it is of another log, %.100q", t.origin)
	}
	t.Signature = fmt.Sprintf("— %s %s", n.Sigs[0].Name, n.Sigs[0].Base64)
	return t, nil
}

// readTail reads the text of a tail: its title, origin, size and hash.
func readTail(text string) (Tail, error) {
	var t Tail
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[0] != tailTitle || lines[4] != "" {
		return t, errors.New("it has not the four lines of a tail")
	}
	t.origin = lines[1]
	size, err := strconv.ParseUint(lines[2], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[2] {
		return t, errors.New("its size is no number")
	}
	t.Size = int64(size)
	root, err := base64.StdEncoding.Strict().DecodeString(lines[3])
	if err != nil || len(root) != len(t.root) {
		return t, errors.New("its hash is not one of SHA-256")
	}
	t.root, t.Hash = sum(root), fmt.Sprintf("%x", root)
	return t, nil
}

// takeTail takes the line of a tail. It is held against the entries when all of
// them were read.
func (v *verifier) takeTail(text string) {
	e := &v.ending
	e.lines++
	if e.lines > 1 {
		v.problem(v.from, "there is more than one tail, and a log ends once: somebody put one in")
		return
	}
	if v.from != v.size || len(v.lines) > 0 {
		v.problem(v.from, "the tail stands before the end of the entries")
	}
	t, err := v.keys.openTail([]byte(text))
	if err != nil {
		v.problem(v.from, "the tail does not count: %v", err)
		return
	}
	e.tail = &t
}

// settle holds the tail against all that was read.
func (v *verifier) settle() {
	e, first := &v.ending, int64(0)
	if c := v.report.Checkpoint; c != nil {
		first = c.Size
	}
	v.short()
	switch t := e.tail; {
	case e.lines == 0 && e.promised != "" && v.ended:
		v.problem(v.from, "the tail is missing, and %s there is one: it was taken out, perhaps with entries behind the %d that are here", e.promised, v.from)
	case t == nil || e.lines > 1:
	case t.Size > v.from: // short has told it
	case t.Size < v.from:
		v.problem(t.Size, "the log ended after %d entries by its tail: the entries from %d to %d were put behind it, or the tail is an older one", t.Size, t.Size, v.from-1)
	case t.root == v.tree.root():
		v.report.Tail = t
	case e.astray: // a checkpoint has told it
	case first == v.from:
		v.problem(max(first-1, 0), "the tail and the checkpoint of %d entries were signed of different ones: there are two logs under one key", first)
	default:
		v.problem(first, "the hashes of the entries %d to %d do not lead to the tail that was signed: at least one of them was changed", first, v.from-1)
	}
}

// short names entries that were signed and are not here, once, by whatever says
// that there were most.
func (v *verifier) short() {
	c, t := v.ending.cut, v.ending.tail
	if t != nil && (v.ending.lines > 1 || t.Size <= v.from || c != nil && t.Size <= c.Size) {
		t = nil
	}
	switch {
	case c != nil && t != nil:
		v.problem(v.size, "the log ends before the entry %d, but %d entries were signed%s, and it had %d entries by its tail: its end was cut off, or an old copy was put in its place", v.size, c.Size, c.when(), t.Size)
	case c != nil:
		v.problem(v.size, "the log ends before the entry %d, but %d entries were signed%s: its end was cut off, or an old copy was put in its place", v.size, c.Size, c.when())
	case t != nil:
		v.problem(v.from, "the log ends before the entry %d, but had %d entries by its tail: its end was cut off", v.from, t.Size)
	}
}
