package ledger

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// ProofFormat is the first member of a proof: what it is.
const ProofFormat = "sallyport-ledger-proof-1"

// Proof shows that one entry stands in the log that a checkpoint speaks of
// (RFC 6962, section 2.1.1). Nothing of ours is needed to check it.
type Proof struct {
	Format     string   `json:"format"`
	Index      int64    `json:"index"`
	Entry      string   `json:"entry"`  // the leaf, byte for byte
	Hashes     [][]byte `json:"hashes"` // from the leaf to the root
	Checkpoint string   `json:"checkpoint"`
	Keys       []string `json:"keys"` // of the log; to be compared with those known
}

// Prove returns the proof of an entry, under the newest checkpoint; one is
// signed when the entry is not covered yet.
func (l *Ledger) Prove(ctx context.Context, index int64) (Proof, error) {
	r, err := l.row(ctx, index)
	if err != nil {
		return Proof{}, err
	}
	if r.payload == nil {
		return Proof{}, fault.New(fault.Missing, "ledger.Prove", fmt.Sprintf("the text of the entry %d was removed when its retention ended", index)).
			WithHint("Use a proof or an export that was made before.")
	}
	c := l.newestCheckpoint()
	if c.Size <= index {
		if c, err = l.Checkpoint(ctx); err != nil {
			return Proof{}, err
		}
	}
	path, err := l.path(ctx, c, r)
	if err != nil {
		return Proof{}, err
	}
	text, err := cosigned(ctx, l.door, c.Size, string(c.Note))
	if err != nil {
		return Proof{}, err
	}
	p := Proof{Format: ProofFormat, Index: index, Entry: string(r.payload), Hashes: make([][]byte, 0, len(path)), Checkpoint: text, Keys: l.c.Keys}
	for i := range path {
		p.Hashes = append(p.Hashes, path[i][:])
	}
	return p, nil
}

// path reads the hashes between a row and a checkpoint, and holds them against
// both: a proof that would not convince is not given out.
func (l *Ledger) path(ctx context.Context, c Checkpoint, r row) (tlog.RecordProof, error) {
	reader := tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Hash}, tiles{ctx, l.door, l.committed()})
	path, err := tlog.ProveRecord(c.Size, r.index, reader)
	if err != nil {
		if k := fault.KindOf(store.Fault("ledger.Prove", err)); k == fault.Later || k == fault.Conflict {
			return nil, err
		}
		return nil, tampered("ledger.Prove", "the stored hashes do not lead to the signed checkpoint: "+err.Error())
	}
	if !bytes.Equal(r.hash, hashOf(r.payload)) || tlog.CheckRecord(path, c.Size, c.Hash, r.index, tlog.RecordHash(r.payload)) != nil {
		return nil, tampered("ledger.Prove", fmt.Sprintf("the entry %d is not what it was", r.index))
	}
	return path, nil
}

// Consistency shows that the log of the newest checkpoint continues the one of
// an earlier size.
type Consistency struct {
	Old        int64    `json:"old"`
	Hashes     [][]byte `json:"hashes"`
	Checkpoint string   `json:"checkpoint"`
}

// Consistency returns the proof from an earlier size to the newest checkpoint.
func (l *Ledger) Consistency(ctx context.Context, old int64) (Consistency, error) {
	c := l.newestCheckpoint()
	if old < 0 || old > c.Size {
		return Consistency{}, fault.New(fault.Invalid, "ledger.Consistency", fmt.Sprintf("%d entries are not signed yet: %d are", old, c.Size)).
			WithHint("A checkpoint that claims more is of another ledger, or this one is an old copy.")
	}
	hashes, err := l.consistency(ctx, old, c.Size)
	if err != nil {
		return Consistency{}, err
	}
	p := Consistency{Old: old, Hashes: make([][]byte, 0, len(hashes)), Checkpoint: string(c.Note)}
	for i := range hashes {
		p.Hashes = append(p.Hashes, hashes[i][:])
	}
	return p, nil
}
