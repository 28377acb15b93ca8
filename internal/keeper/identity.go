package keeper

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// identity is a row of keeper_identity.
type identity struct {
	id, tenant, connection, purpose string
	epoch                           uint64
	name                            string
	state                           act.IdentityState
	issuer, driver, algorithm       string
	handle                          []byte
	sealer                          string // what the handle is sealed under: "" or standbySealer
	binding                         string // JSON of the binding that the handle is sealed at
	chain                           string // PEM
	sha256                          string
	notBefore, notAfter, announced  int64 // microseconds, 0 for none
	explanation                     string
	marker                          []byte
	created, changed                int64
}

// fields are the columns, to be scanned into.
func (r *identity) fields() []any {
	return []any{&r.id, &r.tenant, &r.connection, &r.purpose, &r.epoch, &r.name, &r.state, &r.issuer, &r.driver, &r.algorithm,
		&r.handle, &r.sealer, &r.binding, &r.chain, &r.sha256, &r.notBefore, &r.notAfter, &r.announced, &r.explanation, &r.marker, &r.created, &r.changed}
}

// values are the columns, to be inserted.
func (r *identity) values() []any {
	return []any{r.id, r.tenant, r.connection, r.purpose, int64(r.epoch), r.name, string(r.state), r.issuer, r.driver, r.algorithm,
		r.handle, r.sealer, r.binding, r.chain, r.sha256, r.notBefore, r.notAfter, r.announced, r.explanation, r.marker, r.created, r.changed}
}

// place is where something of the row is sealed. Everything that says what the
// key is for is in it, so that a row of which any of that was edited does not
// open. The key of a standby is in the name of its tenant's standbys; its marker
// is the tenant's like any other, since ends and lists need no second KEK.
func (r *identity) place(region string, kind seal.Kind) (seal.Place, error) {
	b, err := readBinding(r.binding)
	tenant := r.tenant
	if kind == seal.PrivateKey && r.sealer != "" {
		tenant = standbyTenant(r.tenant)
	}
	return seal.Place{Region: region, Tenant: tenant, Connection: r.connection, Purpose: r.purpose, Kind: kind, Epoch: r.epoch, Binding: b}, err
}

// of reports whether the row is of that place.
func (r *identity) of(tenant, connection, purpose string) bool {
	return r.tenant == tenant && r.connection == connection && r.purpose == purpose
}

// told is what is told of the row. What is of our hosts has no tenant.
func (r *identity) told() act.Identity {
	got := act.Identity{
		ID: r.id, Tenant: r.tenant, Connection: r.connection, Purpose: r.purpose, Epoch: r.epoch, Name: r.name, State: r.state,
		SHA256: r.sha256, Issuer: r.issuer, Driver: r.driver, Chain: chainOf(r.chain), CreatedAt: moment(r.created), ChangedAt: moment(r.changed),
		Explanation: r.explanation, Apart: r.sealer != "",
	}
	if r.tenant == hostsTenant {
		got.Tenant = ""
	}
	if r.notAfter != 0 {
		got.NotBefore, got.NotAfter = moment(r.notBefore), moment(r.notAfter)
	}
	if r.announced != 0 {
		got.Announced = new(moment(r.announced))
	}
	return toldMail(got)
}

func moment(micro int64) time.Time { return time.UnixMicro(micro).UTC() }

// chainOf are the certificates of a PEM text, DER.
func chainOf(text string) [][]byte {
	var chain [][]byte
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return chain
		}
		chain = append(chain, b.Bytes)
	}
}

func chainText(chain [][]byte) string {
	var b strings.Builder
	for _, der := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

func sumOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// bindingText is a binding as it stands in rows; one binding has one text.
func bindingText(b act.Binding) string {
	text, err := json.Marshal(b)
	if err != nil { // texts and a number have no way to fail
		return ""
	}
	return string(text)
}

func readBinding(text string) (seal.Binding, error) {
	var b act.Binding
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return seal.Binding{}, edited("keeper.Binding", "a row's binding is none")
	}
	return seal.Binding(b), nil
}

// edited is the answer to a row that the keeper did not write.
func edited(op, text string) error {
	return fault.New(fault.Denied, op, text).
		WithHint("A row was swapped, edited or restored from elsewhere: compare it with the ledger, and treat the key as seen.")
}

// markerSize is the plaintext of every marker: decoy or not, rows look alike.
const markerSize = 16

// markerOf says in a sealed blob of fixed size whether a credential is a decoy. The
// place is the row's; its kind is replaced.
func markerOf(dk *seal.DataKey, place seal.Place, decoy bool) ([]byte, error) {
	place.Kind = seal.Marker
	plain := make([]byte, markerSize)
	rand.Read(plain)
	plain[0] &^= 1
	if decoy {
		plain[0] |= 1
	}
	secret := seal.NewSecret(plain)
	defer secret.Wipe()
	return dk.Seal(place, secret)
}

// readMarker is the other way round. One whose marker does not open is not
// used: it may be a decoy.
func readMarker(dk *seal.DataKey, place seal.Place, blob []byte) (bool, error) {
	place.Kind = seal.Marker
	secret, err := dk.Open(place, blob)
	if err != nil {
		return false, err
	}
	defer secret.Wipe()
	if secret.Len() != markerSize {
		return false, edited("keeper.Marker", "a row's marker is none")
	}
	return secret.Bytes()[0]&1 == 1, nil
}

// mark seals what a row must not be edited in: its state, its id, what its key
// is sealed under, and whether it is a decoy. What has ended has no marker, so that nothing brings it back.
func (k *Keeper) mark(ctx context.Context, r *identity, state act.IdentityState, decoy bool) ([]byte, error) {
	if ended(state) {
		return []byte{}, nil
	}
	p, err := r.place(k.c.Region, seal.Marker)
	if err != nil {
		return nil, err
	}
	dk, err := k.seals.key(ctx, r.tenant)
	if err != nil {
		return nil, err
	}
	plain := markText(r.id, state, r.sealer, decoy)
	secret := seal.NewSecret(plain[:])
	defer secret.Wipe()
	return dk.Seal(p, secret)
}

// markText is a marker's plaintext: a decoy or not, and the rest of a sum over
// id, state and sealer, none of which has a space.
func markText(id string, state act.IdentityState, sealer string, decoy bool) (plain [markerSize]byte) {
	sum := sha256.Sum256([]byte(id + " " + string(state) + " " + sealer))
	copy(plain[:], sum[:])
	plain[0] = 0
	if decoy {
		plain[0] = 1
	}
	return plain
}

// isDecoy opens a row's marker. One of another state or id than the row's is of
// a row that was edited.
func (k *Keeper) isDecoy(ctx context.Context, r *identity) (bool, error) {
	const op = "keeper.Marker"
	p, err := r.place(k.c.Region, seal.Marker)
	if err != nil {
		return false, err
	}
	dk, err := k.seals.key(ctx, r.tenant)
	if err != nil {
		return false, err
	}
	secret, err := dk.Open(p, r.marker)
	if err != nil {
		return false, err
	}
	defer secret.Wipe()
	for _, decoy := range []bool{false, true} {
		if want := markText(r.id, r.state, r.sealer, decoy); bytes.Equal(want[:], secret.Bytes()) {
			return decoy, nil
		}
	}
	what := string(r.state)
	if r.sealer != "" {
		what += " and sealed as " + strconv.Quote(clip(r.sealer))
	}
	return false, edited(op, "identity "+r.id+" is "+what+" in the database, and the keeper did not make it that")
}

// remark is the marker of a row that is about to get another state. Nothing is
// opened for an end: that must be possible without the KEK.
func (k *Keeper) remark(ctx context.Context, r *identity, to act.IdentityState) ([]byte, error) {
	if ended(r.state) || ended(to) {
		return []byte{}, nil
	}
	decoy, err := k.isDecoy(ctx, r)
	if err != nil {
		return nil, err
	}
	next := *r
	if takesOut(r, to) {
		next.sealer = ""
	}
	return k.mark(ctx, &next, to, decoy)
}

// driverName is what a driver calls itself in rows.
func driverName(d keys.Driver) string {
	if named, ok := d.(interface{ Name() string }); ok {
		return named.Name()
	}
	return "software"
}

// driver is the one whose name stands in a row.
func (k *Keeper) driver(name string) (keys.Driver, error) {
	if driverName(k.c.Driver) == name {
		return k.c.Driver, nil
	}
	if d := k.c.Drivers[name]; d != nil {
		return d, nil
	}
	if name == driverName(keys.Software{}) {
		return keys.Software{}, nil
	}
	return nil, fault.New(fault.Later, "keeper.Driver", "the key is in a driver, "+name+", that this keeper was not given").
		WithHint("Name that driver in the keeper's settings.")
}

// places makes changes of one connection wait for each other. There is one
// keeper to a region, so that nobody else changes its rows.
type places struct {
	seed maphash.Seed
	of   [256]sync.Mutex
}

func (p *places) init() { p.seed = maphash.MakeSeed() }

func (p *places) lock(tenant, connection string) (unlock func()) {
	mu := &p.of[maphash.String(p.seed, tenant+"\x00"+connection)%uint64(len(p.of))]
	mu.Lock()
	return mu.Unlock
}

// ours refuses the names of the region's own things, which have a colon: no
// gateway has such a tenant.
func ours(c act.Context) error {
	if strings.ContainsAny(c.Tenant+c.Connection+c.Purpose, ":\x00\r\n") {
		return fault.New(fault.Denied, "keeper.Context", "the request names what is no tenant's connection").WithHint("Name a tenant and its connection.")
	}
	return nil
}

// row reads one identity; kind missing when there is none.
func (k *Keeper) row(ctx context.Context, q store.KeeperSQL, args ...any) (*identity, error) {
	r := &identity{}
	err := store.Fault("keeper.Identity", k.door.QueryRow(ctx, q, args...).Scan(r.fields()...))
	if fault.Is(err, fault.Missing) {
		return nil, fault.New(fault.Missing, "keeper.Identity", "there is no such identity").WithHint("Look at: identity list")
	}
	return r, err
}

// rows reads identities.
func (k *Keeper) rows(ctx context.Context, q store.KeeperSQL, args ...any) ([]*identity, error) {
	found, err := k.door.Query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var all []*identity
	for found.Next() {
		r := &identity{}
		if err := found.Scan(r.fields()...); err != nil {
			return nil, store.Fault("keeper.Identity", err)
		}
		all = append(all, r)
	}
	return all, store.Fault("keeper.Identity", found.Err())
}

// isSum reports whether a text is the hex of a SHA-256, in lower case.
func isSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

// samePublic compares two public keys.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
