package ledger

import (
	"testing"
	"time"
)

// A log whose clock went ahead and back verifies, and goes on with another
// process.
func TestClockWentBack(t *testing.T) {
	each(t, func(d *desk) {
		sizes := int64(0)
		for _, by := range []time.Duration{0, 24 * time.Hour, 0, -24 * time.Hour, 0} {
			d.now = func() time.Time { return start().Add(by) }
			d.fill(5)
			if c := d.sign(); c.Size <= sizes || !c.Time.Equal(start().Add(by)) {
				d.Errorf("%v: %+v after %d", by, c, sizes)
			} else {
				sizes = c.Size
			}
			d.open()
		}
		anchor := d.sign()
		d.fill(5)
		d.sign()
		if report := d.verify(d.export(), anchor.Note...); !report.OK {
			d.Errorf("%+v", report)
		}
		found, err := d.l.Search(d.Context(), Filter{Since: start().Add(23 * time.Hour), Limit: 100})
		if err != nil || len(found) != 5 {
			d.Errorf("%d of that day: %v", len(found), err)
		}
	})
}
