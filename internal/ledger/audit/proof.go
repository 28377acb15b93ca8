package audit

import (
	"encoding/json"
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	proofFormat = "sallyport-ledger-proof-1"
	maxProof    = 1 << 20
)

// ProofReport is what was found of a proof.
type ProofReport struct {
	OK         bool            `json:"ok"`
	Verdict    string          `json:"verdict"`
	Index      int64           `json:"index"`
	Entry      json.RawMessage `json:"entry"`
	Hash       string          `json:"hash"`      // of the entry, hex
	KeysFrom   string          `json:"keys_from"` // "options", or "proof"
	Checkpoint *Checkpoint     `json:"checkpoint"`
	Problems   []Problem       `json:"problems"`
}

// VerifyProof checks the proof that one entry stands in the log. With an anchor
// of the same size, its hash has to be the same too. Bytes that are no proof are
// an error of kind invalid.
func VerifyProof(raw []byte, o Options) (ProofReport, error) {
	bad := func(err error) (ProofReport, error) {
		return ProofReport{}, fault.Wrap(fault.Invalid, "audit.VerifyProof", err)
	}
	var p struct {
		Format     string
		Index      int64
		Entry      string
		Hashes     [][]byte
		Checkpoint string
		Keys       []string
	}
	if len(raw) > maxProof {
		return bad(fmt.Errorf("a proof of %d bytes", len(raw)))
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return bad(fmt.Errorf("this is no proof: %w", err))
	}
	if p.Format != proofFormat {
		return bad(fmt.Errorf("the format of the proof is %.40q, not %q", p.Format, proofFormat))
	}
	keys, from, err := o.keyring(p.Keys)
	if err != nil {
		return bad(err)
	}
	if from == fromExport {
		from = fromProof
	}
	r := ProofReport{Index: p.Index, KeysFrom: from, Problems: []Problem{}}
	problem := func(format string, args ...any) {
		r.Problems = append(r.Problems, Problem{Index: p.Index, What: brief(fmt.Sprintf(format, args...))})
	}
	leaf := leafHash([]byte(p.Entry))
	r.Hash = fmt.Sprintf("%x", leaf)
	if json.Valid([]byte(p.Entry)) {
		r.Entry = json.RawMessage(p.Entry)
	}
	if e, err := readEntry([]byte(p.Entry)); err != nil || e.index != p.Index {
		problem("the entry is not one with this index")
	}
	other := false
	c, err := keys.open([]byte(p.Checkpoint))
	if err != nil {
		problem("the checkpoint does not count: %v", err)
	} else {
		r.Checkpoint = &c
		checkPath(p.Index, leaf, p.Hashes, c, problem)
		other = o.compareAnchor(keys, c, problem)
	}
	r.OK = len(r.Problems) == 0
	r.Verdict = "the entry is not proved"
	if r.OK {
		r.Verdict = fmt.Sprintf("the entry stands in the log of %d entries that was signed", c.Size)
		if other {
			r.Verdict += "; the anchor is of another size, and says nothing of it"
		}
	}
	return r, nil
}

// checkPath follows the hashes from the leaf to the checkpoint's root.
func checkPath(index int64, leaf sum, hashes [][]byte, c Checkpoint, problem func(string, ...any)) {
	path := make([]sum, len(hashes))
	for i, h := range hashes {
		if len(h) != len(path[i]) {
			problem("a hash of the path has %d bytes", len(h))
			return
		}
		path[i] = sum(h)
	}
	root, err := pathRoot(index, c.Size, leaf, path)
	switch {
	case err != nil:
		problem("%v", err)
	case root != c.root:
		problem("the path does not lead from the entry to the checkpoint: entry, path or checkpoint was changed")
	}
}

// compareAnchor holds a checkpoint against an anchor of the same size, and
// reports whether it is of another.
func (o Options) compareAnchor(keys keyring, c Checkpoint, problem func(string, ...any)) (other bool) {
	if len(o.Anchor) == 0 {
		return false
	}
	a, err := keys.open(o.Anchor)
	switch {
	case err != nil:
		problem("the anchor does not count: %v", err)
	case a.Size == c.Size && a.root != c.root:
		problem("the anchor of the same size has another hash: there are two logs")
	}
	return err == nil && a.Size != c.Size
}
