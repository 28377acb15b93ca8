package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Checkpoint is a signed statement of the tree at a size
// (c2sp.org/tlog-checkpoint). Its extension lines say when it was signed, and
// that this log has a tail.
type Checkpoint struct {
	Origin string
	Size   int64
	Hash   tlog.Hash
	Time   time.Time
	// Tailed says that each commit up to it has signed where the log ended: who
	// takes the tail away can't take that out of the checkpoints.
	Tailed bool
	Note   []byte // all of it, with the signatures
}

// The extension lines.
const (
	timeLine   = "time " // RFC 3339 follows
	tailedLine = "tailed"
)

// MarshalJSON writes size, hash (hex), time and signature (the line of the
// log's own key); null before the first checkpoint.
func (c Checkpoint) MarshalJSON() ([]byte, error) {
	if len(c.Note) == 0 {
		return []byte("null"), nil
	}
	_, lines, _ := strings.Cut(string(c.Note), "\n\n")
	signature, _, _ := strings.Cut(lines, "\n")
	return json.Marshal(map[string]any{"size": c.Size, "hash": fmt.Sprintf("%x", c.Hash[:]), "time": c.Time, "signature": signature})
}

// text is what is signed.
func (c Checkpoint) text() string {
	text := fmt.Sprintf("%s\n%d\n%s\n%s%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Hash[:]), timeLine, stamp(c.Time))
	if c.Tailed {
		text += tailedLine + "\n"
	}
	return text
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// OpenCheckpoint reads a checkpoint that one of the keys has signed. Lines of
// others, as of witnesses, may stand below.
func OpenCheckpoint(raw []byte, origin string, keys note.Verifiers) (Checkpoint, error) {
	n, err := note.Open(raw, keys)
	if err != nil {
		return Checkpoint{}, fault.Wrap(fault.Invalid, "ledger.OpenCheckpoint", err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, fault.New(fault.Invalid, "ledger.OpenCheckpoint", "it is a checkpoint of "+c.Origin+", not of "+origin)
	}
	c.Note = append([]byte(nil), raw...)
	return c, nil
}

func parseCheckpoint(text string) (Checkpoint, error) {
	bad := func(what string) (Checkpoint, error) {
		return Checkpoint{}, fault.New(fault.Invalid, "ledger.OpenCheckpoint", "it is no checkpoint: "+what)
	}
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" || lines[0] == "" {
		return bad("lines are missing")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return bad("its size is no number")
	}
	hash, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(hash) != tlog.HashSize {
		return bad("its hash is none")
	}
	c := Checkpoint{Origin: lines[0], Size: size, Hash: tlog.Hash(hash)}
	for _, extension := range lines[3 : len(lines)-1] {
		c.Tailed = c.Tailed || extension == tailedLine
		when, ok := strings.CutPrefix(extension, timeLine)
		if !ok {
			continue
		}
		if c.Time, err = time.Parse(time.RFC3339, when); err != nil {
			return bad("its time is none")
		}
		c.Time = c.Time.UTC()
	}
	return c, nil
}

// Checkpoint signs the tree as it is on disk and stores it, if there is
// something new, and returns the newest checkpoint.
func (l *Ledger) Checkpoint(ctx context.Context) (Checkpoint, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	c, err := l.sign(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.unsign = err.Error()
		return l.newest, err
	}
	l.unsign = ""
	if c.Size > l.newest.Size {
		l.newest = c
		for _, w := range l.watch {
			w.nudge()
		}
	}
	return l.newest, nil
}

// sign makes and stores the checkpoint of what is committed now.
func (l *Ledger) sign(ctx context.Context) (Checkpoint, error) {
	f, have := l.committed(), l.newestCheckpoint()
	if f.size == have.Size {
		return have, nil
	}
	root, err := tiles{ctx, l.door, f}.root(f.size)
	if err != nil {
		return have, err
	}
	// Entries that are new have come with a tail, or the log would not have opened.
	c := Checkpoint{Origin: l.origin, Size: f.size, Hash: root, Time: l.c.Now().UTC().Truncate(time.Second), Tailed: true}
	if c.Note, err = note.Sign(&note.Note{Text: c.text()}, l.c.Signer); err != nil {
		return have, fault.Wrap(fault.Later, "ledger.Checkpoint", err)
	}
	err = l.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertCheckpoint, c.Size, c.Time.UnixMicro(), string(c.Note))
		return err
	})
	if !fault.Is(err, fault.Conflict) {
		return c, err
	}
	// An earlier attempt was committed though its connection was lost: what
	// stands there is ours if it is of the same tree.
	var text string
	if err := l.door.QueryRow(ctx, checkpointOf, c.Size).Scan(&text); err != nil {
		return have, store.Fault("ledger.Checkpoint", err)
	}
	there, err := OpenCheckpoint([]byte(text), l.origin, l.keys)
	if err != nil || there.Size != c.Size || there.Hash != c.Hash {
		return have, tampered("ledger.Checkpoint", fmt.Sprintf("there is another checkpoint of the size %d", c.Size))
	}
	return there, nil
}

func (l *Ledger) newestCheckpoint() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// cosigned is a checkpoint's note with the lines of its witnesses.
func cosigned(ctx context.Context, door store.KeeperDoor, size int64, text string) (string, error) {
	rows, err := door.Query(ctx, selectCosignatures, size)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return "", store.Fault("ledger.read", err)
		}
		text += line
	}
	return text, store.Fault("ledger.read", rows.Err())
}
