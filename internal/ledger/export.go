package ledger

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// ExportFormat is the first member of an export's first line: what it is.
const ExportFormat = "sallyport-ledger-2"

// untailedFormat is that of exports without a tail. It is written of a database
// from before there were tails, when that does not open.
const untailedFormat = "sallyport-ledger-1"

const exportCheckpoints = 500 // of one read

// The lines of an export that are not leaves; docs/ledger.md describes them.
type (
	headLine struct {
		Format string    `json:"format"`
		Region string    `json:"region"`
		Origin string    `json:"origin"`
		Keys   []string  `json:"keys"`
		Size   int64     `json:"size"`
		Time   time.Time `json:"time"`
	}
	removedLine struct {
		Removed int64 `json:"removed"`
	}
	hashesLine struct {
		Hashes []byte `json:"hashes"`
		From   int64  `json:"from"`
	}
	misfiledLine struct {
		Misfiled []int64 `json:"misfiled"`
	}
	checkpointLine struct {
		Checkpoint string `json:"checkpoint"`
	}
	tailLine struct {
		Tail string `json:"tail"`
	}
	endLine struct {
		End     bool  `json:"end"`
		Entries int64 `json:"entries"`
	}
)

// Export writes the whole log as it stands, with a checkpoint that covers all
// of it, and its tail. Retention waits meanwhile; appending does not. Known are
// checkpoints of this log that are kept beside its database, and were read
// before this call: those that the database has not are written too.
func (l *Ledger) Export(ctx context.Context, w io.Writer, known ...[]byte) error {
	l.ending.RLock()
	defer l.ending.RUnlock()
	c, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	tail, err := l.tailOf(ctx, c)
	if err != nil {
		return err
	}
	x := &exporter{ctx: ctx, door: l.door, w: bufio.NewWriterSize(w, 64<<10), edge: l.committed(), limit: c.Size, tail: tail, known: sized(known)}
	return x.write(headLine{Format: ExportFormat, Region: l.c.Region, Origin: l.origin, Keys: l.c.Keys, Size: c.Size, Time: l.c.Now().UTC()})
}

// Salvage writes an export of a database that Open refuses, as it is. It holds
// nothing against anything: what is wrong, audit names. Known are checkpoints
// that are kept beside the database.
func Salvage(ctx context.Context, db *store.KeeperDB, now time.Time, w io.Writer, known ...[]byte) error {
	x := &exporter{ctx: ctx, door: db.Keeper(), w: bufio.NewWriterSize(w, 64<<10), limit: math.MaxInt64, known: sized(known)}
	head := headLine{Format: ExportFormat, Time: now.UTC()}
	var keys string
	var removed int64
	err := store.Fault("ledger.Salvage", x.door.QueryRow(ctx, selectLog).Scan(&head.Origin, &keys, &removed))
	if err != nil && !fault.Is(err, fault.Missing) {
		return err
	}
	head.Keys = strings.Split(keys, "\n")
	head.Region, _, _ = strings.Cut(strings.TrimPrefix(head.Origin, "sallyport."), ".")
	head.Region, _, _ = strings.Cut(head.Region, "/")
	if err := x.door.QueryRow(ctx, selectEnd).Scan(&head.Size, &x.tail); err != nil {
		return store.Fault("ledger.Salvage", err)
	}
	if x.tail == "" {
		// Where the tail was taken out, the checkpoints say that there was one.
		head.Format = untailedFormat
	}
	return x.write(head)
}

// exporter writes one export.
type exporter struct {
	ctx  context.Context
	door store.KeeperDoor
	w    *bufio.Writer
	edge *frontier // nil when it is not known better than from the rows
	// limit is the size of the last checkpoint to write: what is appended while
	// an export is written is not part of it.
	limit int64

	tail  string    // empty when there is none
	known []noteRow // checkpoints from elsewhere that are to be written, by size

	notes []noteRow // read ahead
	after int64     // the size of the last checkpoint that was read
	over  bool      // no more are there
}

type noteRow struct {
	size int64
	text string
}

func (x *exporter) write(head headLine) error {
	if err := x.json(head); err != nil {
		return err
	}
	for from := int64(0); from < head.Size; from += tileWidth {
		if err := x.tile(from, min(from+tileWidth, head.Size)); err != nil {
			return err
		}
	}
	// Checkpoints of more than there is: the log's end was cut off.
	if err := x.checkpoints(math.MaxInt64); err != nil {
		return err
	}
	if x.tail != "" {
		if err := x.json(tailLine{x.tail}); err != nil {
			return err
		}
	}
	if err := x.json(endLine{End: true, Entries: head.Size}); err != nil {
		return err
	}
	return fault.Wrap(fault.Later, "ledger.Export", x.w.Flush())
}

// tile writes up to 256 entries, then their hashes, then the checkpoints that
// end among them.
func (x *exporter) tile(from, to int64) error {
	var all []filed // read to the end first: writing may take longer than a read may
	err := eachFiled(x.ctx, x.door, from, to, func(r filed) error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		return err
	}
	hashes := make([]byte, (to-from)*tlog.HashSize)
	var misfiled []int64
	for _, r := range all {
		copy(hashes[(r.index-from)*tlog.HashSize:][:tlog.HashSize], r.hash)
		if err := x.entry(r.row); err != nil {
			return err
		}
		if r.misfiled() {
			misfiled = append(misfiled, r.index)
		}
	}
	if hashes, err = x.hashes(from, hashes); err != nil {
		return err
	}
	if err := x.json(hashesLine{Hashes: hashes, From: from}); err != nil {
		return err
	}
	if len(misfiled) > 0 {
		if err := x.json(misfiledLine{misfiled}); err != nil {
			return err
		}
	}
	return x.checkpoints(to)
}

// entry writes a leaf as it is. A leaf has no line feed, for JSON has none in
// its texts; one that was changed to have some must not look like two lines.
func (x *exporter) entry(r row) error {
	if r.payload == nil {
		return x.json(removedLine{r.index})
	}
	x.w.Write(bytes.ReplaceAll(r.payload, []byte("\n"), []byte("\r")))
	_, err := x.w.WriteString("\n")
	return fault.Wrap(fault.Later, "ledger.Export", err)
}

// hashes are those of a tile as they were when it was written, which is not
// where the rows are: from its own row, or from memory. Failing both they are
// those of the rows.
func (x *exporter) hashes(from int64, ofRows []byte) ([]byte, error) {
	if x.edge != nil && from == x.edge.size&^(tileWidth-1) && len(x.edge.levels) > 0 {
		return flat(x.edge.levels[0])[:len(ofRows)], nil
	}
	var data []byte
	err := store.Fault("ledger.Export", x.door.QueryRow(x.ctx, selectTile, 0, from/tileWidth).Scan(&data))
	switch {
	case err == nil && len(data) >= len(ofRows):
		return data[:len(ofRows)], nil
	case err == nil || fault.Is(err, fault.Missing):
		return ofRows, nil
	}
	return nil, err
}

// checkpoints writes those up to a size that were not written yet.
func (x *exporter) checkpoints(upTo int64) error {
	for {
		for len(x.notes) > 0 && x.notes[0].size <= upTo {
			n := x.notes[0]
			x.notes = x.notes[1:]
			if err := x.others(n.size, &n); err != nil {
				return err
			}
			text, err := cosigned(x.ctx, x.door, n.size, n.text)
			if err == nil {
				err = x.json(checkpointLine{text})
			}
			if err != nil {
				return err
			}
		}
		if len(x.notes) > 0 || x.over {
			return x.others(upTo, nil)
		}
		if err := x.readCheckpoints(); err != nil {
			return err
		}
	}
}

// others writes the checkpoints from elsewhere up to a size, but for the one
// that the database has too.
func (x *exporter) others(upTo int64, but *noteRow) error {
	for len(x.known) > 0 && x.known[0].size <= upTo {
		n := x.known[0]
		x.known = x.known[1:]
		if but != nil && n.text == but.text {
			continue
		}
		if err := x.json(checkpointLine{n.text}); err != nil {
			return err
		}
	}
	return nil
}

// sized are checkpoints in the order of their sizes. What is none comes last:
// audit says so.
func sized(known [][]byte) []noteRow {
	var all []noteRow
	for _, raw := range known {
		n := noteRow{math.MaxInt64, string(raw)}
		text, _, _ := strings.Cut(n.text, "\n\n")
		if c, err := parseCheckpoint(text + "\n"); err == nil {
			n.size = c.Size
		}
		all = append(all, n)
	}
	slices.SortStableFunc(all, func(a, b noteRow) int { return cmp.Compare(a.size, b.size) })
	return all
}

func (x *exporter) readCheckpoints() error {
	rows, err := x.door.Query(x.ctx, checkpointsFrom, x.after, x.limit, exportCheckpoints)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n noteRow
		if err := rows.Scan(&n.size, &n.text); err != nil {
			return store.Fault("ledger.Export", err)
		}
		x.notes = append(x.notes, n)
		x.after = n.size
	}
	x.over = len(x.notes) < exportCheckpoints
	return store.Fault("ledger.Export", rows.Err())
}

func (x *exporter) json(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, "ledger.Export", err)
	}
	_, err = x.w.Write(append(raw, '\n'))
	return fault.Wrap(fault.Later, "ledger.Export", err)
}
