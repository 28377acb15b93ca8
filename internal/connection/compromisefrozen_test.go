package connection_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// frozen is a keeper that lists identities and moves none.
type frozen struct{ connection.Keeper }

func (frozen) MoveIdentity(context.Context, act.Identity, act.IdentityState) (act.Identity, error) {
	return act.Identity{}, fault.New(fault.Later, "keeper", "the keeper is frozen: the database is an old copy").WithHint("Let two operators sign an order to thaw.")
}

// Who calls an identity stolen while its keeper is frozen is told what the keeper
// needs, which does answer; and it goes on by itself after that.
func TestCompromiseWhileFrozen(t *testing.T) {
	var cold atomic.Bool
	c := newCloud(t, func(config *connection.Config) {
		keepers := config.Keepers
		config.Keepers = func(region string) (connection.Keeper, error) {
			k, err := keepers(region)
			if cold.Load() {
				k = frozen{k}
			}
			return k, err
		}
	})
	c.connect(t)
	stolen := c.identities(t)["smtp-client"]
	cold.Store(true)
	_, err := c.Compromise(t.Context(), "token:1", "acme", stolen.ID)
	if hint := fault.HintOf(err); !fault.Is(err, fault.Later) || !strings.Contains(hint, "sign an order to thaw") || strings.Contains(hint, "see that it runs") {
		t.Errorf("%v: %s", err, hint)
	}
	cold.Store(false)
	p, err := c.Compromise(t.Context(), "token:1", "acme", stolen.ID)
	if err != nil || p.Kind != connection.KindCompromise {
		t.Errorf("%+v: %v", p, err)
	}
}
