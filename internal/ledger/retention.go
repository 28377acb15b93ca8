package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	retireEvery = time.Hour
	// retireStep is how far the cut moves at most from one pass to the next. A
	// clock that jumps ahead by a year would else remove in one pass what no
	// setting back of it returns.
	retireStep = 2 * retireEvery
	retirePage = 500 // entries in one commit
	// retireWait is how long a pass waits for exports to end. It does not queue
	// for them: that would hold up every export behind one that nobody reads.
	retireWait = time.Minute
	retireLook = 50 * time.Millisecond
	// retireAct is the act of the entry that is written before texts are
	// removed; audit knows it.
	retireAct = "ledger.retain"
)

// pastCut is what the last pass thought to be the end of the retention.
type pastCut struct {
	at    time.Time
	known bool
}

// retire removes what is past its retention, each hour.
func (l *Ledger) retire(ctx context.Context) {
	for {
		if _, err := l.Retire(ctx); err != nil && ctx.Err() == nil {
			l.c.Log.Warn("ledger: old entries were not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retireEvery):
		}
	}
}

// Retire is one pass: it removes the texts of the oldest entries whose
// retention has ended, and returns of how many. Their hashes stay. The first
// pass of a process only looks at the clock. It must not run twice at a time.
func (l *Ledger) Retire(ctx context.Context) (int64, error) {
	cut := l.c.Now().Add(-l.c.Retention)
	past := l.cut
	if past.known && cut.After(past.at.Add(retireStep)) {
		cut = past.at.Add(retireStep)
	}
	l.cut = pastCut{cut, true}
	if !past.known || l.c.Retention <= 0 {
		return 0, nil
	}
	var origin, keys string
	var first int64
	if err := l.door.QueryRow(ctx, selectLog).Scan(&origin, &keys, &first); err != nil {
		return 0, store.Fault("ledger.Retire", err)
	}
	end, err := l.ended(ctx, first, cut)
	if err != nil || end == first {
		return 0, err
	}
	if err := l.noExport(ctx); err != nil {
		return 0, err
	}
	defer l.ending.Unlock()
	// The intention comes first, so that whoever finds a text gone finds in the
	// log why.
	_, err = l.Append(ctx, Entry{Source: Witnessed, Actor: "keeper", Act: retireAct, Subject: fmt.Sprintf("below %d", end), Count: end - first})
	if err == nil {
		// Unsigned it would excuse nothing: anybody can write behind the last
		// checkpoint.
		_, err = l.Checkpoint(ctx)
	}
	if err != nil {
		return 0, err
	}
	return end - first, l.remove(ctx, first, end)
}

// ended is the index behind the last of the entries, from first on without a
// gap, that are older than the cut.
func (l *Ledger) ended(ctx context.Context, first int64, cut time.Time) (int64, error) {
	for end := first; ; {
		n, all, err := l.endedPage(ctx, end, cut)
		if err != nil {
			return 0, err
		}
		end += n
		if !all || n == 0 {
			return end, nil
		}
	}
}

func (l *Ledger) endedPage(ctx context.Context, from int64, cut time.Time) (n int64, all bool, err error) {
	rows, err := l.door.Query(ctx, oldEntries, from, block)
	if err != nil {
		return 0, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var index, when int64
		if err := rows.Scan(&index, &when); err != nil {
			return 0, false, store.Fault("ledger.Retire", err)
		}
		if index != from+n || when >= cut.UnixMicro() {
			return n, false, nil
		}
		n++
	}
	return n, n == block, store.Fault("ledger.Retire", rows.Err())
}

// noExport returns when none is under way, with the lock held that keeps others
// waiting.
func (l *Ledger) noExport(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, retireWait)
	defer cancel()
	for !l.ending.TryLock() {
		select {
		case <-wait.Done():
			return fault.New(fault.Later, "ledger.Retire", "an export of the ledger has been under way all the time")
		case <-time.After(retireLook):
		}
	}
	return nil
}

// remove empties rows from first to end, a page in each commit. The caller
// holds the lock: an export sees all of it or nothing.
func (l *Ledger) remove(ctx context.Context, first, end int64) error {
	for at := first; at < end; at += retirePage {
		to := min(at+retirePage, end)
		err := l.door.Change(ctx, func(tx store.KeeperTx) error {
			if _, err := tx.Exec(endPayloads, at, to); err != nil {
				return err
			}
			_, err := tx.Exec(updateEnded, to)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
