package keeper

import (
	"context"
	"crypto/x509"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

const actMakeRoot = "make-root"

// mendMemory is part of a thaw: what was remembered of the region's authority
// and is of no use any more, since somebody edited it, is forgotten, so that the
// next start makes it anew. That takes the root's key: without it nothing is
// thawed, for partners trust the root that they were given.
func (k *Keeper) mendMemory(ctx context.Context) error {
	if err := k.memory.writable(); err != nil {
		return err
	}
	bad, err := k.unfit(ctx)
	if err != nil || len(bad) == 0 {
		return err
	}
	if _, err := readRootKey(k.c.Dir); err != nil {
		return (&fault.Error{Kind: fault.Conflict, Op: "keeper.Thaw", Err: err}).
			WithHint("What is remembered as " + strings.Join(bad, ", ") + " was edited or is gone. Put those rows of keeper_state back from a backup, or " +
				rootKeyFile + " into the keeper's folder, and order it again.")
	}
	for _, name := range bad {
		if err := k.forget(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// unfit names what can't be used as it is remembered.
func (k *Keeper) unfit(ctx context.Context) ([]string, error) {
	root, err := k.fitRoot(ctx)
	if err != nil && !spoilt(err) {
		return nil, err
	}
	if root == nil && err == nil {
		return nil, nil // none was made yet
	}
	if err != nil {
		return []string{rememberRoot, rememberIssuer}, nil
	}
	k.authority.mu.Lock()
	k.authority.root = root
	k.authority.mu.Unlock()
	var have onlineIssuer
	there, err := k.recall(ctx, rememberIssuer, &have)
	if err == nil && there {
		err = k.authority.use(ctx, have)
	}
	if spoilt(err) {
		return []string{rememberIssuer}, nil
	}
	return nil, err
}

// spoilt reports what is so for good, as opposed to what may pass.
func spoilt(err error) bool { return fault.Is(err, fault.Denied) || fault.Is(err, fault.Internal) }

// fitRoot is the root's certificate, nil when none was ever made.
func (k *Keeper) fitRoot(ctx context.Context) (*x509.Certificate, error) {
	const op = "keeper.Root"
	var have knownRoot
	there, err := k.recall(ctx, rememberRoot, &have)
	if err != nil {
		return nil, err
	}
	if !there {
		made, err := k.ledger.Search(ctx, ledger.Filter{Act: actMakeRoot, Limit: 1})
		if err == nil && len(made) > 0 {
			err = edited(op, "the root's certificate is gone")
		}
		return nil, err
	}
	root, err := x509.ParseCertificate(have.Certificate)
	if err != nil {
		return nil, edited(op, "what is remembered as the root's certificate is none")
	}
	return root, nil
}
