package keeper

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	hostsRun   = time.Minute
	selfLife   = 10 * 365 * day
	selfIssuer = "self"     // signed with its own key
	ownIssuer  = "imported" // the operator's own
)

// isHost reports whether a name is one of our host names.
func (k *Keeper) isHost(host string) bool {
	return slices.ContainsFunc(k.c.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// hostSeat is where a host's identity is: our hosts are no tenant's.
func hostSeat(host string) seat {
	return seat{hostsTenant, strings.ToLower(host), string(sign.TLSServer)}
}

// HostCertificate is the chain of one of our host names. Names come from
// strangers: one that is not ours is answered without an entry, since nothing
// is shown.
func (k *Keeper) HostCertificate(ctx context.Context, p wire.Peer, q act.Host) (act.Certificate, error) {
	if !k.isHost(q.Host) {
		return act.Certificate{}, fault.New(fault.Missing, "keeper.Host", "that is no host name of this region")
	}
	n, err := k.findActive(ctx, hostSeat(q.Host))
	t := task{peer: p, name: act.HostCertificate, about: q.Context, subject: strings.ToLower(q.Host), frequent: true}
	return carryOut(ctx, k, t, func(ctx context.Context) (act.Certificate, error) {
		if err != nil {
			return act.Certificate{}, err
		}
		compromised, err := k.compromisedOf(ctx, hostSeat(q.Host))
		return act.Certificate{Chain: n.der, Compromised: compromised}, err
	})
}

// mostTold bounds what a host's certificate is told with. A session outlives no
// more than a few of its host's keys.
const mostTold = 32

// compromisedOf are the certificates of a seat that were compromised, the last
// ones first.
func (k *Keeper) compromisedOf(ctx context.Context, at seat) ([]string, error) {
	const op = "keeper.Host"
	rows, err := k.door.Query(ctx, selectCompromised, at.tenant, at.connection, at.purpose, mostTold)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var sum string
		if err := rows.Scan(&sum); err != nil {
			return nil, store.Fault(op, err)
		}
		all = append(all, sum)
	}
	return all, store.Fault(op, rows.Err())
}

// openHosts imports what lies there and gives each host a certificate.
func (k *Keeper) openHosts(ctx context.Context) error { return k.tendHosts(ctx) }

// runHosts looks each minute until ctx ends.
func (k *Keeper) runHosts(ctx context.Context) {
	for sleep(ctx, hostsRun) {
		if err := k.tendHosts(ctx); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("keeper: the hosts' certificates were not looked after", "error", err)
		}
	}
}

// tendHosts imports, and sees to it that each host shows the newest certificate
// that has not ended.
func (k *Keeper) tendHosts(ctx context.Context) error {
	for _, host := range k.c.Hosts {
		host = strings.ToLower(host)
		if !sign.IsDomain(host) && !isAddress(host) {
			return fault.New(fault.Invalid, "keeper.Hosts", host+" is no host name").WithHint("Correct the keeper's settings.")
		}
		if err := k.importHost(ctx, host); err != nil {
			return err
		}
		if err := k.tendHost(ctx, host); err != nil {
			return err
		}
	}
	return nil
}

// tendHost makes a certificate when a host has none, and brings the one before
// back when the newest has ended and the other has not.
func (k *Keeper) tendHost(ctx context.Context, host string) error {
	at := hostSeat(host)
	defer k.places.lock(at.tenant, at.connection)()
	all, err := k.rows(ctx, selectConnection, at.tenant, at.connection)
	if err != nil {
		return err
	}
	var active, spare *identity
	for _, r := range all {
		switch r.state {
		case act.Active:
			active = r
		case act.Retiring:
			spare = r
		}
	}
	now := k.now().UnixMicro()
	switch {
	case active == nil && spare == nil:
		return k.selfSign(ctx, host)
	case spare != nil && spare.notAfter > now && (active == nil || active.notAfter <= now):
		return k.swapHost(ctx, spare, active)
	}
	return nil
}

// swapHost makes the one before active again.
func (k *Keeper) swapHost(ctx context.Context, spare, active *identity) error {
	p := plan{of: spare, ways: []way{{spare.id, act.Retiring, act.Active}}}
	if active != nil {
		p.ways = append(p.ways, way{active.id, act.Active, act.Retiring})
	}
	return k.own(ctx, ownAct{name: string(act.MoveIdentity), connection: spare.connection, purpose: spare.purpose, subject: p.subject()},
		func(ctx context.Context) error { return k.move(ctx, p) })
}

// selfSign gives a host a certificate that encrypts and proves nothing, so that
// STARTTLS works before there is a real one.
func (k *Keeper) selfSign(ctx context.Context, host string) error {
	r := k.newHost(host, selfIssuer, keys.P256)
	return k.own(ctx, ownAct{name: "self-sign", connection: host, purpose: r.purpose, subject: r.id}, func(ctx context.Context) error {
		public, err := k.makeKey(ctx, r, keys.P256, false)
		if err != nil {
			return err
		}
		s, err := k.load(ctx, r)
		if err != nil {
			return err
		}
		if !samePublic(s.Public(), public) {
			return edited("keeper.SelfSign", "the driver loads another key than it made")
		}
		c, err := sign.SelfSign(sign.Key{Signer: s, Use: sign.TLSServer}, host, selfLife, k.now())
		if err != nil {
			return err
		}
		return k.addHost(ctx, r, [][]byte{c.Raw}, c)
	})
}

// newHost is the row of a host's next identity.
func (k *Keeper) newHost(host, issuer string, a keys.Algorithm) *identity {
	now := k.now().UnixMicro()
	at := hostSeat(host)
	return &identity{id: ulid.Make().String(), tenant: at.tenant, connection: at.connection, purpose: at.purpose, epoch: 1, name: at.connection,
		state: act.Active, issuer: issuer, algorithm: string(a), binding: bindingText(act.Binding{}), created: now, changed: now}
}

// addHost makes a row the active one of its host. The one that was active is
// kept beside it, and what was kept before is retired.
func (k *Keeper) addHost(ctx context.Context, r *identity, chain [][]byte, leaf *x509.Certificate) error {
	r.chain, r.sha256 = chainText(chain), sumOf(leaf.Raw)
	r.notBefore, r.notAfter = leaf.NotBefore.UnixMicro(), leaf.NotAfter.UnixMicro()
	all, err := k.rows(ctx, selectConnection, r.tenant, r.connection)
	if err != nil {
		return err
	}
	next := make([]act.IdentityState, len(all))
	for i, old := range all {
		next[i] = act.Retiring
		if old.state != act.Active {
			next[i] = act.Retired
		}
		if old.marker, err = k.remark(ctx, old, next[i]); err != nil {
			return err
		}
	}
	defer k.signers.drop(r.tenant, r.connection)
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		for i, old := range all {
			if _, err := tx.Exec(updateState, string(next[i]), r.changed, old.marker, old.id, string(old.state)); err != nil {
				return err
			}
		}
		_, err := tx.Exec(insertIdentity, r.values()...)
		return err
	})
}

// sealHost seals an imported key.
func (k *Keeper) sealHost(ctx context.Context, r *identity, key seal.Secret) error {
	r.driver = driverName(keys.Software{})
	p, err := r.place(k.c.Region, seal.PrivateKey)
	if err != nil {
		return err
	}
	dk, err := k.seals.key(ctx, r.tenant)
	if err != nil {
		return err
	}
	if r.handle, err = dk.Seal(p, key); err != nil {
		return err
	}
	r.marker, err = k.mark(ctx, r, r.state, false)
	return err
}
