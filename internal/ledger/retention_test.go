package ledger

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func marshal(d *desk, v any) []byte {
	d.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		d.Fatal(err)
	}
	return raw
}

// Past its retention an entry's text goes and its hash stays; verify says how
// many, and what is younger is proved as before.
func TestRetention(t *testing.T) {
	const month = 30 * 24 * time.Hour
	each(t, func(d *desk) {
		d.open(func(c *Config) { c.Retention = month })
		d.fill(700)
		old := entry(1)
		old.Key = "k"
		d.append(old)
		early := d.sign()
		d.now = func() time.Time { return start().Add(month) }
		d.fill(300)
		d.now = func() time.Time { return start().Add(month + time.Minute) }
		if n, err := d.l.Retire(d.Context()); n != 0 || err != nil {
			d.Error("the first pass removed", n, err)
		}
		if n, err := d.l.Retire(d.Context()); n != 701 || err != nil {
			d.Error(n, err)
		}
		if n, err := d.l.Retire(d.Context()); n != 0 || err != nil {
			d.Error("once more:", n, err)
		}
		r := d.verify(d.export(), early.Note...)
		if !r.OK || !r.Anchored || r.Removed != 701 || r.Entries != 1002 || !strings.Contains(r.Verdict, "of 701 entries only the hash is kept") {
			d.Errorf("%+v", r)
		}
		if e, err := d.l.Show(d.Context(), 5); err != nil || !e.Removed || len(e.Hash) != 64 || e.Actor != "" {
			d.Errorf("%+v %v", e, err)
		}
		if _, err := d.l.Prove(d.Context(), 5); !fault.Is(err, fault.Missing) {
			d.Error(err)
		}
		if _, err := d.l.Prove(d.Context(), 900); err != nil {
			d.Error(err)
		}
		if first := d.append(old); first != 700 {
			d.Error("the key of a removed entry was forgotten:", first)
		}
		d.open()
		// A text that is gone above what the log admits is a problem.
		d.sql("UPDATE ledger_entry SET payload = NULL WHERE idx = 702")
		if r := d.verify(d.salvage()); r.OK || r.Problems[0].Index != 702 {
			d.Errorf("%+v", r)
		}
	})
}

// A clock that jumps by a day either way, or by ten years, breaks no chain, and
// removes at most two hours' worth a pass.
func TestClockJumps(t *testing.T) {
	each(t, func(d *desk) {
		const week = 7 * 24 * time.Hour
		d.open(func(c *Config) { c.Retention = week })
		jumps := []time.Duration{0, 24 * time.Hour, -24 * time.Hour, 0, time.Hour}
		for _, jump := range jumps {
			d.now = func() time.Time { return start().Add(jump) }
			d.fill(10)
			d.sign()
			if _, err := d.l.Retire(d.Context()); err != nil {
				d.Error(err)
			}
			d.open(func(c *Config) { c.Retention = week })
		}
		r := d.verify(d.export())
		if !r.OK || r.Entries != 50 || r.Removed != 0 || !r.Checkpoint.Time.Equal(start().Add(time.Hour)) {
			d.Errorf("%+v", r)
		}
		if _, err := d.l.Retire(d.Context()); err != nil {
			d.Error(err)
		}
		d.now = func() time.Time { return start().Add(10 * 365 * 24 * time.Hour) }
		if n, err := d.l.Retire(d.Context()); n != 0 || err != nil {
			d.Error("a jump of ten years removed", n, err)
		}
	})
}

// Retention and export at once: an export never sees half of a removal.
func TestRetireWhileExporting(t *testing.T) {
	each(t, func(d *desk) {
		d.open(func(c *Config) { c.Retention = time.Hour })
		d.fill(3000)
		d.now = func() time.Time { return start().Add(2 * time.Hour) }
		d.l.cut = pastCut{start().Add(time.Hour), true}
		ended := make(chan error)
		go func() {
			_, err := d.l.Retire(context.Background())
			ended <- err
		}()
		for range 5 {
			if r := d.verify(d.export()); !r.OK || r.Removed != 0 && r.Removed != 3000 {
				d.Errorf("%+v", r)
			}
		}
		if err := <-ended; err != nil {
			d.Error(err)
		}
		if r := d.verify(d.export()); !r.OK || r.Removed != 3000 {
			d.Errorf("%+v", r)
		}
	})
}

// stuck is a reader that takes the first piece of an export and no more.
type stuck struct{ begun, end chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	close(s.begun)
	<-s.end
	return 0, io.ErrClosedPipe
}

// An export that nobody reads holds no other up, and retention waits for it.
func TestRetireWhileStuck(t *testing.T) {
	each(t, func(d *desk) {
		d.open(func(c *Config) { c.Retention = time.Hour })
		d.fill(3000)
		d.sign()
		d.now = func() time.Time { return start().Add(2 * time.Hour) }
		d.l.cut = pastCut{start().Add(time.Hour), true}
		s := stuck{make(chan struct{}), make(chan struct{})}
		ended := make(chan error)
		go func() { ended <- d.l.Export(context.Background(), s) }()
		<-s.begun
		short, cancel := context.WithTimeout(d.Context(), 200*time.Millisecond)
		defer cancel()
		retired := make(chan error)
		go func() {
			_, err := d.l.Retire(short)
			retired <- err
		}()
		for range 3 {
			if r := d.verify(d.export()); !r.OK || r.Removed != 0 {
				d.Errorf("%+v", r)
			}
		}
		if err := <-retired; !fault.Is(err, fault.Later) {
			d.Error(err)
		}
		if n := d.l.Size(); n != 3000 {
			d.Errorf("%d entries, though nothing was removed", n)
		}
		close(s.end)
		if err := <-ended; err == nil {
			d.Error("an export that broke off is none")
		}
		if n, err := d.l.Retire(d.Context()); n != 3000 || err != nil {
			d.Error(n, err)
		}
	})
}
