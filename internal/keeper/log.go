package keeper

import (
	"context"
	"crypto/rand"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// logKey is the ledger's key as it is remembered: the signing key sealed, and
// the verifier keys that its checkpoints have been signed by, newest first.
type logKey struct {
	Sealed []byte   `json:"sealed"`
	Keys   []string `json:"keys"`
}

// openLedger opens the log with its own key, which is made with the log.
func (k *Keeper) openLedger(ctx context.Context) error {
	var own logKey
	there, err := k.recall(ctx, rememberLedgerKey, &own)
	if err != nil {
		return err
	}
	if !there {
		if own, err = k.newLogKey(ctx); err != nil {
			return err
		}
	}
	signer, err := k.logSigner(ctx, own)
	if err != nil {
		return k.asUnopened(err)
	}
	k.logKeys = own.Keys
	if k.c.MoreWitnesses != nil {
		more, err := k.c.MoreWitnesses(signer.Name(), own.Keys)
		if err != nil {
			return err
		}
		k.c.Witnesses = append(slices.Clone(k.c.Witnesses), more...)
	}
	l, err := ledger.Open(ctx, ledger.Config{
		DB: k.c.DB, Region: k.c.Region, Signer: signer, Keys: own.Keys, Witnesses: k.c.Witnesses,
		Retention: k.c.Retention, Log: k.c.Log, Now: k.c.Now,
	})
	if err == nil {
		k.ledger = l
	}
	return k.asUnopened(err)
}

// asUnopened takes a ledger that was tampered with for what it is: the keeper
// does nothing any more, but tells how it stands and gives the ledger out as it
// lies there, so that it can be said what was done to it.
func (k *Keeper) asUnopened(err error) error {
	if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Denied) {
		return err
	}
	k.unopened = fault.Sentence(err)
	return nil
}

func (k *Keeper) logPlace() seal.Place {
	return seal.Place{Region: k.c.Region, Tenant: ledgerTenant, Purpose: "ledger", Kind: seal.Token}
}

func (k *Keeper) newLogKey(ctx context.Context) (logKey, error) {
	const op = "keeper.LedgerKey"
	private, public, err := note.GenerateKey(rand.Reader, "sallyport."+k.c.Region+"."+k.c.Base)
	if err != nil {
		return logKey{}, fault.Wrap(fault.Internal, op, err)
	}
	dk, err := k.seals.key(ctx, ledgerTenant)
	if err != nil {
		return logKey{}, err
	}
	secret := seal.NewSecret([]byte(private))
	defer secret.Wipe()
	sealed, err := dk.Seal(k.logPlace(), secret)
	if err != nil {
		return logKey{}, err
	}
	own := logKey{Sealed: sealed, Keys: []string{public}}
	return own, k.remember(ctx, rememberLedgerKey, own)
}

func (k *Keeper) logSigner(ctx context.Context, own logKey) (note.Signer, error) {
	dk, err := k.seals.key(ctx, ledgerTenant)
	if err != nil {
		return nil, err
	}
	secret, err := dk.Open(k.logPlace(), own.Sealed)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	s, err := note.NewSigner(string(secret.Bytes()))
	if err != nil { // its text could quote the key
		return nil, fault.New(fault.Internal, "keeper.LedgerKey", "what was sealed as the ledger's key is none")
	}
	return s, nil
}
