package connection_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestMeasuringHoldsNoMail: the mail during a compromise is measured when new
// connections go on already, and that of a change that it takes over is not.
func TestMeasuringHoldsNoMail(t *testing.T) {
	var c *cloud
	measured := 0
	c = newCloud(t, func(config *connection.Config) {
		config.Flow = func(ctx context.Context, _, _ string, _, _ time.Time) (connection.Flow, error) {
			measured++
			candidates, err := c.Candidates(ctx, "acme", "t:acme:mailbox", c.one.Domain, "mx.us.gate.example", netip.Addr{})
			must(t, err)
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			peer, err := c.Dial(ctx, candidates[0], "")
			if err != nil {
				t.Errorf("mail waits for the measuring: %v", err)
				return connection.Flow{}, nil
			}
			_ = peer.Quit()
			return connection.Flow{}, nil
		}
	})
	c.connect(t)
	c.goTo(t, connection.KindReplace, connection.Switched)
	p, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID)
	must(t, err)
	if p.State != connection.Done || p.Refused != 0 || measured != 1 {
		t.Errorf("%+v, measured %d times", p, measured)
	}
}

// TestReplaceAtOnce: who asks at the same time is answered with the same
// replacement.
func TestReplaceAtOnce(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		c := newCloudOn(t, s, nil)
		c.connect(t)
		var all sync.WaitGroup
		ids := make([]string, 8)
		for n := range ids {
			all.Go(func() {
				p, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
				if err != nil {
					t.Error(err)
				}
				ids[n] = p.ID
			})
		}
		all.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("replacements %v", ids)
			}
		}
		if done := c.finish(t); done.State != connection.Done {
			t.Errorf("%+v", done)
		}
		c.whole(t)
	})
}
