package ledger

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

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
	text, err := l.tailText(ctx, f)
	if err != nil {
		return "", err
	}
	raw, err := note.Sign(&note.Note{Text: text}, l.c.Signer)
	return string(raw), fault.Wrap(fault.Later, "ledger.Append", err)
}

func (l *Ledger) tailText(ctx context.Context, f *frontier) (string, error) {
	root, err := tiles{ctx, l.door, f}.root(f.size)
	return fmt.Sprintf("%s\n%s\n%d\n%s\n", tailTitle, l.origin, f.size, base64.StdEncoding.EncodeToString(root[:])), err
}

// checkTail holds the log against its tail. A log without one is from before
// there were tails: it counts if a checkpoint covers all of it.
func (l *Ledger) checkTail(ctx context.Context, f *frontier, signed int64) error {
	const op = "ledger.Open"
	var raw string
	err := store.Fault(op, l.door.QueryRow(ctx, selectTail).Scan(&raw))
	if fault.Is(err, fault.Missing) {
		if f.size == signed {
			return nil
		}
		return tampered(op, fmt.Sprintf("nothing says that the entries from %d to %d are the ledger's own", signed, f.size-1))
	}
	if err != nil {
		return err
	}
	n, err := note.Open([]byte(raw), l.keys)
	if err != nil {
		return tampered(op, "the end of the ledger is not one that its key has signed")
	}
	want, err := l.tailText(ctx, f)
	if err != nil || n.Text == want {
		return err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) > 2 && lines[0] == tailTitle {
		if size, err := strconv.ParseInt(lines[2], 10, 64); err == nil && size < f.size {
			return tampered(op, fmt.Sprintf("the entries from %d to %d were put behind the ledger's end by somebody else", size, f.size-1))
		} else if err == nil && size > f.size {
			return tampered(op, fmt.Sprintf("the ledger ends after %d entries, and had %d", f.size, size))
		}
	}
	return tampered(op, "the end of the ledger is not what it was")
}
