package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Waiting is an event in the outbox.
type Waiting struct {
	Seq int64
	Event
}

// Key names the event for ever: a digest of the row. A copy of the database
// that is put back brings the events that it holds under the names they had,
// and new ones, which may get a number that was used before, under others.
func (w Waiting) Key() string {
	h := sha256.New()
	var n [8]byte
	number := func(v int64) {
		binary.BigEndian.PutUint64(n[:], uint64(v))
		h.Write(n[:])
	}
	number(w.Seq)
	number(w.Time.UnixMicro())
	for _, s := range []string{w.Actor, w.Act, w.Tenant, w.Connection, w.Subject, w.Purpose, w.Outcome} {
		number(int64(len(s)))
		h.Write([]byte(s))
	}
	return "gw:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Outbox are the audit events on their way to the ledgers. It is asked by the
// room that brings them there, and by nobody else: reading it leaves no event
// of its own, which would never come to an end.
type Outbox struct{ db *DB }

// Outbox is that of the control database.
func (s *Store) Outbox() Outbox { return Outbox{s.Control} }

// Of are the events of a region in order, at most limit; "" is those whose
// region is not decided.
func (o Outbox) Of(ctx context.Context, region string, limit int) ([]Waiting, error) {
	const op = "store.Outbox"
	rows, err := o.db.query(ctx, string(pageEvents), region, limit)
	if err != nil {
		return nil, Fault(op, err)
	}
	defer rows.Close()
	var all []Waiting
	for rows.Next() {
		var w Waiting
		var at int64
		if err := rows.Scan(&w.Seq, &at, &w.Actor, &w.Act, &w.Tenant, &w.Connection, &w.Subject, &w.Purpose, &w.Outcome); err != nil {
			return nil, Fault(op, err)
		}
		w.Time = time.UnixMicro(at).UTC()
		all = append(all, w)
	}
	return all, Fault(op, rows.Err())
}

// Count is how many wait, and since when the oldest does.
func (o Outbox) Count(ctx context.Context) (n int64, oldest time.Time, err error) {
	var first sql.NullInt64
	err = o.db.queryRow(ctx, string(countEvents)).Scan(&n, &first)
	if first.Valid {
		oldest = time.UnixMicro(first.Int64).UTC()
	}
	return n, oldest, Fault("store.Outbox", err)
}

// Assign decides the regions of events, durably: regions[i] is that of
// events[i].
func (o Outbox) Assign(ctx context.Context, events []Waiting, regions []string) error {
	return o.db.change(ctx, func(s *session) error {
		return eachRun(events, regions, func(region string, first, last int64) error {
			_, err := s.exec(string(assignEvents), region, first, last)
			return err
		})
	})
}

// Done removes events of one region that its ledger has.
func (o Outbox) Done(ctx context.Context, region string, events []Waiting) error {
	regions := make([]string, len(events))
	for i := range regions {
		regions[i] = region
	}
	return o.db.change(ctx, func(s *session) error {
		return eachRun(events, regions, func(region string, first, last int64) error {
			_, err := s.exec(string(deleteEvents), first, last, region)
			return err
		})
	})
}

// eachRun visits runs of events of one region whose numbers follow without a
// gap. On PostgreSQL a gap may be an event whose transaction is not over.
func eachRun(events []Waiting, regions []string, visit func(region string, first, last int64) error) error {
	for i := 0; i < len(events); {
		j := i + 1
		for j < len(events) && events[j].Seq == events[j-1].Seq+1 && regions[j] == regions[i] {
			j++
		}
		if err := visit(regions[i], events[i].Seq, events[j-1].Seq); err != nil {
			return err
		}
		i = j
	}
	return nil
}
