package keeper

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// BindConnection gives a connection its partner, once. The same again is done;
// another one is a conflict.
func (k *Keeper) BindConnection(ctx context.Context, p wire.Peer, q act.Bind) (act.Done, error) {
	return carryOut(ctx, k, task{peer: p, name: act.BindConnection, about: q.Context, subject: clip(partner(q.Binding))},
		func(ctx context.Context) (act.Done, error) { return act.Done{}, k.bind(ctx, q) })
}

// partner is a binding in an entry.
func partner(b act.Binding) string {
	s := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	if b.EntraTenant != "" {
		s += " entra " + b.EntraTenant + " app " + b.App
	}
	return s
}

func (k *Keeper) bind(ctx context.Context, q act.Bind) error {
	if err := ours(q.Context); err != nil {
		return err
	}
	if err := checkBinding(q.Binding); err != nil {
		return err
	}
	defer k.places.lock(q.Tenant, q.Connection)()
	text := bindingText(q.Binding)
	have, err := k.bindingText(ctx, q.Tenant, q.Connection)
	switch {
	case err == nil && have == text:
		return nil
	case err == nil:
		return fault.New(fault.Conflict, "keeper.Bind", "the connection is bound to another partner already").
			WithHint("A binding is changed only by an order that an operator signed: change-binding.")
	case !fault.Is(err, fault.Missing):
		return err
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertBinding, q.Tenant, q.Connection, text, k.now().UnixMicro())
		return err
	})
}

// bindingText is a connection's binding as it is stored; kind missing when it
// has none.
func (k *Keeper) bindingText(ctx context.Context, tenant, connection string) (string, error) {
	const op = "keeper.Binding"
	var text string
	err := k.door.QueryRow(ctx, selectBinding, tenant, connection).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fault.New(fault.Missing, op, "the connection is not bound to a partner").
			WithHint("Bind it first: the keeper shows nothing to a partner that it does not know.")
	}
	return text, store.Fault(op, err)
}

// ReleaseConnection ends what is held for a connection.
func (k *Keeper) ReleaseConnection(ctx context.Context, p wire.Peer, q act.Plain) (act.Done, error) {
	return carryOut(ctx, k, task{peer: p, name: act.ReleaseConnection, about: q.Context},
		func(ctx context.Context) (act.Done, error) {
			return act.Done{}, k.release(ctx, q.Tenant, q.Connection, q.Context)
		})
}

func (k *Keeper) release(ctx context.Context, tenant, connection string, c act.Context) error {
	if err := ours(c); err != nil {
		return err
	}
	defer k.places.lock(tenant, connection)()
	if err := k.noDecoys(ctx, tenant, connection); err != nil {
		return err
	}
	return k.endAll(ctx, tenant, connection)
}

// releaseAll ends what is held for a connection, whatever it is.
func (k *Keeper) releaseAll(ctx context.Context, tenant, connection string) error {
	defer k.places.lock(tenant, connection)()
	return k.endAll(ctx, tenant, connection)
}

func (k *Keeper) endAll(ctx context.Context, tenant, connection string) error {
	defer k.signers.drop(tenant, connection)
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		if _, err := tx.Exec(updateRelease, k.now().UnixMicro(), []byte{}, tenant, connection); err != nil {
			return err
		}
		if err := k.forgetCredentials(tx, tenant, connection); err != nil {
			return err
		}
		_, err := tx.Exec(deleteBinding, tenant, connection)
		return err
	})
}

// forgetCredentials removes the secrets of a connection.
func (k *Keeper) forgetCredentials(tx store.KeeperTx, tenant, connection string) error {
	_, err := tx.Exec(deleteCredentials, tenant, connection)
	return err
}

// rebind gives a bound connection another partner, in one transaction: the keys
// of its identities that still may be used are sealed anew at the new binding;
// more, which may be nil and may be called more than once, does the same for
// what else is sealed at it. Those that are retired or compromised stay at the
// partner that they were shown to. The caller has entered the order.
func (k *Keeper) rebind(ctx context.Context, tenant, connection string, to act.Binding, more func(tx store.KeeperTx, from, to seal.Binding) error) error {
	if err := checkBinding(to); err != nil {
		return err
	}
	defer k.places.lock(tenant, connection)()
	have, err := k.bindingText(ctx, tenant, connection)
	if err != nil {
		return err
	}
	from, err := readBinding(have)
	if err != nil {
		return err
	}
	all, err := k.rows(ctx, selectConnection, tenant, connection)
	if err != nil {
		return err
	}
	text := bindingText(to)
	lost := map[string]bool{}
	for _, r := range all {
		kept, err := k.reseal(ctx, r, text)
		if err != nil {
			return err
		}
		lost[r.id] = !kept
	}
	defer k.signers.drop(tenant, connection)
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		for _, r := range all {
			if lost[r.id] {
				if _, err := tx.Exec(updateLost, k.now().UnixMicro(), []byte{}, lostWords, r.id); err != nil {
					return err
				}
				continue
			}
			if _, err := tx.Exec(updateSeal, r.handle, r.marker, r.binding, r.id); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(updateBinding, text, k.now().UnixMicro(), tenant, connection); err != nil {
			return err
		}
		if more == nil {
			return nil
		}
		return more(tx, from, seal.Binding(to))
	})
}

// lostWords is why a standby ended with a change of its connection's binding.
const lostWords = "not sealed for the new partner: the KEK of standbys was away"

// reseal moves what is sealed in a row to another binding. What lies in a token
// has its name sealed, so that both kinds of handles are alike here. A standby
// whose KEK is away is not kept: the order that asks for it counts once, and a
// standby can be made again.
func (k *Keeper) reseal(ctx context.Context, r *identity, binding string) (kept bool, err error) {
	dk, err := k.seals.key(ctx, r.tenant)
	if err != nil {
		return false, err
	}
	next := *r
	next.binding = binding
	if next.marker, err = k.resealOne(dk, r, &next, seal.Marker, r.marker); err != nil {
		return false, err
	}
	if dk, err = k.sealerOf(ctx, r); err != nil {
		if r.sealer != "" && fault.Is(err, fault.Later) {
			return false, nil
		}
		return false, err
	}
	if next.handle, err = k.resealOne(dk, r, &next, seal.PrivateKey, r.handle); err != nil {
		return false, err
	}
	*r = next
	return true, nil
}

func (k *Keeper) resealOne(dk *seal.DataKey, r, next *identity, kind seal.Kind, blob []byte) ([]byte, error) {
	from, err := r.place(k.c.Region, kind)
	if err != nil {
		return nil, err
	}
	to, err := next.place(k.c.Region, kind)
	if err != nil {
		return nil, err
	}
	return moveSealed(dk, from, dk, to, blob)
}

// moveSealed opens a blob at one place and seals it at another.
func moveSealed(by *seal.DataKey, from seal.Place, under *seal.DataKey, to seal.Place, blob []byte) ([]byte, error) {
	secret, err := by.Open(from, blob)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	return under.Seal(to, secret)
}

// checkBinding refuses what can be no partner.
func checkBinding(b act.Binding) error {
	reason := ""
	switch {
	case b.Host == "" && b.Authority == "":
		reason = "it names no host and no authority"
	case b.Host != "" && !sign.IsDomain(b.Host) && !isAddress(b.Host):
		reason = "its host is no host name or address"
	case (b.Host == "") != (b.Port == 0):
		reason = "host and port come together"
	case b.ServerName != "" && !sign.IsDomain(b.ServerName) && !isAddress(b.ServerName):
		reason = "its server name is no host name or address"
	case b.CA != "" && !isSum(b.CA), b.Pin != "" && !isSum(b.Pin):
		reason = "its CA or pin is not the hex of a SHA-256 in lower case"
	case b.Authority != "" && !isAuthority(b.Authority):
		reason = "its authority is no host, or host and port"
	}
	for _, id := range []string{b.EntraTenant, b.App, b.AppObject} {
		if id != "" && !sign.IsGUID(id) {
			reason = "an Entra id is no GUID"
		}
	}
	if (b.EntraTenant != "" || b.App != "" || b.AppObject != "") && b.Authority == "" {
		reason = "it names an Entra tenant or app and no authority"
	}
	if reason == "" {
		return nil
	}
	return fault.New(fault.Invalid, "keeper.Bind", "the binding is none: "+reason).
		WithHint("Give the partner's host and port, hashes as hex of a SHA-256, and Entra ids as GUIDs.")
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil && !strings.Contains(s, "%")
}

func isAuthority(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return sign.IsDomain(s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && (sign.IsDomain(host) || isAddress(host))
}
