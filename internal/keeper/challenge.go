package keeper

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// AcmeChallenge is of wire.Acts. There is no entry around it: no key is used,
// the answer is public, and a stranger who asks our listener for tokens must not
// be able to write to the ledger. The issuance it serves is entered.
func (k *Keeper) AcmeChallenge(_ context.Context, _ wire.Peer, q act.Challenge) (act.KeyAuthorization, error) {
	if k.c.Challenges != nil {
		if answer, ok := k.c.Challenges(q.Token); ok {
			return act.KeyAuthorization{KeyAuthorization: answer}, nil
		}
	}
	return act.KeyAuthorization{}, fault.New(fault.Missing, "keeper.AcmeChallenge", "no certificate is waited for with this token").
		WithHint("Nothing need be done: strangers try such addresses.")
}
