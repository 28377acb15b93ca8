//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// driver makes keys in a token. It fulfils keys.Driver and keys.Remover.
type driver struct {
	t     *token
	label string
}

// OpenDriver prepares the driver; it asks nothing of the token yet.
func (m *Modules) OpenDriver(c Config) (keys.Driver, error) {
	t, err := m.token("pkcs11.OpenDriver", c)
	if err != nil {
		return nil, err
	}
	d := &driver{t: t, label: c.KeyLabel}
	if d.label == "" {
		d.label = "sallyport"
	}
	return d, nil
}

// Name is how rows call the driver.
func (d *driver) Name() string { return "pkcs11" }

// Make is of keys.Driver: ecdsa-p256, rsa-2048 and rsa-3072. A pair that could
// not be sealed is destroyed again; one whose caller is killed before the handle
// is stored stays in the token, where nothing names it.
func (d *driver) Make(ctx context.Context, s keys.Sealer, p seal.Place, a keys.Algorithm) (keys.Made, error) {
	const op = "pkcs11.Make"
	if err := check(op, p); err != nil {
		return keys.Made{}, err
	}
	if a != keys.P256 && a != keys.RSA2048 && a != keys.RSA3072 {
		return keys.Made{}, fault.New(fault.Invalid, op, "the driver makes no keys of "+string(a)).
			WithHint("Use ecdsa-p256, rsa-2048 or rsa-3072, or the software driver.")
	}
	h, err := call(ctx, d.t, op, 6*d.t.c.Timeout, func(l *link) (handle, error) { return l.generate(d.label, a) })
	if err != nil {
		return keys.Made{}, err
	}
	blob, err := sealed(s, p, h)
	if err != nil {
		return keys.Made{}, errors.Join(err, d.destroy(context.WithoutCancel(ctx), h))
	}
	return keys.Made{Handle: blob, Public: h.public}, nil
}

func sealed(s keys.Sealer, p seal.Place, h handle) ([]byte, error) {
	b, err := h.bytes()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "pkcs11.Make", err)
	}
	return s.Seal(p, seal.NewSecret(b))
}

// Load is of keys.Driver. The object is looked for at once, so that a key that
// is not in the token is known before it is needed.
func (d *driver) Load(ctx context.Context, s keys.Sealer, p seal.Place, blob []byte) (crypto.Signer, error) {
	const op = "pkcs11.Load"
	h, err := opened(op, s, p, blob)
	if err != nil {
		return nil, err
	}
	if _, err := call(ctx, d.t, op, d.t.c.Timeout, func(l *link) (crypto11.PrivateKey, error) { return l.signer(h.id) }); err != nil {
		return nil, err
	}
	return &signer{t: d.t, handle: h}, nil
}

// Remove is of keys.Remover: it destroys the key in the token. One that is not
// there any more is removed already.
func (d *driver) Remove(ctx context.Context, s keys.Sealer, p seal.Place, blob []byte) error {
	h, err := opened("pkcs11.Remove", s, p, blob)
	if err != nil {
		return err
	}
	return d.destroy(ctx, h)
}

func (d *driver) destroy(ctx context.Context, h handle) error {
	_, err := call(ctx, d.t, "pkcs11.Remove", d.t.c.Timeout, func(l *link) (struct{}, error) { return struct{}{}, l.destroy(h.id) })
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}

func opened(op string, s keys.Sealer, p seal.Place, blob []byte) (handle, error) {
	if err := check(op, p); err != nil {
		return handle{}, err
	}
	secret, err := s.Open(p, blob)
	if err != nil {
		return handle{}, err
	}
	defer secret.Wipe()
	return parseHandle(op, secret.Bytes())
}

func check(op string, p seal.Place) error {
	if p.Kind != seal.PrivateKey {
		return fault.New(fault.Invalid, op, "the place is not of a private key").WithHint("Name the place with that kind.")
	}
	return nil
}

// generate makes a pair that can sign and nothing else.
func (l *link) generate(label string, a keys.Algorithm) (handle, error) {
	id := make([]byte, idBytes)
	rand.Read(id)
	public, err := attributes(id, label, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false), pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
	})
	if err != nil {
		return handle{}, err
	}
	private, err := attributes(id, label, append(guarded(),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false), pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false)))
	if err != nil {
		return handle{}, err
	}
	var k crypto11.Signer
	switch a {
	case keys.P256:
		k, err = l.GenerateECDSAKeyPairWithAttributes(public, private, elliptic.P256())
	case keys.RSA2048:
		k, err = l.GenerateRSAKeyPairWithAttributes(public, private, 2048)
	default:
		k, err = l.GenerateRSAKeyPairWithAttributes(public, private, 3072)
	}
	if err != nil {
		return handle{}, err
	}
	if !usable(k.Public()) {
		return handle{}, errors.Join(fmt.Errorf("the token made a key that is not %s", a), k.Delete())
	}
	return handle{id: id, public: k.Public()}, nil
}

// guarded are the attributes of every key that must not be seen.
func guarded() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	}
}

func attributes(id []byte, label string, more []*pkcs11.Attribute) (crypto11.AttributeSet, error) {
	set, err := crypto11.NewAttributeSetWithIDAndLabel(id, []byte(label))
	if err != nil {
		return nil, err
	}
	set.AddIfNotPresent(more)
	return set, nil
}

// mostKnown bounds the handles that a link keeps; they are quickly found again.
const mostKnown = 4096

// signer is the private key of an id.
func (l *link) signer(id []byte) (crypto11.PrivateKey, error) {
	l.mu.Lock()
	known := l.signers[string(id)]
	l.mu.Unlock()
	if known != nil {
		return known, nil
	}
	found, err := l.FindPrivateKeys(id, nil)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, errAbsent // two of one random id are none of ours
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.signers) >= mostKnown {
		clear(l.signers)
	}
	l.signers[string(id)] = found[0]
	return found[0], nil
}

// destroy deletes a pair, and looks whether it is gone.
func (l *link) destroy(id []byte) error {
	l.mu.Lock()
	delete(l.signers, string(id))
	l.mu.Unlock()
	pairs, err := l.FindKeyPairs(id, nil)
	if err != nil {
		return err
	}
	for _, k := range pairs {
		err = errors.Join(err, k.Delete())
	}
	left, e := l.FindPrivateKeys(id, nil)
	switch {
	case e != nil:
		return e
	case len(left) > 0 && err == nil:
		return errors.New("the token kept a key that it was told to destroy")
	case len(left) == 0 && len(pairs) == 0:
		return errAbsent
	}
	return err
}
