package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// hostEntry is the certificate of a host name, or that there is none.
type hostEntry struct {
	at   time.Time
	cert *tls.Certificate
	err  error
}

// ServerCertificate is of Signers. What the keeper said of a name counts for
// some seconds: a listener asks at every handshake.
func (r *Remote) ServerCertificate(host string) (*tls.Certificate, error) {
	host = strings.ToLower(host)
	now := r.c.Now()
	r.mu.Lock()
	e, ok := r.hosts[host]
	r.mu.Unlock()
	if ok && now.Sub(e.at) < hostsFresh && now.Sub(e.at) >= 0 {
		return e.cert, e.err
	}
	ctx := context.Background() // the seam has none; ask bounds the time
	got, err := ask[act.Certificate](ctx, r, act.HostCertificate, act.Host{Context: r.about(ctx, "", "", purposeServer), Host: host})
	e = hostEntry{at: now, err: err}
	for _, sum := range got.Compromised {
		r.c.HostEnded(sum)
	}
	if err == nil {
		e.cert, e.err = r.certificate(got, func(ctx context.Context, id string, scheme tls.SignatureScheme, p parts) (act.Signature, error) {
			s, err := ask[act.Signature](ctx, r, act.HandshakeAsHost, act.HostHandshake{
				Context: r.about(ctx, "", "", purposeServer), Host: host, Identity: id,
				Scheme: uint16(scheme), Transcript: p.transcript, Exchange: p.exchange,
			})
			if fault.Is(err, fault.Denied) || fault.Is(err, fault.Missing) { // it is compromised, or another one by now
				r.forgetHost(host)
			}
			return s, err
		}, serverRole)
	}
	// A keeper that is away is asked again at once; a name without a
	// certificate is not.
	if e.err == nil || fault.Is(e.err, fault.Missing) {
		r.remember(host, e)
	}
	return e.cert, e.err
}

// remember keeps an entry; names come from strangers, so there are only so
// many.
func (r *Remote) remember(host string, e hostEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.hosts) >= hostsKept {
		clear(r.hosts)
	}
	r.hosts[host] = e
}

// forgetHost has the keeper asked for a name's certificate at the next handshake.
func (r *Remote) forgetHost(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.hosts, host)
}

// ClientCertificate is of Signers. It is asked anew for each connection, so
// that a replaced identity counts at once.
func (r *Remote) ClientCertificate(ctx context.Context, tenant, connection string) (*tls.Certificate, error) {
	return r.IdentityCertificate(ctx, tenant, connection, "")
}

// IdentityCertificate is the certificate of one identity of a connection, also
// of one that is only staged; "" is the active one.
func (r *Remote) IdentityCertificate(ctx context.Context, tenant, connection, identity string) (*tls.Certificate, error) {
	about := r.about(ctx, tenant, connection, purposeClient)
	got, err := ask[act.Certificate](ctx, r, act.TenantCertificate, act.Which{Context: about, Identity: identity})
	if err != nil {
		return nil, err
	}
	return r.certificate(got, func(ctx context.Context, id string, scheme tls.SignatureScheme, p parts) (act.Signature, error) {
		return ask[act.Signature](ctx, r, act.HandshakeAsTenant, act.Handshake{
			Context: about, Identity: id, Scheme: uint16(scheme), Transcript: p.transcript,
		})
	}, clientRole)
}

// certificate is a chain with a key that is elsewhere.
func (r *Remote) certificate(got act.Certificate, sign signFunc, role string) (*tls.Certificate, error) {
	const op = "client.Certificate"
	if len(got.Chain) == 0 {
		return nil, fault.New(fault.Missing, op, "the keeper has no certificate for this identity")
	}
	leaf, err := x509.ParseCertificate(got.Chain[0])
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	sum := sha256.Sum256(leaf.Raw)
	s := remoteSigner{id: hex.EncodeToString(sum[:]), public: leaf.PublicKey, role: role, sign: sign}
	c := &tls.Certificate{Certificate: got.Chain, Leaf: leaf, PrivateKey: s}
	switch leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		c.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	case *rsa.PublicKey:
		c.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}
	}
	return c, nil
}

const (
	clientRole = "client"
	serverRole = "server"
)

// parts are what of a handshake's message the keeper is told.
type parts struct {
	transcript []byte
	exchange   *act.KeyExchange
}

type signFunc func(ctx context.Context, identity string, scheme tls.SignatureScheme, p parts) (act.Signature, error)

// remoteSigner is the key of a certificate for crypto/tls: a
// crypto.MessageSigner, since the keeper must know what it signs and so is
// never given a digest.
type remoteSigner struct {
	id     string
	public crypto.PublicKey
	role   string
	sign   signFunc
}

func (s remoteSigner) Public() crypto.PublicKey { return s.public }

// Sign refuses: a digest says nothing of what it is of. crypto/tls asks for
// one only below TLS 1.2.
func (s remoteSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fault.New(fault.Denied, "client.Sign", "the keeper signs handshakes, not digests").
		WithHint("Use TLS 1.3, or TLS 1.2 as a server.")
}

// SignMessage takes the message apart and sends its parts.
func (s remoteSigner) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	const op = "client.SignMessage"
	scheme, err := schemeOf(s.public, opts)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Denied, Op: op, Err: err}).WithHint("Leave the signature schemes of the certificate as they are.")
	}
	var p parts
	role, hash, ok := parseCertificateVerify(msg)
	switch {
	case ok && role == s.role:
		p.transcript = hash
	case !ok && s.role == serverRole:
		p.exchange, ok = parseKeyExchange(msg)
	default:
		ok = false
	}
	if !ok {
		return nil, fault.New(fault.Denied, op, "the message is no handshake that this identity signs").
			WithHint("Use TLS 1.3, or TLS 1.2 as a server.")
	}
	// crypto/tls gives no context here; ask bounds the time.
	got, err := s.sign(context.Background(), s.id, scheme, p)
	return got.Signature, err
}

func (s remoteSigner) String() string   { return "signer" }
func (s remoteSigner) GoString() string { return "signer" }

func schemeOf(pub crypto.PublicKey, opts crypto.SignerOpts) (tls.SignatureScheme, error) {
	if opts != nil && opts.HashFunc() == crypto.SHA256 {
		_, pss := opts.(*rsa.PSSOptions)
		switch pub.(type) {
		case *ecdsa.PublicKey:
			return tls.ECDSAWithP256AndSHA256, nil
		case *rsa.PublicKey:
			if pss {
				return tls.PSSWithSHA256, nil
			}
			return tls.PKCS1WithSHA256, nil
		}
	}
	return 0, errors.New("the keeper signs by SHA-256 with ECDSA P-256 or RSA")
}

// parseCertificateVerify takes exactly the structure of RFC 8446 4.4.3.
func parseCertificateVerify(msg []byte) (role string, hash []byte, ok bool) {
	rest, ok := strings.CutPrefix(string(msg), strings.Repeat(" ", 64)+"TLS 1.3, ")
	if !ok {
		return "", nil, false
	}
	role, after, ok := strings.Cut(rest, " CertificateVerify\x00")
	if !ok || role != clientRole && role != serverRole || len(after) != 32 && len(after) != 48 {
		return "", nil, false
	}
	return role, []byte(after), true
}

// parseKeyExchange takes exactly what a TLS 1.2 server signs: two randoms, and
// a named curve with its point (RFC 5246 7.4.3, RFC 8422 5.4).
func parseKeyExchange(msg []byte) (*act.KeyExchange, bool) {
	const head = 32 + 32 + 4
	if len(msg) <= head || msg[64] != 3 || int(msg[67]) != len(msg)-head {
		return nil, false
	}
	return &act.KeyExchange{
		ClientRandom: msg[:32], ServerRandom: msg[32:64],
		Curve: uint16(msg[65])<<8 | uint16(msg[66]), Public: msg[head:],
	}, true
}
