package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

const (
	maxEvents = 500
	maxField  = 1024 // bytes of one field of an entry
	// eventBytes of text go into one append: JSON may make six of each, and the
	// ledger takes 4 MB at once.
	eventBytes = 600 << 10
)

// EnterEvents is of wire.Acts. However often an event comes, its key stands in
// the log once. An event that the ledger would refuse is cleaned, and its
// outcome says so: it must not stand in the way of those behind it.
func (k *Keeper) EnterEvents(ctx context.Context, _ wire.Peer, q act.Events) (act.Done, error) {
	const op = "keeper.EnterEvents"
	if err := k.mayAct(); err != nil {
		return act.Done{}, err
	}
	if len(q.Events) > maxEvents {
		return act.Done{}, fault.New(fault.Invalid, op, "more than 500 events at once").WithHint("Send them in several requests.")
	}
	var batch []ledger.Entry
	bytes := 0
	write := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := k.ledger.AppendEach(ctx, batch)
		batch, bytes = nil, 0
		if err != nil {
			return noEntry(err)
		}
		return nil
	}
	for _, e := range q.Events {
		n := k.assertedAs(e)
		size := len(n.Actor) + len(n.Act) + len(n.Tenant) + len(n.Connection) + len(n.Subject) + len(n.Purpose) + len(n.Outcome) + len(n.Key)
		if bytes+size > eventBytes {
			if err := write(); err != nil {
				return act.Done{}, err
			}
		}
		batch, bytes = append(batch, n), bytes+size
	}
	return act.Done{}, write()
}

// assertedAs is the entry of an event.
func (k *Keeper) assertedAs(v act.Event) ledger.Entry {
	e := ledger.Entry{
		Time: v.Time, Source: ledger.Asserted, Actor: v.Actor, Act: v.Act, Tenant: v.Tenant, Connection: v.Connection,
		Subject: v.Subject, Purpose: v.Purpose, Outcome: v.Outcome, Key: eventKey(v),
	}
	var changed []string
	note := func(field string, was, is string) {
		if was != is {
			changed = append(changed, field)
		}
	}
	for _, f := range []struct {
		name  string
		value *string
		need  bool
	}{{"actor", &e.Actor, true}, {"act", &e.Act, true}, {"tenant", &e.Tenant, false}, {"connection", &e.Connection, false}} {
		was := *f.value
		*f.value = cleanName(was)
		if f.need && *f.value == "" {
			*f.value = "unknown"
		}
		note(f.name, was, *f.value)
	}
	for _, f := range []struct {
		name  string
		value *string
	}{{"subject", &e.Subject}, {"purpose", &e.Purpose}, {"outcome", &e.Outcome}} {
		was := *f.value
		*f.value = clipTo(was, maxField)
		note(f.name, was, *f.value)
	}
	if y := e.Time.UTC().Year(); e.Time.IsZero() || y < 1970 || y > 9999 {
		e.Time = k.now()
		changed = append(changed, "time")
	}
	if len(changed) > 0 {
		remark := "[changed to be entered: " + strings.Join(changed, ", ") + "]"
		e.Outcome = strings.TrimPrefix(clipTo(e.Outcome, maxField-len(remark)-1)+" "+remark, " ")
	}
	return e
}

// eventKey is a key that the ledger takes. One that it would refuse, or none,
// becomes a sum, so that the same event still comes out as the same.
func eventKey(v act.Event) string {
	if v.Key != "" && v.Key == cleanName(v.Key) {
		return v.Key
	}
	b := []byte(v.Key)
	if v.Key == "" {
		b, _ = json.Marshal(v) // only a time of no year fails, and then the sum is of nothing
	}
	sum := sha256.Sum256(b)
	return "event " + hex.EncodeToString(sum[:])
}

// cleanEntry makes an entry one that the ledger takes.
func cleanEntry(e ledger.Entry) ledger.Entry {
	for _, name := range []*string{&e.Actor, &e.Act, &e.Tenant, &e.Connection, &e.Trace, &e.Key} {
		*name = cleanName(*name)
	}
	for _, text := range []*string{&e.Subject, &e.Purpose, &e.Outcome} {
		*text = clipTo(*text, maxField)
	}
	return e
}

// cleanName makes a text one that an entry may be searched by.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return clipTo(s, maxField)
}

// clipTo cuts a text between two characters.
func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
