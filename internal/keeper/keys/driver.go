package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// Algorithm is the kind of a key.
type Algorithm string

// The algorithms: P-256 for TLS, RSA for Entra apps and DKIM, Ed25519 for a
// second DKIM key.
const (
	P256    Algorithm = "ecdsa-p256"
	RSA2048 Algorithm = "rsa-2048"
	RSA3072 Algorithm = "rsa-3072"
	Ed25519 Algorithm = "ed25519"
)

// Sealer seals and opens a tenant's things: a seal.DataKey.
type Sealer interface {
	Seal(seal.Place, seal.Secret) ([]byte, error)
	Open(seal.Place, []byte) (seal.Secret, error)
}

// Made is a new key. The handle is what is stored: sealed PKCS#8, or the name
// of an object in a token.
type Made struct {
	Handle []byte
	Public crypto.PublicKey
}

// Driver is where keys live.
type Driver interface {
	// Make makes a key for a place.
	Make(ctx context.Context, s Sealer, p seal.Place, a Algorithm) (Made, error)
	// Load gives a signer for a handle; denied when it is not of that place.
	Load(ctx context.Context, s Sealer, p seal.Place, handle []byte) (crypto.Signer, error)
}

// Remover is a driver whose keys lie elsewhere than in the handle: they are
// destroyed there when an identity is retired. Of one that is not there any
// more it says nothing.
type Remover interface {
	Remove(ctx context.Context, s Sealer, p seal.Place, handle []byte) error
}

// Software is the driver whose keys are sealed blobs.
type Software struct{}

// Make is of Driver.
func (Software) Make(_ context.Context, s Sealer, p seal.Place, a Algorithm) (Made, error) {
	const op = "keys.Make"
	if p.Kind != seal.PrivateKey {
		return Made{}, notAKey(op)
	}
	k, err := generate(a)
	if err != nil {
		return Made{}, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint("Use ecdsa-p256, rsa-2048, rsa-3072 or ed25519.")
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return Made{}, fault.Wrap(fault.Internal, op, err)
	}
	secret := seal.NewSecret(der)
	defer secret.Wipe()
	handle, err := s.Seal(p, secret)
	return Made{Handle: handle, Public: k.Public()}, err
}

// Load is of Driver.
func (Software) Load(_ context.Context, s Sealer, p seal.Place, handle []byte) (crypto.Signer, error) {
	const op = "keys.Load"
	if p.Kind != seal.PrivateKey {
		return nil, notAKey(op)
	}
	secret, err := s.Open(p, handle)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	return parse(op, secret)
}

func notAKey(op string) error {
	return fault.New(fault.Invalid, op, "the place is not of a private key").WithHint("Name the place with that kind.")
}

func generate(a Algorithm) (crypto.Signer, error) {
	switch a {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	}
	return nil, errors.New("the algorithm " + string(a) + " is not known")
}

// parse reads PKCS#8. The bytes came out of a seal, so one that is no key was
// never ours.
func parse(op string, secret seal.Secret) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(secret.Bytes())
	if err != nil {
		// The parser's own text may quote what it read.
		return nil, fault.New(fault.Internal, op, "what was sealed as a private key is none")
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Internal, op, "the sealed key cannot sign")
	}
	return s, nil
}
