package ledger

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// naive is the Merkle tree hash as RFC 6962, section 2.1 defines it.
func naive(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(naive(leaves[:k]), naive(leaves[k:]))
}

// naivePath is the inclusion path of RFC 6962, section 2.1.1.
func naivePath(m int, leaves []tlog.Hash) []tlog.Hash {
	if len(leaves) == 1 {
		return nil
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	if m < k {
		return append(naivePath(m, leaves[:k]), naive(leaves[k:]))
	}
	return append(naivePath(m-k, leaves[k:]), naive(leaves[:k]))
}

// A history of appends, checkpoints and new starts has the roots, paths and
// proofs of the naive tree.
func TestAgainstNaiveTree(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	var leaves []tlog.Hash
	var signed []Checkpoint
	rapid.Check(t, func(rt *rapid.T) {
		d.fill(rapid.SampledFrom([]int{1, 2, 7, 100, 255, 256, 257}).Draw(rt, "entries"))
		if rapid.Bool().Draw(rt, "restart") {
			d.open()
		}
		for from := int64(len(leaves)); from < d.l.Size(); from = int64(len(leaves)) {
			err := eachEntry(t.Context(), d.db.Keeper(), from, from+500, func(r row) error {
				leaves = append(leaves, tlog.RecordHash(r.payload))
				return nil
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
		c := d.sign()
		signed = append(signed, c)
		if c.Size != int64(len(leaves)) || c.Hash != naive(leaves) {
			rt.Fatalf("the root at %d is another", c.Size)
		}
		i := rapid.IntRange(0, len(leaves)-1).Draw(rt, "index")
		p, err := d.l.Prove(t.Context(), int64(i))
		if err != nil {
			rt.Fatal(err)
		}
		want := naivePath(i, leaves)
		if len(p.Hashes) != len(want) {
			rt.Fatalf("the path of %d in %d has %d hashes, not %d", i, len(leaves), len(p.Hashes), len(want))
		}
		for k := range want {
			if string(p.Hashes[k]) != string(want[k][:]) {
				rt.Fatalf("hash %d of the path of %d in %d is another", k, i, len(leaves))
			}
		}
		old := signed[rapid.IntRange(0, len(signed)-1).Draw(rt, "old")]
		con, err := d.l.Consistency(t.Context(), old.Size)
		if err != nil {
			rt.Fatal(err)
		}
		proof := make(tlog.TreeProof, 0, len(con.Hashes))
		for _, h := range con.Hashes {
			proof = append(proof, tlog.Hash(h))
		}
		if err := tlog.CheckTree(proof, c.Size, c.Hash, old.Size, old.Hash); err != nil {
			rt.Fatal(err)
		}
	})
	if r := d.verify(d.export(), signed[len(signed)/2].Note...); !r.OK || !r.Anchored {
		t.Errorf("%+v", r)
	}
}

// The right edge is the naive tree's also where three levels of tiles meet.
func TestFrontier(t *testing.T) {
	f := &frontier{}
	var leaves []tlog.Hash
	var full int
	for i := range 1<<16 + 600 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(i))
		h := tlog.RecordHash(b[:])
		leaves = append(leaves, h)
		full += len(f.push(h))
		if i%9973 == 0 || i >= 1<<16-2 && i <= 1<<16+2 {
			want := naive(leaves)
			got, err := f.root()
			if err != nil || got != want {
				t.Fatal("another root at", f.size, err)
			}
			// The same from tiles, and by a frontier that was read.
			if got, err := tlog.TreeHash(f.size, tiles{at: f}.plain()); err != nil || got != want {
				t.Fatal("another root of the tiles at", f.size, err)
			}
			read := &frontier{size: f.size, levels: f.levels}
			if read.findPeaks(); !slices.Equal(read.peaks, f.peaks) {
				t.Fatal("other peaks at", f.size)
			}
		}
	}
	if full != 258+1 || len(f.levels) != 3 {
		t.Error(full, len(f.levels))
	}
}

// Inclusion holds at every index of trees of every small size, and for nothing
// else.
func TestProofsAreExact(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		d.fill(1 + r.IntN(20))
		c := d.sign()
		i := r.Int64N(c.Size)
		p, err := d.l.Prove(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		var path tlog.RecordProof
		for _, h := range p.Hashes {
			path = append(path, tlog.Hash(h))
		}
		if err := tlog.CheckRecord(path, c.Size, c.Hash, i, tlog.RecordHash([]byte(p.Entry))); err != nil {
			t.Error(i, c.Size, err)
		}
		if other := (i + 1) % c.Size; other != i && tlog.CheckRecord(path, c.Size, c.Hash, other, tlog.RecordHash([]byte(p.Entry))) == nil {
			t.Error(fmt.Sprint("the path of ", i, " proves ", other))
		}
	}
}
