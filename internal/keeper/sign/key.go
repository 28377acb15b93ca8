package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Use is the one thing that a key may sign.
type Use string

// The uses; they are the purposes of identities, and the issuer's own.
const (
	TLSClient Use = "smtp-client"
	TLSServer Use = "smtp-server"
	EntraApp  Use = "entra-app"
	DKIM      Use = "dkim"
	ARC       Use = "arc"
	Issuer    Use = "issuer"
)

// Key is a private key with its use.
type Key struct {
	Signer crypto.Signer
	Use    Use
}

// minRSA is the shortest RSA modulus that signs.
const minRSA = 2048

// may refuses a key that is for something else, or too weak.
func (k Key) may(op string, use Use) error {
	if k.Use != use {
		return fault.New(fault.Denied, op, "a key for "+string(k.Use)+" was asked to sign for "+string(use)).
			WithHint("Each purpose has an identity of its own: ask for that one.")
	}
	switch pub := k.Signer.Public().(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return nil
		}
	case *rsa.PublicKey:
		if pub.N.BitLen() >= minRSA {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return fault.New(fault.Invalid, op, "the key is of a type or length that is not used here").
		WithHint("Use ECDSA P-256, RSA of 2048 bits or more, or Ed25519 for DKIM.")
}

// digest signs the SHA-256 of a message that this room built.
func (k Key) digest(op string, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	sum := sha256.Sum256(message)
	sig, err := k.Signer.Sign(rand.Reader, sum[:], opts)
	// A driver says whether it is away.
	return sig, fault.Wrap(fault.KindOf(err), op, err)
}

// pss are the parameters of rsa_pss_rsae_sha256 (RFC 8446 4.2.3) and of PS256
// (RFC 7518 3.5): a salt as long as the hash.
func pss() crypto.SignerOpts {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
}

func invalid(op, text, hint string) error { return fault.New(fault.Invalid, op, text).WithHint(hint) }
