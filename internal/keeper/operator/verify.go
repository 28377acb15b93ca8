package operator

import (
	"context"
	"crypto/ed25519"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Rule says how many people sign an act.
type Rule struct {
	Signers int
	// Above this number of tenants, named in the parameter "tenants", it is
	// SignersAbove. 0: the number does not matter. Whoever carries out the order
	// must hold that number against what is really touched.
	Above        int
	SignersAbove int
}

// TenantsParameter is the parameter that a Rule with Above reads.
const TenantsParameter = "tenants"

// Rules are those of the house: two people where one could open everything.
func Rules() map[string]Rule {
	return map[string]Rule{
		ChangeBinding: {Signers: 1, Above: 10, SignersAbove: 2},
		OpenCampaign:  {Signers: 2},
		LiftBreaker:   {Signers: 2},
		Thaw:          {Signers: 2},
		RotateKEK:     {Signers: 1},
		Restore:       {Signers: 2},
		PlantDecoy:    {Signers: 1},
		ReleaseDecoy:  {Signers: 1},
	}
}

// Nonces remembers which orders were carried out.
type Nonces interface {
	// Spend enters a nonce, durably; kind conflict when it is there already.
	// After notAfter it may be forgotten.
	Spend(ctx context.Context, nonce [16]byte, notAfter time.Time) error
}

// Config is what a Verifier is made from.
type Config struct {
	Region    string
	Operators []Public
	Rules     map[string]Rule // nil: Rules()
	Nonces    Nonces
	Now       func() time.Time
}

// maxLife is how far ahead an order may end: one that was signed and never
// handed in should not lie about for long.
const maxLife = 24 * time.Hour

// Verifier verifies orders of one region.
type Verifier struct{ c Config }

// NewVerifier makes a verifier. A person may have several keys; a key belongs
// to one person.
func NewVerifier(c Config) (*Verifier, error) {
	const op = "operator.NewVerifier"
	if c.Region == "" || c.Nonces == nil {
		return nil, fault.New(fault.Invalid, op, "orders are verified for a region, and nonces are kept").WithHint("Give both.")
	}
	seen := map[string]bool{}
	for _, p := range c.Operators {
		if len(p.Key) != ed25519.PublicKeySize || !isName(p.Name) || seen[p.ID()] {
			return nil, fault.New(fault.Invalid, op, "an operator's key is damaged or stands there twice").
				WithHint("List each key once, as `sallyport operator new` printed it.")
		}
		seen[p.ID()] = true
	}
	if c.Rules == nil {
		c.Rules = Rules()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Verifier{c: c}, nil
}

// Verified is an order that counts, and who signed it. The zero value is no
// order.
type Verified struct {
	order   Order
	signers []string
}

// Order is what was ordered.
func (v Verified) Order() Order { return v.order }

// Signers are the people who signed, in order of name.
func (v Verified) Signers() []string { return slices.Clone(v.signers) }

// Verify takes a signed order, checks it and spends its nonce.
func (v *Verifier) Verify(ctx context.Context, raw []byte) (Verified, error) {
	const op = "operator.Verify"
	s, o, err := parse(raw)
	if err != nil {
		return Verified{}, invalid(op, err, "Hand in the order as sallyport wrote it.")
	}
	now := v.c.Now()
	switch {
	case o.Region != v.c.Region:
		return Verified{}, denied(op, "the order is for another region", "Hand it to the keeper of region "+o.Region+".")
	case !o.NotAfter.After(now):
		return Verified{}, denied(op, "the order's time is over", "Sign a new one.")
	case o.NotAfter.Sub(now) > maxLife:
		return Verified{}, denied(op, "the order would count for more than a day", "Sign one that ends sooner.")
	}
	need, err := v.need(op, o)
	if err != nil {
		return Verified{}, err
	}
	people, err := v.people(op, s)
	if err != nil {
		return Verified{}, err
	}
	if len(people) < need {
		return Verified{}, denied(op, "the order has "+strconv.Itoa(len(people))+" of "+strconv.Itoa(need)+" operators' signatures",
			"Let another operator sign it too.")
	}
	// Last, so that an order which does not count yet is not spent.
	if err := v.c.Nonces.Spend(ctx, o.Nonce, o.NotAfter); err != nil {
		return Verified{}, err
	}
	return Verified{order: o, signers: people}, nil
}

// need is how many people the order wants.
func (v *Verifier) need(op string, o Order) (int, error) { return need(op, v.c.Rules, o) }

// Need is how many people have to sign an order by the rules of the house;
// kind denied for one that no number of them could give.
func Need(o Order) (int, error) { return need("operator.Need", Rules(), o) }

func need(op string, rules map[string]Rule, o Order) (int, error) {
	r, ok := rules[o.Act]
	if !ok || r.Signers < 1 {
		return 0, denied(op, "nobody may order "+strconv.Quote(o.Act), "Look at the list of orders in docs/keys.md.")
	}
	if r.Above == 0 {
		return r.Signers, nil
	}
	n, err := strconv.Atoi(o.Parameters[TenantsParameter])
	if err != nil || n < 0 {
		return 0, denied(op, "the order does not say how many tenants it is of", "Sign one with the parameter "+TenantsParameter+".")
	}
	if n > r.Above {
		return max(r.Signers, r.SignersAbove), nil
	}
	return r.Signers, nil
}

// people verifies every signature. One that is wrong or of a stranger spoils
// the order: somebody has been at it.
func (v *Verifier) people(op string, s signed) ([]string, error) {
	var names []string
	for _, g := range s.Signatures {
		i := slices.IndexFunc(v.c.Operators, func(p Public) bool { return p.ID() == g.Key })
		if i < 0 || !ed25519.Verify(v.c.Operators[i].Key, s.Order, g.Signature) {
			return nil, denied(op, "a signature under the order is not of an operator of this keeper",
				"Sign anew with a key that stands in the keeper's settings.")
		}
		if name := v.c.Operators[i].Name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
