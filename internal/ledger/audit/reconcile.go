package audit

// reconcile holds the entries of a tile against its hashes, and names what does
// not fit: an entry that was changed, one that is gone, two that were swapped.
// The hashes themselves are held against the checkpoints.
func (v *verifier) reconcile() {
	if len(v.lines) == len(v.pending) {
		for k := range v.lines {
			v.compare(int64(k), v.lines[k])
		}
		return
	}
	// Rows are missing, or were added: only what an entry says of itself tells
	// which it is.
	have := make([]bool, len(v.pending))
	for _, s := range v.lines {
		k := s.index - v.from
		if k < 0 || k >= int64(len(have)) || have[k] {
			v.problem(v.from, "there is an entry too many, which says it is %d", s.index)
			continue
		}
		have[k] = true
		v.compare(k, s)
	}
	for k, there := range have {
		if !there {
			v.spoilt(v.from+int64(k), "the entry is missing: its row was deleted")
		}
	}
}

// compare holds one entry against the hash of its place.
func (v *verifier) compare(k int64, s seen) {
	index := v.from + k
	switch {
	case s.removed && s.index == index:
		v.removed = max(v.removed, index+1)
	case s.removed:
		v.spoilt(index, "what stands here says that the text of %d was removed", s.index)
	case s.hash == v.pending[k] && s.index == index:
	case s.hash == v.pending[k]:
		v.spoilt(index, "the entry was written with the index %d", s.index)
	case s.index != index && s.index >= 0:
		v.spoilt(index, "the entry %d stands here: rows were swapped", s.index)
	default:
		v.spoilt(index, "the entry was changed: its bytes have not the hash that was written")
	}
}

// spoilt is a problem of an entry itself.
func (v *verifier) spoilt(index int64, format string, args ...any) {
	if v.named == nil {
		v.named = map[int64]bool{}
	}
	v.named[index] = true
	v.problem(index, format, args...)
}
