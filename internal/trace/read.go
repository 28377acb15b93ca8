package trace

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	defaultPage = 100
	mostPage    = 1000
	patience    = 2 * time.Second              // for catching up before an answer
	highest     = "ZZZZZZZZZZZZZZZZZZZZZZZZZZ" // above every ULID in every collation
	whyRead     = "trace of every tenant"
)

// List catches up with the road first, waiting at most two seconds.
func (l *Log) List(ctx context.Context, f Filter) (page []Message, next string, err error) {
	l.catchUp(ctx)
	limit := pageSize(f.Limit)
	args := []any{before(f.After), lowest(f.Since), micros(f.Since), f.State, pattern(f.From, false), pattern(f.To, true),
		f.MessageID, limit + 1}
	var rows *sql.Rows
	if f.Tenant != "" {
		rows, err = l.c.Trace.For(f.Tenant).Query(ctx, listMessages, args...)
	} else {
		rows, err = l.c.Trace.Operator(whyRead).Query(ctx, listAllMessages, append([]any{""}, args...)...)
	}
	if err != nil {
		return nil, "", fault.Wrap(fault.KindOf(err), "trace.List", err)
	}
	defer rows.Close()
	page = []Message{}
	for rows.Next() {
		var m Message
		if err := scanMessage(rows, &m); err != nil {
			return nil, "", fault.Wrap(fault.Later, "trace.List", err)
		}
		page = append(page, m)
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID
	}
	return page, next, fault.Wrap(fault.Later, "trace.List", rows.Err())
}

// Show finds a message by id or Message-ID; tenant "" is the operator. Kind
// missing.
func (l *Log) Show(ctx context.Context, tenant, id string) (Message, []Step, error) {
	l.catchUp(ctx)
	var m Message
	var text string
	err := scanMessage(l.find(ctx, tenant, id), &m, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return Message{}, nil, fault.New(fault.Missing, "trace.Show", "no message "+id).
			WithHint("List messages to find its id; traces end with the tenant's retention.")
	}
	if err != nil {
		return Message{}, nil, fault.Wrap(fault.KindOf(err), "trace.Show", err)
	}
	steps, err := parseSteps(text)
	return m, steps, err
}

func (l *Log) find(ctx context.Context, tenant, id string) scanner {
	if _, err := ulid.ParseStrict(id); err == nil {
		if tenant != "" {
			return l.c.Trace.For(tenant).QueryRow(ctx, showMessage, strings.ToUpper(id))
		}
		return l.c.Trace.Operator(whyRead).QueryRow(ctx, showAnyMessage, "", strings.ToUpper(id))
	}
	if !strings.HasPrefix(id, "<") {
		id = "<" + id + ">"
	}
	if tenant != "" {
		return l.c.Trace.For(tenant).QueryRow(ctx, showMessageID, id)
	}
	return l.c.Trace.Operator(whyRead).QueryRow(ctx, showAnyMessageID, "", id)
}

// catchUp is for readers: they see what was committed before they asked. When
// that takes too long they see what there is.
func (l *Log) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.mover.move(ctx); err != nil {
		l.c.Log.Warn("trace: a reader sees less than there is", "error", err)
	}
}

type scanner interface{ Scan(dest ...any) error }

func scanMessage(s scanner, m *Message, more ...any) error {
	var to string
	var received int64
	dest := []any{&m.ID, &m.MessageID, &m.Tenant, &m.Region, &m.Direction, &m.From, &to, &m.Subject, &m.Size, &received, &m.State}
	if err := s.Scan(append(dest, more...)...); err != nil {
		return err
	}
	m.To, m.ReceivedAt = unlines(to), fromMicros(received)
	return nil
}

// parseSteps reads the column steps, in the order of time: batches may have
// brought them in another.
func parseSteps(text string) ([]Step, error) {
	steps := []Step{}
	if text == "" {
		return steps, nil
	}
	if err := json.Unmarshal([]byte("["+text[1:]+"]"), &steps); err != nil {
		return nil, fault.Wrap(fault.Internal, "trace.Show", err)
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.Time.UnixMicro(), b.Time.UnixMicro()) })
	return steps, nil
}

func pageSize(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, mostPage)
}

func before(after string) string {
	if after == "" {
		return highest
	}
	return after
}

// lowest is the first id that a message received at that time can have. The id
// is given when the transaction begins, which may be a while before its end.
func lowest(since time.Time) string {
	const longestTransaction = 2 * time.Hour
	if since.IsZero() || since.UnixMilli() < longestTransaction.Milliseconds() {
		return ""
	}
	var id ulid.ULID
	if id.SetTime(ulid.Timestamp(since.Add(-longestTransaction))) != nil {
		return ""
	}
	return id.String()
}

// pattern is a LIKE pattern for an address or "@domain"; inList for one among
// lines. Case does not matter.
func pattern(address string, inList bool) string {
	if address == "" {
		return ""
	}
	p := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(address))
	if strings.HasPrefix(address, "@") {
		p = "%" + p
	}
	if inList {
		if !strings.HasPrefix(address, "@") {
			p = "%\n" + p
		}
		p += "\n%"
	}
	return p
}
