package keeper

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// What State.Custody says.
const (
	custodyNone = "none"
	custodyKept = "kept"
)

// Status is of wire.Acts. It answers whatever state the keeper is in.
func (k *Keeper) Status(ctx context.Context, p wire.Peer, _ act.Plain) (act.State, error) {
	const op = "keeper.Status"
	kek := k.c.KEKs[0].Describe()
	s := act.State{
		Region: k.c.Region, KEK: kek.ID, KEKDriver: kek.Driver, KeyDriver: driverName(k.c.Driver),
		Rotation: k.rotations(), Frozen: k.frozen.reason(),
		LedgerKeys: k.logKeys, Alarms: k.alarms.recent(),
	}
	tripped := k.breaker.Now()
	s.Breaker, s.BreakerWhy = string(tripped.State), tripped.Why
	if k.standbys.configured() {
		apart := k.c.StandbyKEKs[0].Describe()
		s.StandbyKEK, s.StandbyDriver = apart.ID, apart.Driver
	}
	s.StandbyAway = k.standbys.reason()
	if root := k.Root(); root != nil {
		s.Root = root.Raw
	}
	s.Custody, s.Why = k.custody(p)
	var err error
	if s.Identities, err = k.accepted(ctx); err != nil {
		return s, err
	}
	if s.Spares, err = k.spares(ctx); err != nil {
		return s, err
	}
	s.ForGood = k.ledger == nil
	s.Ledger, err = json.Marshal(k.logStatus(ctx))
	return s, fault.Wrap(fault.Internal, op, err)
}

// logStatus is how the ledger stands; of one that does not open, what its
// database says.
func (k *Keeper) logStatus(ctx context.Context) any {
	if k.ledger != nil {
		return k.ledger.Status()
	}
	var names []string
	for _, w := range k.c.Witnesses {
		names = append(names, w.Name())
	}
	found, err := ledger.Peek(ctx, k.c.DB, names...)
	found.Error = k.unopened
	if err != nil {
		return struct {
			ledger.Status
			Size *int64 `json:"size"` // null: nobody knows
		}{Status: ledger.Status{Error: found.Error + "; not readable: " + fault.Sentence(err), Witnesses: []ledger.WitnessStatus{}}}
	}
	return found
}

// custody says what the promises rest on, and what they lack.
func (k *Keeper) custody(p wire.Peer) (string, []string) {
	custody, why := custodyKept, []string{}
	if d := k.c.KEKs[0].Describe(); d.OnHost {
		custody = custodyNone
		why = append(why, "The KEK lies on the keeper's own host ("+d.Detail+"): whoever has the disk and its passphrase has every key. Use OpenBao or Vault Transit, or a PKCS#11 token.")
	}
	// Of one that lies beside the region's own there is nothing more to say.
	if k.standbys.configured() && custody == custodyKept {
		if d := k.c.StandbyKEKs[0].Describe(); d.OnHost {
			custody = custodyNone
			why = append(why, "The KEK of standbys lies on the keeper's own host ("+d.Detail+"): whoever has the disk and its passphrase has every standby. Use another key of OpenBao or Vault Transit, or another PKCS#11 token.")
		}
	}
	if k.c.SameUser || p.Local && int(p.UID) == os.Getuid() {
		custody = custodyNone
		why = append(why, "The gateway runs under the keeper's own user, which can read what the keeper reads: give the keeper a user of its own.")
	}
	if len(k.c.Witnesses) == 0 {
		why = append(why, "The ledger has no witness: that an old copy was put back, or two logs are shown, can't be told. Name one in the keeper's settings.")
	}
	if _, err := os.Stat(filepath.Join(k.c.Dir, rootKeyFile)); err == nil {
		why = append(why, "The key of the region's root lies in the keeper's folder: take "+rootKeyFile+" to a place that is offline.")
	}
	return custody, why
}
