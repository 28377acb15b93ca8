package connection

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// addKey registers the key of an identity beside the one that is registered. By
// the administrator's right where a proof of that one is not taken: somebody has
// changed the list by hand.
func (c *change) addKey(ctx context.Context, m *microsoft, by, id string) error {
	return c.byProof(ctx, m, by, id, m.addKey, by, id)
}

// dropKey takes the key of an identity off the list in the same way.
func (c *change) dropKey(ctx context.Context, m *microsoft, by, id string) error {
	return c.byProof(ctx, m, by, id, m.dropKey, by)
}

// byProof has an identity change the key of another one; where that is denied
// the administrator's right leaves exactly those that are to be left.
func (c *change) byProof(ctx context.Context, m *microsoft, by, id string, do func(context.Context, string, []byte) error, left ...string) error {
	i, err := c.identityOf(id)
	if err != nil {
		return err
	}
	err = do(ctx, by, i.Chain[0])
	if !fault.Is(err, fault.Denied) {
		return err
	}
	g, e := c.grant(ctx, m)
	if e != nil || g == nil {
		return err
	}
	var ders [][]byte
	for _, id := range left {
		i, e := c.identityOf(id)
		if e != nil {
			return e
		}
		ders = append(ders, i.Chain[0])
	}
	if e := g.keepKeys(ctx, ders...); !fault.Is(e, fault.Denied) {
		return e
	}
	return err
}

// keepKey leaves a certificate alone on the list by the administrator's right;
// told is false where there is none.
func (c *change) keepKey(ctx context.Context, m *microsoft, der []byte) (told bool, err error) {
	g, err := c.grant(ctx, m)
	if err != nil || g == nil {
		return false, err
	}
	err = g.keepKeys(ctx, der)
	return err == nil, c.denied(err)
}

// proveKey leaves the new certificate alone on the list by its own proof.
func (c *change) proveKey(ctx context.Context, m *microsoft, pair Pair, der []byte) error {
	err := m.signsIn(ctx, pair.To)
	if fault.Is(err, fault.Denied) && pair.Taken { // the old key is nobody else's
		if err = c.addKey(ctx, m, pair.From, pair.To); err == nil {
			err = m.signsIn(ctx, pair.To)
		}
	}
	if refusedThere(err) {
		return &waits{"waiting for the customer to replace the application's key: " + fault.Sentence(err), "Have the administrator of the Entra tenant remove every certificate of the app registration " +
			c.e.AppID + " and upload this one:\n" + pemOf(der)}
	}
	if err != nil {
		return err
	}
	return m.onlyKey(ctx, pair.To, der)
}
