package seal

import (
	"bytes"
	"context"
	"errors"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	maxPlain = 64 << 10         // the largest thing sealed: an RSA 4096 key is 2.4 KB
	maxBlob  = maxPlain + 1<<10 // and what the seal adds
	maxKey   = 16 << 10         // a data key, wrapped or not
	keyLabel = "sallyport data key 1\x00"
)

// Wrapped is a tenant's data key under a KEK: a row of the keeper's database.
type Wrapped struct {
	Region, Tenant string
	KEK            string // id of the KEK that wraps it
	Blob           []byte
}

// associated is what a wrapped data key is bound to. The KEK's id is in it, so
// that a row which names another KEK does not open by accident.
func (w Wrapped) associated() []byte {
	b := []byte(keyLabel)
	for _, s := range []string{w.Region, w.Tenant, w.KEK} {
		b = appendText(b, s)
	}
	return b
}

// DataKey seals and opens the things of one tenant. It is safe for concurrent
// use.
type DataKey struct {
	region, tenant string
	aead           tink.AEAD
}

// NewDataKey makes a tenant's data key, and its wrapped form to be stored
// before anything is sealed with it.
func NewDataKey(ctx context.Context, kek KEK, region, tenant string) (*DataKey, Wrapped, error) {
	const op = "seal.NewDataKey"
	if region == "" || tenant == "" {
		return nil, Wrapped{}, fault.New(fault.Invalid, op, "a data key needs a region and a tenant").
			WithHint("Name both.")
	}
	// AES-256-GCM with Tink's prefix: the key's id stands in every ciphertext.
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, Wrapped{}, fault.Wrap(fault.Internal, op, err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&buf)); err != nil {
		return nil, Wrapped{}, fault.Wrap(fault.Internal, op, err)
	}
	clearKey := NewSecret(buf.Bytes())
	defer clearKey.Wipe()
	w := Wrapped{Region: region, Tenant: tenant, KEK: kek.ID()}
	if w.Blob, err = kek.Wrap(ctx, clearKey, w.associated()); err != nil {
		return nil, Wrapped{}, err
	}
	k, err := newDataKey(op, h, w)
	return k, w, err
}

// OpenDataKey unwraps a tenant's data key. Region and tenant are what the
// caller asked for, not what the row says.
func OpenDataKey(ctx context.Context, kek KEK, region, tenant string, w Wrapped) (*DataKey, error) {
	const op = "seal.OpenDataKey"
	if w.Region != region || w.Tenant != tenant {
		return nil, refused(op, "the data key is another tenant's or region's")
	}
	clearKey, err := unwrap(ctx, op, kek, w)
	if err != nil {
		return nil, err
	}
	defer clearKey.Wipe()
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(clearKey.Bytes())))
	if err != nil {
		return nil, refused(op, "what the KEK opened is no data key")
	}
	return newDataKey(op, h, w)
}

func unwrap(ctx context.Context, op string, kek KEK, w Wrapped) (Secret, error) {
	if w.KEK != kek.ID() {
		return Secret{}, fault.New(fault.Conflict, op, "the data key is under another KEK than the one that is open").
			WithHint("Open the KEK " + w.KEK + ", or finish its rotation.")
	}
	if len(w.Blob) == 0 || len(w.Blob) > maxKey {
		return Secret{}, refused(op, "the wrapped data key has an impossible size")
	}
	return kek.Unwrap(ctx, w.Blob, w.associated())
}

func newDataKey(op string, h *keyset.Handle, w Wrapped) (*DataKey, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	return &DataKey{region: w.Region, tenant: w.Tenant, aead: a}, nil
}

// Rewrap puts a data key under another KEK. The data key stays the same, so
// everything that is sealed under it stays as it is. It can be repeated: one
// that is under the new KEK already is returned unchanged.
func Rewrap(ctx context.Context, from, to KEK, w Wrapped) (Wrapped, error) {
	const op = "seal.Rewrap"
	if w.KEK == to.ID() {
		return w, nil
	}
	clearKey, err := unwrap(ctx, op, from, w)
	if err != nil {
		return Wrapped{}, err
	}
	defer clearKey.Wipe()
	next := Wrapped{Region: w.Region, Tenant: w.Tenant, KEK: to.ID()}
	next.Blob, err = to.Wrap(ctx, clearKey, next.associated())
	return next, err
}

// Seal makes a blob that opens only at the same place. The secret stays the
// caller's, to be wiped.
func (k *DataKey) Seal(p Place, s Secret) ([]byte, error) {
	const op = "seal.Seal"
	if err := k.fits(op, p); err != nil {
		return nil, err
	}
	if s.Len() == 0 || s.Len() > maxPlain {
		return nil, fault.New(fault.Invalid, op, "a secret has 1 to 65536 bytes").
			WithHint("Give the secret itself, not a file of other things.")
	}
	blob, err := k.aead.Encrypt(s.Bytes(), p.Bytes())
	return blob, fault.Wrap(fault.Internal, op, err)
}

// Open opens a blob at its place. Every reason for refusing looks the same:
// which field differs is nobody's business who holds a foreign blob.
func (k *DataKey) Open(p Place, blob []byte) (Secret, error) {
	const op = "seal.Open"
	if err := k.fits(op, p); err != nil {
		return Secret{}, err
	}
	if len(blob) > maxBlob {
		return Secret{}, refused(op, "the blob does not open here")
	}
	b, err := k.aead.Decrypt(blob, p.Bytes())
	if err != nil {
		return Secret{}, refused(op, "the blob does not open here")
	}
	return NewSecret(b), nil
}

func (k *DataKey) fits(op string, p Place) error {
	if err := p.check(op); err != nil {
		return err
	}
	if p.Region != k.region || p.Tenant != k.tenant {
		return refused(op, "the data key is another tenant's or region's")
	}
	return nil
}

// refused is the answer to things that do not belong together.
func refused(op, text string) error {
	return (&fault.Error{Kind: fault.Denied, Op: op, Err: errors.New(text)}).
		WithHint("A row was swapped, edited or restored from elsewhere: compare it with the ledger, and treat the key as seen.")
}
