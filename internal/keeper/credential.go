package keeper

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Purposes of credentials.
const (
	purposeAuth  = "smtp-auth"
	purposeAdmin = "m365-admin"
)

const (
	maxCredential = 8 << 10 // bytes of user and password
	// padding is what the length of a sealed credential is a multiple of: it
	// tells next to nothing of the length of its password.
	padding = 256
)

// credentialKey names a credential.
type credentialKey struct{ tenant, connection, purpose string }

func (k credentialKey) String() string { return k.tenant + "/" + k.connection + " for " + k.purpose }

func keyOf(c act.Context) credentialKey {
	return credentialKey{c.Tenant, c.Connection, c.Purpose}
}

// credentialRow is a row as it is stored.
type credentialRow struct {
	purpose            string
	blob, marker, used []byte
	binding            string
	setAt              int64
}

// place is where a credential's blob belongs.
func (k *Keeper) place(c credentialKey, kind seal.Kind, b seal.Binding) seal.Place {
	return seal.Place{Region: k.c.Region, Tenant: c.tenant, Connection: c.connection, Purpose: c.purpose, Kind: kind, Binding: b}
}

// SetCredential is of wire.Acts.
func (k *Keeper) SetCredential(ctx context.Context, p wire.Peer, q act.NewCredential) (act.Done, error) {
	return carryOut(ctx, k, task{peer: p, name: act.SetCredential, about: q.Context}, func(ctx context.Context) (act.Done, error) {
		return act.Done{}, k.setCredential(ctx, keyOf(q.Context), act.Credential{User: q.User, Password: q.Password}, false)
	})
}

func (k *Keeper) setCredential(ctx context.Context, c credentialKey, secret act.Credential, decoy bool) error {
	const op = "keeper.SetCredential"
	if err := mayBeFor(op, c.purpose); err != nil {
		return err
	}
	if secret.Password == "" || len(secret.User)+len(secret.Password) > maxCredential {
		return fault.New(fault.Invalid, op, "a credential has a password, and with its user at most 8192 bytes").
			WithHint("Check that the input is a user name and a password.")
	}
	bound, err := k.boundTo(ctx, op, c)
	if err != nil {
		return err
	}
	dk, err := k.seals.key(ctx, c.tenant)
	if err != nil {
		return err
	}
	old, err := k.credentialRow(ctx, op, c)
	switch {
	case fault.Is(err, fault.Missing):
	case err != nil:
		return err
	default:
		if err := k.notDecoy(op, dk, c, old); err != nil {
			return err
		}
	}
	r, err := k.sealCredential(dk, c, secret, bound, decoy)
	if err != nil {
		return err
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		var now string
		if err := tx.QueryRow(selectBoundTo, c.tenant, c.connection).Scan(&now); err != nil || now != bound {
			return fault.New(fault.Later, op, "the connection's binding was changed meanwhile").WithHint("Set the credential again.")
		}
		_, err := tx.Exec(upsertCredential, c.tenant, c.connection, c.purpose, r.blob, r.binding, r.marker, r.setAt, r.used)
		return err
	})
}

// sealCredential makes a row: three blobs, each for its place.
func (k *Keeper) sealCredential(dk *seal.DataKey, c credentialKey, secret act.Credential, bound string, decoy bool) (credentialRow, error) {
	r := credentialRow{purpose: c.purpose, binding: bound, setAt: k.now().UnixMicro()}
	b, err := bindingOf(bound)
	if err != nil {
		return r, err
	}
	plain, err := padded(secret)
	if err != nil {
		return r, err
	}
	defer plain.Wipe()
	if r.blob, err = dk.Seal(k.place(c, seal.Password, b), plain); err != nil {
		return r, err
	}
	if r.marker, err = markerOf(dk, k.place(c, seal.Marker, b), decoy); err != nil {
		return r, err
	}
	r.used, err = uses{}.seal(dk, k.place(c, seal.Uses, b))
	return r, err
}

// padded is a credential's JSON, with spaces up to a round length.
func padded(c act.Credential) (seal.Secret, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return seal.Secret{}, fault.Wrap(fault.Internal, "keeper.Credential", err)
	}
	defer clear(b)
	long := make([]byte, (len(b)+padding-1)/padding*padding)
	for i := copy(long, b); i < len(long); i++ {
		long[i] = ' '
	}
	return seal.NewSecret(long), nil
}

// OpenCredential is of wire.Acts.
func (k *Keeper) OpenCredential(ctx context.Context, p wire.Peer, q act.Plain) (act.Credential, error) {
	return carryOut(ctx, k, task{peer: p, name: act.OpenCredential, about: q.Context, frequent: true}, func(ctx context.Context) (act.Credential, error) {
		return k.openCredential(ctx, keyOf(q.Context))
	})
}

func (k *Keeper) openCredential(ctx context.Context, c credentialKey) (got act.Credential, err error) {
	const op = "keeper.OpenCredential"
	if err := mayBeFor(op, c.purpose); err != nil {
		return got, err
	}
	r, err := k.credentialRow(ctx, op, c)
	if err != nil {
		return got, err
	}
	dk, err := k.seals.key(ctx, c.tenant)
	if err != nil {
		return got, err
	}
	if err := k.notDecoy(op, dk, c, r); err != nil {
		return got, err
	}
	if err := k.breaker.Open(); err != nil {
		return got, err
	}
	bound, err := k.boundTo(ctx, op, c)
	if err != nil {
		return got, err
	}
	if r.binding != bound {
		return got, fault.New(fault.Denied, op, "the credential was sealed for another partner than the connection's").
			WithHint("The row was edited or comes from elsewhere: compare it with the ledger, and set the credential again.")
	}
	b, err := bindingOf(bound)
	if err != nil {
		return got, err
	}
	plain, err := dk.Open(k.place(c, seal.Password, b), r.blob)
	if err != nil {
		return got, err
	}
	defer plain.Wipe()
	if json.Unmarshal(plain.Bytes(), &got) != nil { // its text could quote the secret
		return act.Credential{}, fault.New(fault.Internal, op, "what was sealed as a credential is none")
	}
	k.openings.add(c, k.now())
	return got, nil
}

// RemoveCredential is of wire.Acts.
func (k *Keeper) RemoveCredential(ctx context.Context, p wire.Peer, q act.Plain) (act.Done, error) {
	return carryOut(ctx, k, task{peer: p, name: act.RemoveCredential, about: q.Context}, func(ctx context.Context) (act.Done, error) {
		return act.Done{}, k.removeCredential(ctx, keyOf(q.Context))
	})
}

func (k *Keeper) removeCredential(ctx context.Context, c credentialKey) error {
	const op = "keeper.RemoveCredential"
	if err := mayBeFor(op, c.purpose); err != nil {
		return err
	}
	r, err := k.credentialRow(ctx, op, c)
	if err != nil {
		return err
	}
	dk, err := k.seals.key(ctx, c.tenant)
	if err != nil {
		return err
	}
	if err := k.notDecoy(op, dk, c, r); err != nil {
		return err
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(deleteCredential, c.tenant, c.connection, c.purpose)
		return err
	})
}

// ListCredentials is of wire.Acts. It opens no secret, so it has no entry.
func (k *Keeper) ListCredentials(ctx context.Context, _ wire.Peer, q act.Plain) (act.CredentialList, error) {
	const op = "keeper.ListCredentials"
	list := act.CredentialList{Credentials: []act.CredentialInfo{}}
	if err := k.mayAct(); err != nil {
		return list, err
	}
	k.openings.write(ctx)
	rows, err := k.door.Query(ctx, listCredentials, q.Tenant)
	if err != nil {
		return list, err
	}
	defer rows.Close()
	var sealed []credentialRow
	for rows.Next() {
		var r credentialRow
		var connection string
		if err := rows.Scan(&connection, &r.purpose, &r.binding, &r.setAt, &r.used); err != nil {
			return list, store.Fault(op, err)
		}
		sealed = append(sealed, r)
		list.Credentials = append(list.Credentials, act.CredentialInfo{Connection: connection, Purpose: r.purpose, SetAt: time.UnixMicro(r.setAt).UTC()})
	}
	if err := rows.Err(); err != nil || len(sealed) == 0 {
		return list, store.Fault(op, err)
	}
	dk, err := k.seals.key(ctx, q.Tenant)
	if err != nil {
		return list, err
	}
	for i, r := range sealed {
		one := &list.Credentials[i]
		u, err := k.usesOf(dk, credentialKey{q.Tenant, one.Connection, one.Purpose}, r)
		if err != nil {
			continue // a row that somebody edited says nothing of its use
		}
		one.Opened = &u.n
		if !u.last.IsZero() {
			one.LastOpened = &u.last
		}
	}
	return list, nil
}

// mayBeFor refuses a purpose that no credential has.
func mayBeFor(op, purpose string) error {
	if purpose == purposeAuth || purpose == purposeAdmin {
		return nil
	}
	return fault.New(fault.Denied, op, "no credential is for that purpose").WithHint("State smtp-auth or m365-admin.")
}

func (k *Keeper) credentialRow(ctx context.Context, op string, c credentialKey) (credentialRow, error) {
	r := credentialRow{purpose: c.purpose}
	err := k.door.QueryRow(ctx, selectCredential, c.tenant, c.connection, c.purpose).Scan(&r.blob, &r.binding, &r.marker, &r.setAt, &r.used)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fault.New(fault.Missing, op, "no credential for "+c.tenant+"/"+c.connection).
			WithHint("Set one with: credential set " + c.tenant + " " + c.connection + " --stdin")
	}
	return r, store.Fault(op, err)
}

// boundTo is the binding of a connection as it stands in its row.
func (k *Keeper) boundTo(ctx context.Context, op string, c credentialKey) (string, error) {
	var bound string
	err := k.door.QueryRow(ctx, selectBoundTo, c.tenant, c.connection).Scan(&bound)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fault.New(fault.Missing, op, "the connection "+c.tenant+"/"+c.connection+" is bound to no partner").
			WithHint("Bind it to its partner first: the gateway does so when the connection is added.")
	}
	return bound, store.Fault(op, err)
}

// bindingOf reads a binding's row.
func bindingOf(bound string) (seal.Binding, error) {
	var b act.Binding
	if err := json.Unmarshal([]byte(bound), &b); err != nil {
		return seal.Binding{}, fault.New(fault.Denied, "keeper.Binding", "the connection's binding is damaged").
			WithHint("The row was edited: compare it with the ledger, and order the binding anew.")
	}
	return seal.Binding(b), nil
}

// resealCredentials prepares that a connection's credentials go with it to
// another partner, in the transaction that has changed its binding.
func (k *Keeper) resealCredentials(ctx context.Context, tenant, connection string) (func(tx store.KeeperTx, from, to seal.Binding) error, error) {
	dk, err := k.seals.key(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return func(tx store.KeeperTx, from, to seal.Binding) error {
		var bound string
		if err := tx.QueryRow(selectBoundTo, tenant, connection).Scan(&bound); err != nil {
			return store.Fault("keeper.Reseal", err)
		}
		all, err := credentialsOf(tx, tenant, connection)
		if err != nil {
			return err
		}
		for _, r := range all {
			if err := k.resealCredential(dk, credentialKey{tenant, connection, r.purpose}, &r, from, to); err != nil {
				return err
			}
			if _, err := tx.Exec(updateSealed, tenant, connection, r.purpose, r.blob, bound, r.marker, r.used); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func credentialsOf(tx store.KeeperTx, tenant, connection string) ([]credentialRow, error) {
	rows, err := tx.Query(selectCredentials, tenant, connection)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []credentialRow
	for rows.Next() {
		var r credentialRow
		if err := rows.Scan(&r.purpose, &r.blob, &r.binding, &r.marker, &r.setAt, &r.used); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// resealCredential moves the three blobs of a row from one partner to another.
func (k *Keeper) resealCredential(dk *seal.DataKey, c credentialKey, r *credentialRow, from, to seal.Binding) error {
	for _, one := range []struct {
		kind seal.Kind
		blob *[]byte
	}{{seal.Password, &r.blob}, {seal.Marker, &r.marker}, {seal.Uses, &r.used}} {
		plain, err := dk.Open(k.place(c, one.kind, from), *one.blob)
		if err != nil {
			return err
		}
		*one.blob, err = dk.Seal(k.place(c, one.kind, to), plain)
		plain.Wipe()
		if err != nil {
			return err
		}
	}
	return nil
}
