package connection_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// jumping is a clock that a test sets ahead and back.
type jumping struct{ by atomic.Int64 }

func (j *jumping) now() time.Time { return time.Now().Round(0).Add(time.Duration(j.by.Load())) }

func (j *jumping) jump(by time.Duration) { j.by.Store(int64(by)) }

const aDay = 24 * time.Hour

// began is the change of acme's mailbox that was the last to begin, "" for none.
func (c *cloud) began(t testing.TB) string {
	t.Helper()
	p, err := c.Replacement(t.Context(), "acme", "mailbox")
	if err != nil {
		return ""
	}
	return p.ID
}

// TestCareAndClock: a clock that jumps a day either way begins no renewals but
// those that are due then, and each once.
func TestCareAndClock(t *testing.T) {
	j := &jumping{}
	c := newCloud(t, func(config *connection.Config) { config.Now, config.Standby = j.now, true })
	c.connect(t)
	ready := c.standby(t)
	made := c.count(t)
	for _, by := range []time.Duration{aDay, 0, -aDay, 0} {
		j.jump(by)
		must(t, c.Care(t.Context()))
		if id := c.began(t); id != "" {
			t.Errorf("%v: %s was begun", by, id)
		}
		if late := c.Late(); len(late) != 0 {
			t.Errorf("%v: late: %v", by, late)
		}
		if by >= 0 {
			c.standby(t)
		}
		if now := c.inState(t, "issued"); now["smtp-client"].ID != ready["smtp-client"].ID || c.count(t) != made {
			t.Errorf("%v: standbys are %+v, %d identities of %d", by, now, c.count(t), made)
		}
	}
	// What is due on that day alone is renewed once.
	old := c.identities(t)["smtp-client"]
	c.keeper.Age(old.ID, -19*aDay-12*time.Hour)
	must(t, c.Care(t.Context()))
	first := c.began(t)
	if first == "" {
		j.jump(aDay)
		must(t, c.Care(t.Context()))
		first = c.began(t)
	}
	if done := c.finish(t); first == "" || done.State != connection.Done || done.Kind != connection.KindRenew {
		t.Fatalf("%q: %+v", first, done)
	}
	for _, by := range []time.Duration{aDay, 0, -aDay, 0} {
		j.jump(by)
		must(t, c.Care(t.Context()))
		if id := c.began(t); id != first {
			t.Errorf("%v: renewed again by %s", by, id)
		}
	}
}

// TestReplaceAndClock: a replacement goes on whatever the clock does between
// its steps, and says nothing of mail that it could not measure.
func TestReplaceAndClock(t *testing.T) {
	j := &jumping{}
	measured := 0
	c := newCloud(t, func(config *connection.Config) {
		config.Now, config.Standby = j.now, true
		config.Flow = func(context.Context, string, string, time.Time, time.Time) (connection.Flow, error) {
			measured++
			return connection.Flow{}, nil
		}
	})
	c.connect(t)
	for _, jumps := range [][]time.Duration{{aDay, 0}, {0, aDay}, {0, -aDay}, {-aDay, aDay}} {
		j.jump(0)
		_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
		must(t, err)
		for n, over := 0, false; !over; n++ {
			j.jump(jumps[n%2])
			if _, over, err = c.Step(t.Context(), "acme", "mailbox"); err != nil {
				t.Fatalf("%v: %v", jumps, err)
			}
		}
		done, err := c.Replacement(t.Context(), "acme", "mailbox")
		must(t, err)
		if done.State != connection.Done || len(done.Steps) != 8 {
			t.Errorf("%v: %+v", jumps, done)
		}
	}
	j.jump(0)
	before := measured
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	j.jump(-aDay)
	if done := c.finish(t); done.Refused != -1 || done.DelayedMax != -1 || measured != before {
		t.Errorf("measured over a clock that went back: %+v", done)
	}
	j.jump(0)
	c.test(t)
}
