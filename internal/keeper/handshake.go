package keeper

import (
	"context"
	"crypto/tls"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// TenantCertificate is the chain that a connection shows: of the active
// identity, or of the one that is named.
func (k *Keeper) TenantCertificate(ctx context.Context, p wire.Peer, q act.Which) (act.Certificate, error) {
	at := seat{q.Tenant, q.Connection, q.Purpose}
	n, subject, err := k.findNamed(ctx, q.Context, q.Identity)
	err = states(q.Context, string(sign.TLSClient), err)
	t := task{peer: p, name: act.TenantCertificate, about: q.Context, subject: subject, frequent: true}
	return carryOut(ctx, k, t, func(ctx context.Context) (act.Certificate, error) {
		if err == nil {
			err = n.fits(at)
		}
		if err == nil {
			err = k.open(ctx, n, false)
		}
		if err != nil {
			return act.Certificate{}, err
		}
		return act.Certificate{Chain: n.der}, nil
	})
}

// findNamed is the identity that a request of a tenant's connection names, or
// the active one, with what the entry calls it. Nothing is opened.
func (k *Keeper) findNamed(ctx context.Context, c act.Context, which string) (*known, string, error) {
	if err := ours(c); err != nil {
		return nil, clip(which), err
	}
	var n *known
	var err error
	if which == "" {
		n, err = k.findActive(ctx, seat{c.Tenant, c.Connection, c.Purpose})
	} else {
		n, err = k.find(ctx, which)
	}
	if err != nil {
		return nil, clip(which), err
	}
	return n, n.id, nil
}

// states refuses a request whose stated purpose is not the act's: the entry
// would tell of a use that there was not. What is worse already stays.
func states(c act.Context, purpose string, err error) error {
	if c.Purpose == purpose || err != nil && !fault.Is(err, fault.Missing) {
		return err
	}
	return fault.New(fault.Denied, "keeper.Context", "the act is for "+purpose+", and the request states another purpose").WithHint("State the purpose " + purpose + ".")
}

// HandshakeAsTenant signs a TLS 1.3 handshake as a connection's client.
func (k *Keeper) HandshakeAsTenant(ctx context.Context, p wire.Peer, q act.Handshake) (act.Signature, error) {
	at := seat{q.Tenant, q.Connection, string(sign.TLSClient)}
	n, subject, err := k.findCertificate(ctx, q.Context, q.Identity)
	err = states(q.Context, at.purpose, err)
	t := task{peer: p, name: act.HandshakeAsTenant, about: q.Context, subject: subject, frequent: true}
	return carryOut(ctx, k, t, func(ctx context.Context) (act.Signature, error) {
		if err != nil {
			return act.Signature{}, err
		}
		key, err := k.signer(ctx, n, at)
		if err != nil {
			return act.Signature{}, err
		}
		s, err := sign.CertificateVerify(key, sign.Client, tls.SignatureScheme(q.Scheme), q.Transcript)
		return act.Signature{Signature: s}, err
	})
}

// findCertificate is findNamed for those who know the certificate, as whoever
// shakes hands does.
func (k *Keeper) findCertificate(ctx context.Context, c act.Context, sum string) (*known, string, error) {
	if !isSum(sum) {
		return nil, clip(sum), fault.New(fault.Invalid, "keeper.Handshake", "an identity is named by the SHA-256 of its certificate here, as hex in lower case").
			WithHint("Name the certificate that is shown.")
	}
	return k.findNamed(ctx, c, sum)
}

// HandshakeAsHost signs a handshake as one of our host names: the TLS 1.3 form,
// or that of a TLS 1.2 server.
func (k *Keeper) HandshakeAsHost(ctx context.Context, p wire.Peer, q act.HostHandshake) (act.Signature, error) {
	n, subject, err := k.findCertificate(ctx, q.Context, q.Identity)
	err = states(q.Context, string(sign.TLSServer), err)
	if subject == "" || err != nil {
		subject = clip(strings.ToLower(q.Host))
	}
	t := task{peer: p, name: act.HandshakeAsHost, about: q.Context, subject: subject, frequent: true}
	return carryOut(ctx, k, t, func(ctx context.Context) (act.Signature, error) {
		if err != nil {
			return act.Signature{}, err
		}
		key, err := k.signer(ctx, n, hostSeat(q.Host))
		if err != nil {
			return act.Signature{}, err
		}
		s, err := signAsHost(key, q)
		return act.Signature{Signature: s}, err
	})
}

func signAsHost(key sign.Key, q act.HostHandshake) ([]byte, error) {
	const op = "keeper.HandshakeAsHost"
	scheme := tls.SignatureScheme(q.Scheme)
	if q.Exchange == nil {
		return sign.CertificateVerify(key, sign.Server, scheme, q.Transcript)
	}
	x := sign.ServerKeyExchange{Curve: tls.CurveID(q.Exchange.Curve), Public: q.Exchange.Public}
	if len(q.Transcript) != 0 || len(q.Exchange.ClientRandom) != len(x.ClientRandom) || len(q.Exchange.ServerRandom) != len(x.ServerRandom) {
		return nil, fault.New(fault.Invalid, op, "a key exchange has two randoms of 32 bytes, and no transcript beside it").
			WithHint("Let crypto/tls ask through the keeper's client.")
	}
	copy(x.ClientRandom[:], q.Exchange.ClientRandom)
	copy(x.ServerRandom[:], q.Exchange.ServerRandom)
	return sign.SignServerKeyExchange(key, scheme, x)
}
