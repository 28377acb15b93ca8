package audit

import (
	"crypto/sha256"
	"errors"
)

// sum is a hash of the tree.
type sum [sha256.Size]byte

// leafHash is the hash of an entry (RFC 6962, section 2.1: 0x00, then the data).
func leafHash(leaf []byte) sum {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	return sum(h.Sum(nil))
}

// nodeHash is the hash over two subtrees (RFC 6962, section 2.1: 0x01, then
// both).
func nodeHash(left, right sum) sum {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// peaks are the roots of the complete subtrees of a growing tree, the largest
// first: one for each bit of its size.
type peaks struct {
	size  int64
	roots []sum
}

// add appends a leaf's hash: each bit that carries joins two subtrees.
func (p *peaks) add(h sum) {
	for bit := p.size; bit&1 == 1; bit >>= 1 {
		h = nodeHash(p.roots[len(p.roots)-1], h)
		p.roots = p.roots[:len(p.roots)-1]
	}
	p.roots = append(p.roots, h)
	p.size++
}

// root is the hash of the whole tree.
func (p *peaks) root() sum {
	if p.size == 0 {
		return sha256.Sum256(nil)
	}
	h := p.roots[len(p.roots)-1]
	for i := len(p.roots) - 2; i >= 0; i-- {
		h = nodeHash(p.roots[i], h)
	}
	return h
}

// pathRoot is the root that an inclusion path leads to from a leaf (RFC 9162,
// section 2.1.3.2, which spells out how to check what RFC 6962 defines).
func pathRoot(index, size int64, h sum, path []sum) (sum, error) {
	wrong := errors.New("the path has not the length that a tree of this size asks for")
	if index < 0 || index >= size {
		return sum{}, errors.New("the entry is not within the checkpoint's size")
	}
	at, last := index, size-1
	for _, p := range path {
		if last == 0 {
			return sum{}, wrong
		}
		if at&1 == 1 || at == last {
			h = nodeHash(p, h)
			for at&1 == 0 && at != 0 {
				at >>= 1
				last >>= 1
			}
		} else {
			h = nodeHash(h, p)
		}
		at >>= 1
		last >>= 1
	}
	if last != 0 {
		return sum{}, wrong
	}
	return h, nil
}
