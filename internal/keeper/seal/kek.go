package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// KEK is a region's key encryption key. A driver keeps the key to itself: it
// wraps and unwraps data keys, and tells what it is. A driver over PKCS#11
// fulfils the same four methods with a key that never leaves its token.
//
// Errors: later when its service is away, denied when it refuses or the blob
// does not belong to it.
type KEK interface {
	// ID names the key, not the driver: it stands in every wrapped row.
	ID() string
	Wrap(ctx context.Context, clearKey Secret, associated []byte) ([]byte, error)
	Unwrap(ctx context.Context, blob, associated []byte) (Secret, error)
	Describe() Description
}

// Description is what doctor says of a KEK.
type Description struct {
	Driver string // file, transit, pkcs11
	ID     string
	// OnHost: the key lies on the keeper's own disk, which is for trying out.
	OnHost bool
	Detail string
}

// local is a KEK in this process' memory: AES-256-GCM with a random nonce of
// 96 bits. A region wraps tens of thousands of data keys, far from the 2^32
// that NIST SP 800-38D 8.3 allows for random nonces.
type local struct {
	id   string
	aead cipher.AEAD
}

const kekBytes = 32

func newLocal(op, id string, key Secret) (*local, error) {
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	return &local{id: id, aead: a}, nil
}

func (l *local) ID() string { return l.id }

func (l *local) Wrap(_ context.Context, clearKey Secret, associated []byte) ([]byte, error) {
	nonce := make([]byte, l.aead.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return l.aead.Seal(nonce, nonce, clearKey.Bytes(), associated), nil
}

func (l *local) Unwrap(_ context.Context, blob, associated []byte) (Secret, error) {
	n := l.aead.NonceSize()
	if len(blob) < n {
		return Secret{}, refused("seal.Unwrap", "the KEK does not open this data key")
	}
	b, err := l.aead.Open(nil, blob[:n], blob[n:], associated)
	if err != nil {
		return Secret{}, refused("seal.Unwrap", "the KEK does not open this data key")
	}
	return NewSecret(b), nil
}
