package main

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
)

// known is what somebody knows of ledgers from elsewhere: verifier keys, and
// the newest checkpoint of each origin.
type known struct {
	keys    []string
	files   []string
	origins [][]string // of the checkpoints in each file
	anchors []anchor   // one of an origin
}

type anchor struct {
	origin string
	note   []byte
}

// readKnown takes keys as they are given and checkpoints from files.
func readKnown(keys, files []string) (known, error) {
	k := known{keys: keys, files: files}
	for _, path := range files {
		text, err := readTail(path)
		if err != nil {
			return k, fault.New(fault.Missing, "", "cannot read the anchor: "+err.Error()).WithHint("Name a file with a checkpoint.")
		}
		notes := anchorNotes(text)
		if len(notes) == 0 {
			return k, fault.New(fault.Invalid, "", path+" holds no checkpoint").
				WithHint("Give a checkpoint as docs/ledger.md shows it, a proof, or the file of a witness.")
		}
		var origins []string
		for _, n := range notes {
			origin, _, _ := strings.Cut(n, "\n")
			origins = append(origins, origin)
			k.anchors = slices.DeleteFunc(k.anchors, func(a anchor) bool { return a.origin == origin })
			k.anchors = append(k.anchors, anchor{origin, []byte(n)})
		}
		k.origins = append(k.origins, origins)
	}
	return k, nil
}

// anchorTail is how much of a long file is read: the file of a witness grows by
// a checkpoint a minute, and the last of each region are wanted.
const anchorTail = 1 << 20

// readTail reads a file, or the whole records at the end of a long one.
func readTail(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	from := max(0, size-anchorTail)
	raw, err := io.ReadAll(io.NewSectionReader(f, from, anchorTail))
	text := string(raw)
	if from > 0 {
		_, text, _ = strings.Cut(text, recordEnd) // the first may be a part of one
	}
	return text, err
}

// recordEnd is what ends each checkpoint in a witness's file (docs/ledger.md).
const recordEnd = "\n-- \n"

// anchorNotes are the checkpoints of a file, oldest first: one alone, that of a
// proof, or those of a witness, each ended by a line of "-- ". What a crash left
// of the last line of a witness has no such end.
func anchorNotes(text string) []string {
	var p struct{ Checkpoint string }
	if json.Unmarshal([]byte(text), &p) == nil {
		text = p.Checkpoint
	}
	records := strings.Split(text, recordEnd)
	if len(records) > 1 {
		records = records[:len(records)-1]
	}
	var notes []string
	for _, r := range records {
		if r = strings.TrimRight(r, "\n"); strings.Contains(r, "\n\n") { // text, an empty line, signatures
			notes = append(notes, r+"\n")
		}
	}
	return notes
}

// originOf tells whether a log of that name is a region's: sallyport.<region>,
// and perhaps more.
func originOf(origin, region string) bool {
	rest, ok := strings.CutPrefix(origin, "sallyport."+region)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '/')
}

// keyOrigin is the name in a verifier key, <name>+<hash>+<key>.
func keyOrigin(key string) string {
	name, _, _ := strings.Cut(strings.TrimSpace(key), "+")
	return name
}

// of is what is known of a region's ledger.
func (k known) of(region string) audit.Options {
	var o audit.Options
	for _, key := range k.keys {
		if originOf(keyOrigin(key), region) {
			o.Keys = append(o.Keys, key)
		}
	}
	for _, a := range k.anchors {
		if originOf(a.origin, region) {
			o.Anchor = a.note
		}
	}
	return o
}

// one is what is known, for a file that is of one ledger.
func (k known) one() (audit.Options, error) {
	o := audit.Options{Keys: k.keys}
	switch len(k.anchors) {
	case 0:
	case 1:
		o.Anchor = k.anchors[0].note
	default:
		return o, usage("the anchors are of several ledgers, and the file is of one", "Give the anchor of its region alone.")
	}
	return o, nil
}

// allUsed refuses what is known of no region that is verified: who gave it
// would think that it counted.
func (k known) allUsed(regions []string) error {
	used := func(origin string) bool {
		return slices.ContainsFunc(regions, func(r string) bool { return originOf(origin, r) })
	}
	for _, key := range k.keys {
		if !used(keyOrigin(key)) {
			return usage("the key of "+plain(keyOrigin(key))+" is of no ledger that is verified here", "Leave it out, or name its region with --region.")
		}
	}
	for i, origins := range k.origins {
		if !slices.ContainsFunc(origins, used) {
			return usage("the anchor "+k.files[i]+" is of no ledger that is verified here", "Leave it out, or name its region with --region.")
		}
	}
	return nil
}
