package keeper

import (
	"context"
	"crypto/sha256"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// SignDKIM makes a DKIM-Signature as one of a tenant's identities.
func (k *Keeper) SignDKIM(ctx context.Context, p wire.Peer, q act.DKIM) (act.Field, error) {
	return asMailer(ctx, k, p, mailAct{act.SignDKIM, sign.DKIM, q.Context, q.Identity}, func(key sign.Key, d sign.Domain) (act.Field, error) {
		m, err := mailOf(q.Mail)
		if err != nil {
			return act.Field{}, err
		}
		f, err := sign.SignDKIM(key, d, m)
		return act.Field(f), err
	})
}

// SealARC makes the next ARC set as one of a tenant's identities.
func (k *Keeper) SealARC(ctx context.Context, p wire.Peer, q act.ARC) (act.Set, error) {
	return asMailer(ctx, k, p, mailAct{act.SealARC, sign.ARC, q.Context, q.Identity}, func(key sign.Key, d sign.Domain) (act.Set, error) {
		m, err := mailOf(q.Mail)
		if err != nil {
			return act.Set{}, err
		}
		c := sign.Chain{Validation: q.Validation, Results: q.Results, Mail: m}
		for _, s := range q.Previous {
			c.Previous = append(c.Previous, sign.Set{Results: sign.Field(s.Results), Message: sign.Field(s.Message), Seal: sign.Field(s.Seal)})
		}
		s, err := sign.SealARC(key, d, c)
		return act.Set{Results: act.Field(s.Results), Message: act.Field(s.Message), Seal: act.Field(s.Seal)}, err
	})
}

// mailAct is a signature of a message that is to be made.
type mailAct struct {
	name     act.Name
	use      sign.Use
	about    act.Context
	identity string
}

// asMailer does a mail act. It is of a tenant and names no connection: that of
// the identity is nobody's secret, but its tenant must be the one that asks.
func asMailer[A any](ctx context.Context, k *Keeper, p wire.Peer, m mailAct, do func(sign.Key, sign.Domain) (A, error)) (A, error) {
	var none A
	n, subject, err := k.findMailer(ctx, m)
	err = states(m.about, string(m.use), err)
	t := task{peer: p, name: m.name, about: m.about, subject: subject, frequent: true}
	return carryOut(ctx, k, t, func(ctx context.Context) (A, error) {
		if err != nil {
			return none, err
		}
		key, err := k.signer(ctx, n, seat{m.about.Tenant, n.connection, string(m.use)})
		if err != nil {
			return none, err
		}
		d, err := domainOf(n.name)
		if err != nil {
			return none, err
		}
		return do(key, d)
	})
}

func (k *Keeper) findMailer(ctx context.Context, m mailAct) (*known, string, error) {
	if err := ours(m.about); err != nil {
		return nil, clip(m.identity), err
	}
	if m.identity == "" {
		return nil, "", fault.New(fault.Invalid, "keeper.SignMail", "no identity is named").WithHint("Name the identity of the signing domain.")
	}
	n, err := k.find(ctx, m.identity)
	if err != nil {
		return nil, clip(m.identity), err
	}
	return n, n.id, nil
}

// domainOf takes the name of a DKIM or ARC identity apart: the DNS name of its
// key record, <selector>._domainkey.<domain> (RFC 6376 3.6.2.1).
func domainOf(name string) (sign.Domain, error) {
	selector, domain, ok := strings.Cut(name, "._domainkey.")
	if !ok || selector == "" || domain == "" {
		return sign.Domain{}, edited("keeper.SignMail", "the identity's name is not that of a key record")
	}
	return sign.Domain{Name: domain, Selector: selector}, nil
}

func mailOf(m act.Mail) (sign.Mail, error) {
	if len(m.BodyHash) != sha256.Size {
		return sign.Mail{}, fault.New(fault.Invalid, "keeper.SignMail", "the hash of a body has 32 bytes").WithHint("Give the SHA-256 of the relaxed body.")
	}
	got := sign.Mail{Absent: m.Absent, BodyHash: [32]byte(m.BodyHash), Time: m.Time, Expire: m.Expire}
	for _, f := range m.Fields {
		got.Fields = append(got.Fields, sign.Field(f))
	}
	return got, nil
}
