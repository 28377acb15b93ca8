//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"errors"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// kek is an AES-256 key in the token, used by CKM_AES_GCM alone.
type kek struct {
	t     *token
	label string
}

const (
	nonceBytes = 12 // NIST SP 800-38D 5.2.1.1: 96 bits
	kekBytes   = 32
	maxBlob    = 64 << 10
	blobForm   = 1 // first byte of a wrapped data key
)

// OpenKEK prepares the driver; it asks nothing of the token yet.
func (m *Modules) OpenKEK(region string, c Config) (seal.KEK, error) {
	return m.kek("pkcs11.OpenKEK", region, c)
}

func (m *Modules) kek(op, region string, c Config) (*kek, error) {
	if region == "" {
		return nil, fault.New(fault.Invalid, op, "a KEK belongs to a region").WithHint("Name the region.")
	}
	t, err := m.token(op, c)
	if err != nil {
		return nil, err
	}
	k := &kek{t: t, label: c.KeyLabel}
	if k.label == "" {
		k.label = "sallyport-kek-" + region
	}
	return k, nil
}

// CreateKEK makes the key of a region's KEK in the token; conflict when there
// is a key of that label.
func (m *Modules) CreateKEK(ctx context.Context, region string, c Config) error {
	const op = "pkcs11.CreateKEK"
	k, err := m.kek(op, region, c)
	if err != nil {
		return err
	}
	_, err = call(ctx, k.t, op, 6*k.t.c.Timeout, func(l *link) (struct{}, error) { return struct{}{}, l.createKEK(op, k.label) })
	return err
}

func (l *link) createKEK(op, label string) error {
	found, err := l.FindKeys(nil, []byte(label))
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fault.New(fault.Conflict, op, "the token has a key "+label).WithHint("Use that one, or name another label.")
	}
	id := make([]byte, idBytes)
	rand.Read(id)
	set, err := attributes(id, label, append(guarded(),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false)))
	if err != nil {
		return err
	}
	_, err = l.GenerateSecretKeyWithAttributes(set, 8*kekBytes, crypto11.CipherAES)
	return err
}

// ID is of seal.KEK.
func (k *kek) ID() string { return "pkcs11-" + k.t.c.Token + "/" + k.label }

// Describe is of seal.KEK.
func (k *kek) Describe() seal.Description {
	d := seal.Description{Driver: "pkcs11", ID: k.ID(), Detail: "token " + k.t.c.Token + " of " + k.t.c.Module}
	if k.t.c.softHSM() {
		d.OnHost = true
		d.Detail += ": SoftHSM keeps its keys in files of this host, which is for trying out"
	}
	return d
}

// Wrap is of seal.KEK. The nonce is random and ours; what was wrapped is opened
// again before it is given out, since some tokens put a nonce of their own in
// its place and a data key that nobody can open would be lost.
func (k *kek) Wrap(ctx context.Context, clearKey seal.Secret, associated []byte) ([]byte, error) {
	const op = "pkcs11.Wrap"
	if clearKey.Len() == 0 || clearKey.Len() > maxBlob/2 {
		return nil, fault.New(fault.Invalid, op, "a data key has 1 to 32768 bytes").WithHint("Wrap data keys only.")
	}
	// The copy is the call's own: one that hangs goes on when the caller has
	// left.
	own := bytes.Clone(clearKey.Bytes())
	blob, err := call(ctx, k.t, op, k.t.c.Timeout, func(l *link) ([]byte, error) {
		a, err := l.aead(op, k.label)
		if err != nil {
			return nil, err
		}
		blob := make([]byte, 1+nonceBytes)
		blob[0] = blobForm
		nonce := blob[1:]
		rand.Read(nonce)
		blob = a.Seal(blob, bytes.Clone(nonce), own, associated)
		again, err := a.Open(nil, blob[1:1+nonceBytes], blob[1+nonceBytes:], associated)
		defer clear(again)
		if err != nil || subtle.ConstantTimeCompare(again, own) != 1 {
			return nil, errors.Join(errors.New("the token does not open what it wrapped"), err)
		}
		return blob, nil
	})
	if !errors.Is(err, errHangs) {
		clear(own)
	}
	return blob, err
}

// Unwrap is of seal.KEK.
func (k *kek) Unwrap(ctx context.Context, blob, associated []byte) (seal.Secret, error) {
	const op = "pkcs11.Unwrap"
	if len(blob) < 1+nonceBytes+16 || len(blob) > maxBlob || blob[0] != blobForm {
		return seal.Secret{}, refused(op)
	}
	nonce, sealed := blob[1:1+nonceBytes], blob[1+nonceBytes:]
	return call(ctx, k.t, op, k.t.c.Timeout, func(l *link) (seal.Secret, error) {
		a, err := l.aead(op, k.label)
		if err != nil {
			return seal.Secret{}, err
		}
		b, err := a.Open(nil, nonce, sealed, associated)
		if err == nil {
			return seal.NewSecret(b), nil
		}
		// Modules say the same of a wrong tag and of a token in trouble. A token
		// that opens what it has just closed is in none.
		if e := probe(a); e != nil {
			return seal.Secret{}, e
		}
		return seal.Secret{}, refused(op)
	})
}

func probe(a cipher.AEAD) error {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	_, err := a.Open(nil, nonce, a.Seal(nil, bytes.Clone(nonce), make([]byte, 16), nil), nil)
	return err
}

func refused(op string) error {
	return fault.New(fault.Denied, op, "the KEK does not open this data key").
		WithHint("A row was swapped, edited or restored from elsewhere: compare it with the ledger, and treat the key as seen.")
}

// aead finds the key, and refuses one that could leave the token.
func (l *link) aead(op, label string) (cipher.AEAD, error) {
	l.mu.Lock()
	k := l.kek[label]
	l.mu.Unlock()
	if k == nil {
		var err error
		if k, err = l.findKEK(op, label); err != nil {
			return nil, err
		}
		l.mu.Lock()
		l.kek[label] = k
		l.mu.Unlock()
	}
	return k.NewGCM()
}

func (l *link) findKEK(op, label string) (*crypto11.SecretKey, error) {
	found, err := l.FindKeys(nil, []byte(label))
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, errAbsent
	case len(found) > 1:
		return nil, fault.New(fault.Denied, op, "the token has more than one key "+label).
			WithHint("Find out who made the second, and delete or rename it.")
	}
	set, err := l.GetAttributes(found[0], []crypto11.AttributeType{crypto11.CkaKeyType, crypto11.CkaValueLen, crypto11.CkaSensitive, crypto11.CkaExtractable})
	if err != nil {
		return nil, err
	}
	is := func(t crypto11.AttributeType, want any) bool {
		a := set[t]
		return a != nil && bytes.Equal(a.Value, pkcs11.NewAttribute(t, want).Value)
	}
	if !is(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES) || !is(pkcs11.CKA_VALUE_LEN, kekBytes) || !is(pkcs11.CKA_SENSITIVE, true) || !is(pkcs11.CKA_EXTRACTABLE, false) {
		return nil, fault.New(fault.Denied, op, "the token's key "+label+" is no AES-256 key that stays in the token").
			WithHint("Make a KEK that is sensitive and not extractable, and rotate to it.")
	}
	return found[0], nil
}
