//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"io"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// signer is a key in the token. It outlives sessions: the object is found anew
// on each link. It is safe for concurrent use.
type signer struct {
	t *token
	handle
}

// Public is of crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign is of crypto.Signer: SHA-256 digests under ECDSA, RSASSA-PSS with a salt
// as long as the digest, and RSASSA-PKCS1-v1_5. The random source is the
// token's own.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	const op = "pkcs11.Sign"
	opts, err := s.options(op, digest, opts)
	if err != nil {
		return nil, err
	}
	digest = bytes.Clone(digest) // a call that hangs goes on when the caller has left
	sig, err := call(context.Background(), s.t, op, s.t.c.Timeout, func(l *link) ([]byte, error) {
		k, err := l.signer(s.id)
		if err != nil {
			return nil, err
		}
		return k.Sign(nil, digest, opts)
	})
	if err != nil {
		return nil, err
	}
	if !s.verifies(digest, sig, opts) {
		return nil, fault.New(fault.Denied, op, "the token's signature is not by the key that was made there").
			WithHint("The object in the token was replaced, or the token is faulty: treat the key as lost, and look at the token's log.")
	}
	return sig, nil
}

func (s *signer) options(op string, digest []byte, opts crypto.SignerOpts) (crypto.SignerOpts, error) {
	const hint = "Sign a SHA-256 digest, with a PSS salt as long as it."
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fault.New(fault.Invalid, op, "a key in a token signs SHA-256 digests").WithHint(hint)
	}
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return crypto.SHA256, nil
	}
	if _, isRSA := s.public.(*rsa.PublicKey); !isRSA || pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != sha256.Size {
		return nil, fault.New(fault.Invalid, op, "these PSS options do not fit the key").WithHint(hint)
	}
	return &rsa.PSSOptions{SaltLength: sha256.Size, Hash: crypto.SHA256}, nil
}

func (s *signer) verifies(digest, sig []byte, opts crypto.SignerOpts) bool {
	switch k := s.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, sig)
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(k, crypto.SHA256, digest, sig, pss) == nil
		}
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, sig) == nil
	}
	return false
}
