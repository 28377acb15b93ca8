package ledger

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// frontier is the right edge of the tree: of each level of tiles the one that
// is not complete. It is all that appending needs, and never more than 255
// hashes a level.
type frontier struct {
	size   int64
	levels [][]tlog.Hash
	// peaks are the roots of the complete subtrees that the tree falls into, the
	// largest first: one for each bit of the size. The root is folded out of
	// them, for each commit signs it.
	peaks []tlog.Hash
}

// tile is a complete tile on its way into the database.
type tile struct {
	level  int
	n      int64
	hashes []byte
}

// clone is a copy that can grow by itself.
func (f *frontier) clone() *frontier {
	c := &frontier{size: f.size, levels: make([][]tlog.Hash, len(f.levels)), peaks: slices.Clone(f.peaks)}
	for i, level := range f.levels {
		c.levels[i] = append(make([]tlog.Hash, 0, tileWidth), level...)
	}
	return c
}

// push appends the hash of a leaf, and returns the tiles that it completed.
func (f *frontier) push(h tlog.Hash) []tile {
	var full []tile
	index := f.size
	f.grow(h)
	f.size++
	for level := 0; ; level++ {
		if level == len(f.levels) {
			f.levels = append(f.levels, make([]tlog.Hash, 0, tileWidth))
		}
		f.levels[level] = append(f.levels[level], h)
		if len(f.levels[level]) < tileWidth {
			return full
		}
		full = append(full, tile{level, index >> (tileHeight * (level + 1)), flat(f.levels[level])})
		h = subtree(f.levels[level])
		f.levels[level] = f.levels[level][:0]
	}
}

// grow adds a leaf to the peaks: where two are of one size they become one.
func (f *frontier) grow(h tlog.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.peaks) - 1
		h = tlog.NodeHash(f.peaks[last], h)
		f.peaks = f.peaks[:last]
	}
	f.peaks = append(f.peaks, h)
}

// findPeaks finds them in the levels, of a frontier that was read.
func (f *frontier) findPeaks() {
	f.peaks = nil
	for _, level := range slices.Backward(f.levels) {
		for width := tileWidth / 2; width > 0; width /= 2 {
			if len(level)&width != 0 {
				at := len(level) &^ (2*width - 1)
				f.peaks = append(f.peaks, subtree(level[at:at+width]))
			}
		}
	}
}

// root is the tree's hash (RFC 6962 2.1).
func (f *frontier) root() (tlog.Hash, error) {
	if f.size == 0 {
		return tlog.TreeHash(0, nil)
	}
	last := len(f.peaks) - 1
	h := f.peaks[last]
	for _, left := range slices.Backward(f.peaks[:last]) {
		h = tlog.NodeHash(left, h)
	}
	return h, nil
}

// subtree is the hash over a power of two of hashes.
func subtree(hashes []tlog.Hash) tlog.Hash {
	row := append(make([]tlog.Hash, 0, len(hashes)), hashes...)
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

func flat(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

func unflat(b []byte) []tlog.Hash {
	hashes := make([]tlog.Hash, len(b)/tlog.HashSize)
	for i := range hashes {
		copy(hashes[i][:], b[i*tlog.HashSize:])
	}
	return hashes
}

// tiles reads tiles of the tree as it was at a frontier: those that were
// complete from the database, the others from memory. It is a tlog.TileReader.
type tiles struct {
	ctx  context.Context
	door store.KeeperDoor
	at   *frontier
}

// Height is how many levels of the tree a tile has.
func (t tiles) Height() int { return tileHeight }

// SaveTiles has nothing to do: what was verified is in the database already.
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles returns the hashes of tiles.
func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, one := range want {
		data, err := t.read(one)
		if err != nil {
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

func (t tiles) read(want tlog.Tile) ([]byte, error) {
	there := t.at.size >> (tileHeight * want.L)
	if (want.N+1)*tileWidth > there { // the tile of the right edge
		if want.L >= len(t.at.levels) || want.W > len(t.at.levels[want.L]) || want.N != there>>tileHeight {
			return nil, fault.New(fault.Internal, "ledger.tiles", fmt.Sprintf("tile %v is beyond a tree of %d", want, t.at.size))
		}
		return flat(t.at.levels[want.L][:want.W]), nil
	}
	var data []byte
	err := t.door.QueryRow(t.ctx, selectTile, want.L, want.N).Scan(&data)
	if err != nil && !fault.Is(store.Fault("ledger.tiles", err), fault.Missing) {
		return nil, store.Fault("ledger.tiles", err)
	}
	if err != nil || len(data) != tileWidth*tlog.HashSize {
		return nil, tampered("ledger.tiles", fmt.Sprintf("the hashes of entries from %d on are damaged or gone", want.N<<(tileHeight*(want.L+1))))
	}
	return data[:want.W*tlog.HashSize], nil
}

// plain reads hashes out of tiles without holding them against a tree.
func (t tiles) plain() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			where := tlog.TileForIndex(tileHeight, index)
			data, err := t.read(where)
			if err != nil {
				return nil, err
			}
			if out[i], err = tlog.HashFromTile(where, data, index); err != nil {
				return nil, fault.Wrap(fault.Internal, "ledger.tiles", err)
			}
		}
		return out, nil
	})
}

// root is the tree's hash at a size up to the frontier's.
func (t tiles) root(size int64) (tlog.Hash, error) {
	if size == t.at.size {
		return t.at.root()
	}
	if size == 0 {
		return tlog.TreeHash(0, nil)
	}
	return tlog.TreeHash(size, t.plain())
}

// tampered is the error of a log that is not what it was.
func tampered(op, text string) error {
	return fault.New(fault.Conflict, op, text).
		WithHint("Run sallyport ledger verify to see what was changed, and restore the keeper from a copy that its witnesses agree with.")
}
