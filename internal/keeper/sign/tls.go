package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Role is the side of a TLS handshake that signs.
type Role string

// The two roles.
const (
	Client Role = "client"
	Server Role = "server"
)

const tlsHint = "Let crypto/tls ask through the keeper's client, with TLS 1.3 and a certificate of this key."

// CertificateVerify signs a TLS 1.3 CertificateVerify (RFC 8446 4.4.3): 64
// spaces, the role's context string, a zero byte, the transcript hash. The
// first three are written here; of the caller's there is only the hash.
func CertificateVerify(k Key, role Role, scheme tls.SignatureScheme, transcript []byte) ([]byte, error) {
	const op = "sign.CertificateVerify"
	use := TLSClient
	switch role {
	case Client:
	case Server:
		use = TLSServer
	default:
		return nil, invalid(op, "a TLS role is client or server", tlsHint)
	}
	if err := k.may(op, use); err != nil {
		return nil, err
	}
	// The cipher suites of TLS 1.3 hash by SHA-256 or SHA-384 (RFC 8446 B.4).
	if len(transcript) != sha256.Size && len(transcript) != sha512.Size384 {
		return nil, invalid(op, "a transcript hash has 32 or 48 bytes", tlsHint)
	}
	opts, err := k.scheme(op, scheme, false)
	if err != nil {
		return nil, err
	}
	return k.digest(op, certificateVerify(role, transcript), opts)
}

func certificateVerify(role Role, transcript []byte) []byte {
	b := bytes.Repeat([]byte{' '}, 64)
	b = append(b, "TLS 1.3, "+string(role)+" CertificateVerify\x00"...)
	return append(b, transcript...)
}

// ServerKeyExchange are the parts that a TLS 1.2 server signs (RFC 8422 5.4,
// RFC 5246 7.4.3).
type ServerKeyExchange struct {
	ClientRandom, ServerRandom [32]byte
	Curve                      tls.CurveID
	Public                     []byte // the server's share: a point of the curve
}

// downgrade is how the random of a TLS 1.3 server ends when it speaks TLS 1.2
// (RFC 8446 4.1.3). It is demanded: a client that can do TLS 1.3 gives up when
// it meets it, so a TLS 1.2 signature that was got from a gateway in wrong hands
// can't be used to stand between us and such a client.
const downgrade = "DOWNGRD\x01"

const curveHint = "Offer X25519, P-256, P-384 or P-521 and leave TLS 1.3 on."

// SignServerKeyExchange signs for a host name's TLS 1.2 handshake: senders on
// port 25 still speak it. It can't be taken for a CertificateVerify: at offset
// 64, after the two randoms, stands the curve type 3, and there a
// CertificateVerify has the T of "TLS 1.3".
func SignServerKeyExchange(k Key, scheme tls.SignatureScheme, x ServerKeyExchange) ([]byte, error) {
	const op = "sign.SignServerKeyExchange"
	if err := k.may(op, TLSServer); err != nil {
		return nil, err
	}
	if string(x.ServerRandom[24:]) != downgrade {
		return nil, invalid(op, "the server's random does not say that TLS 1.3 was possible", curveHint)
	}
	if err := x.check(op); err != nil {
		return nil, err
	}
	opts, err := k.scheme(op, scheme, true)
	if err != nil {
		return nil, err
	}
	return k.digest(op, x.bytes(), opts)
}

// check takes only a true point of a curve we offer.
func (x ServerKeyExchange) check(op string) error {
	var c ecdh.Curve
	switch x.Curve {
	case tls.X25519:
		c = ecdh.X25519()
	case tls.CurveP256:
		c = ecdh.P256()
	case tls.CurveP384:
		c = ecdh.P384()
	case tls.CurveP521:
		c = ecdh.P521()
	default:
		return invalid(op, "the curve is not one of ours", curveHint)
	}
	if _, err := c.NewPublicKey(x.Public); err != nil {
		return invalid(op, "the server's share is no point of its curve", curveHint)
	}
	return nil
}

// bytes are the randoms and ServerECDHParams: named_curve (3), the curve, and
// the point after its length.
func (x ServerKeyExchange) bytes() []byte {
	b := append(x.ClientRandom[:], x.ServerRandom[:]...)
	b = append(b, 3, byte(x.Curve>>8), byte(x.Curve), byte(len(x.Public)))
	return append(b, x.Public...)
}

// scheme turns a signature scheme into options, if it is the key's. TLS 1.3
// forbids PKCS #1 v1.5 in handshakes (RFC 8446 4.2.3).
func (k Key) scheme(op string, s tls.SignatureScheme, old bool) (crypto.SignerOpts, error) {
	switch k.Signer.Public().(type) {
	case *ecdsa.PublicKey:
		if s == tls.ECDSAWithP256AndSHA256 {
			return crypto.SHA256, nil
		}
	case *rsa.PublicKey:
		if s == tls.PSSWithSHA256 {
			return pss(), nil
		}
		if s == tls.PKCS1WithSHA256 && old {
			return crypto.SHA256, nil
		}
	}
	return nil, (&fault.Error{Kind: fault.Invalid, Op: op, Err: errScheme(s)}).WithHint(tlsHint)
}

type errScheme tls.SignatureScheme

func (e errScheme) Error() string {
	return "the key does not sign by " + tls.SignatureScheme(e).String() + " here"
}
