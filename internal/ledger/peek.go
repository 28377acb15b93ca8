package ledger

import (
	"context"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Peek says what the database of a log that Open refuses has in it: entries, the
// newest checkpoint, and what each witness has agreed to. Nothing of it is held
// against anything. A checkpoint that is none is left out.
func Peek(ctx context.Context, db *store.KeeperDB, witnesses ...string) (Status, error) {
	const op = "ledger.Peek"
	s := Status{Witnesses: []WitnessStatus{}}
	door := db.Keeper()
	if err := door.QueryRow(ctx, countEntries).Scan(&s.Size); err != nil {
		return s, store.Fault(op, err)
	}
	var text string
	err := store.Fault(op, door.QueryRow(ctx, newestCheckpoint).Scan(&text))
	if err != nil && !fault.Is(err, fault.Missing) {
		return s, err
	}
	signed, _, _ := strings.Cut(text, "\n\n")
	if c, err := parseCheckpoint(signed + "\n"); err == nil {
		s.Checkpoint, s.Checkpoint.Note = c, []byte(text)
	}
	for _, name := range witnesses {
		w := WitnessStatus{Name: name}
		if err := door.QueryRow(ctx, newestCosignature, name).Scan(&w.Size); err != nil {
			return s, store.Fault(op, err)
		}
		s.Witnesses = append(s.Witnesses, w)
	}
	return s, nil
}
