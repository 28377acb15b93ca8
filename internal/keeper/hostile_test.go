package keeper

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// TestHostileOutcomes: what a gateway in wrong hands makes as long as it can
// holds no outcome up, and neither does one entry that the ledger refuses.
func TestHostileOutcomes(t *testing.T) {
	r := newRig(t)
	long, tags := strings.Repeat("\x01", 1000), strings.Repeat("<", 256)
	r.out.mu.Lock() // as if a commit took long
	for i := range 1500 {
		r.out.list = append(r.out.list, ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "hostile", Tenant: tags, Connection: tags,
			Trace: fmt.Sprint("t", i), Subject: long, Purpose: long, Outcome: failed + long[:900]})
	}
	r.out.list = append(r.out.list, ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "hostile", Tenant: "a\nb", Subject: strings.Repeat("s", 5000)},
		ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "last"})
	r.out.mu.Unlock()
	r.out.add(ledger.Entry{Source: ledger.Witnessed, Actor: "someone", Act: "added", Tenant: "a\x1bb", Subject: strings.Repeat("s", 5000)})
	found := func(name act.Name) (n int) {
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: string(name)})
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	within(t, "the last outcome", func() bool { return found("last") == 1 && found("added") == 1 })
	n := 0
	for from := int64(0); ; {
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: "hostile", From: from})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		n += len(all)
		from = all[len(all)-1].Index + 1
	}
	if n != 1501 {
		t.Errorf("%d outcomes of 1501", n)
	}
}
