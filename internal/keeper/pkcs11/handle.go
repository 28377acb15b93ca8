package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// handle is what is sealed in place of a private key: the CKA_ID of the object
// in the token, and its public key. The seal keeps it at its place; the public
// key makes an object that was replaced in the token worthless.
type handle struct {
	id     []byte
	public crypto.PublicKey
}

const (
	handleLabel = "sallyport pkcs11 key 1\x00"
	idBytes     = 16
)

func (h handle) bytes() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(h.public)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(handleLabel), h.id...), der...), nil
}

// parseHandle reads what came out of a seal.
func parseHandle(op string, b []byte) (handle, error) {
	rest, ours := bytes.CutPrefix(b, []byte(handleLabel))
	if !ours || len(rest) <= idBytes {
		return handle{}, fault.New(fault.Invalid, op, "the key is not one of a PKCS#11 token").
			WithHint("Load it with the driver that made it.")
	}
	public, err := x509.ParsePKIXPublicKey(rest[idBytes:])
	if err != nil || !usable(public) {
		return handle{}, fault.New(fault.Internal, op, "the handle names no P-256 or RSA key")
	}
	return handle{id: bytes.Clone(rest[:idBytes]), public: public}, nil
}

func usable(public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return k.N.BitLen() == 2048 || k.N.BitLen() == 3072
	}
	return false
}
