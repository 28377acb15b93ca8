package ledger

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// tailTitle is the first line of a tail. A checkpoint begins with the log's
// origin, so that neither can be taken for the other: a tail is signed before
// its commit, which may fail.
const tailTitle = "sallyport ledger tail"

// signTail is the statement of where the log ends, to be written in the commit
// that makes it so. Checkpoints are fewer: what stands behind the last one is
// held against this at the next start.
func (l *Ledger) signTail(ctx context.Context, f *frontier) (string, error) {
	root, err := tiles{ctx, l.door, f}.root(f.size)
	if err != nil {
		return "", err
	}
	return l.signedTail(f.size, root)
}

func (l *Ledger) signedTail(size int64, root tlog.Hash) (string, error) {
	raw, err := note.Sign(&note.Note{Text: l.tailText(size, root)}, l.c.Signer)
	return string(raw), fault.Wrap(fault.Later, "ledger.Append", err)
}

func (l *Ledger) tailText(size int64, root tlog.Hash) string {
	return fmt.Sprintf("%s\n%s\n%d\n%s\n", tailTitle, l.origin, size, base64.StdEncoding.EncodeToString(root[:]))
}

// sizeOfTail is how many entries a tail's text says that there are, -1 when it
// is no tail.
func sizeOfTail(text string) int64 {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || lines[0] != tailTitle {
		return -1
	}
	size, err := strconv.ParseInt(lines[2], 10, 64)
	if err != nil {
		return -1
	}
	return size
}

// tailOf is the tail of the log as a checkpoint covers all of it, for an export.
// What is stored is given out as it lies there, so that somebody else's hand in
// it shows, unless the log has grown since: then that of the smaller size is
// signed anew, which is what its commit has signed. It is empty when it was
// taken out.
func (l *Ledger) tailOf(ctx context.Context, c Checkpoint) (string, error) {
	var stored string
	err := store.Fault("ledger.Export", l.door.QueryRow(ctx, selectTail).Scan(&stored))
	switch {
	case fault.Is(err, fault.Missing) && c.Tailed:
		return "", nil
	case fault.Is(err, fault.Missing): // from before there were tails, or empty
	case err != nil:
		return "", err
	default:
		if n, err := note.Open([]byte(stored), l.keys); err != nil || sizeOfTail(n.Text) <= c.Size {
			return stored, nil
		}
	}
	root := c.Hash
	if c.Size == 0 {
		if root, err = tlog.TreeHash(0, nil); err != nil {
			return "", fault.Wrap(fault.Internal, "ledger.Export", err)
		}
	}
	return l.signedTail(c.Size, root)
}

// checkTail holds the log against its tail. A log without one is from before
// there were tails: it counts if a checkpoint covers all of it, and is itself
// from before.
func (l *Ledger) checkTail(ctx context.Context, f *frontier, signed int64) error {
	const op = "ledger.Open"
	var raw string
	err := store.Fault(op, l.door.QueryRow(ctx, selectTail).Scan(&raw))
	if fault.Is(err, fault.Missing) {
		switch {
		case f.size != signed:
			return tampered(op, fmt.Sprintf("nothing says that the entries from %d to %d are the ledger's own", signed, f.size-1))
		case l.newest.Tailed:
			return tampered(op, fmt.Sprintf("what was signed of the ledger's end is gone, perhaps with entries behind the %d that are here", f.size))
		}
		return nil
	}
	if err != nil {
		return err
	}
	n, err := note.Open([]byte(raw), l.keys)
	if err != nil {
		return tampered(op, "the end of the ledger is not one that its key has signed")
	}
	root, err := tiles{ctx, l.door, f}.root(f.size)
	if err != nil || n.Text == l.tailText(f.size, root) {
		return err
	}
	switch size := sizeOfTail(n.Text); {
	case size > f.size:
		return tampered(op, fmt.Sprintf("the ledger ends after %d entries, and had %d", f.size, size))
	case size >= 0 && size < f.size:
		return tampered(op, fmt.Sprintf("the entries from %d to %d were put behind the ledger's end by somebody else", size, f.size-1))
	}
	return tampered(op, "the end of the ledger is not what it was")
}
