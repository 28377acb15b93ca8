package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	proto "github.com/mholt/acmez/v3/acme"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxAuthorizations of an order: it has one name.
const maxAuthorizations = 4

// Issue gets a certificate of a name for a key: the chain, leaf first, DER. How
// long it lives is the CA's decision, or the profile's. Replaces is the DER of
// the certificate that it renews, nil for none: a CA with ARI lets such an order
// pass its rate limits.
//
// Errors: later when the CA is away, slow, overloaded or answers nonsense, and
// until the time that it said; denied when it could not validate the name or
// refuses the account; never when it certifies no such name or key.
func (i *Issuer) Issue(ctx context.Context, name string, key crypto.Signer, replaces []byte) (chain [][]byte, err error) {
	const op = "acme.Issue"
	order, csr, err := i.prepare(op, name, key, replaces)
	if err != nil {
		return nil, err
	}
	if err := i.paused(op, name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, i.c.Timeout)
	defer cancel()
	s := i.session()
	pem, err := within(ctx, i.grace(), func() ([]byte, error) {
		pem, err := s.obtain(ctx, order, csr)
		if problemOf(err).Type == proto.ProblemTypeAccountDoesNotExist {
			s.forget()
			pem, err = s.obtain(ctx, order, csr)
		}
		return pem, err
	})
	if err != nil {
		s.forget() // what is wrong may be the account; to ask for it costs little
	} else {
		chain, err = readChain(pem, name, key.Public(), i.c.Now())
	}
	if err != nil {
		return nil, s.failure(op, name, err)
	}
	return chain, nil
}

// withdrawTime is for taking one record away, also where an issuance was given up.
const withdrawTime = 8 * time.Second

// grace is how long an issuance that was given up is waited for: a keeper that
// stops leaves no record behind if it can help it.
func (i *Issuer) grace() time.Duration {
	if i.c.DNS == nil {
		return 0
	}
	return withdrawTime
}

// within waits for the library no longer than ctx and the grace: some of its
// locks don't know of ctx. A panic there, on an answer that nobody foresaw, is an
// error here.
func within[T any](ctx context.Context, grace time.Duration, f func() (T, error)) (T, error) {
	type answer struct {
		got T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		a := answer{err: errors.New("the ACME library failed")}
		defer func() {
			if r := recover(); r != nil {
				a.err = fmt.Errorf("the ACME library failed: %v", r)
			}
			done <- a
		}()
		a.got, a.err = f()
	}()
	select {
	case a := <-done:
		return a.got, a.err
	case <-ctx.Done():
	}
	if grace > 0 {
		select {
		case <-done:
		case <-time.After(grace):
		}
	}
	var none T
	return none, ctx.Err()
}

// prepare makes the order and the request of a certificate before the CA is
// asked for anything.
func (i *Issuer) prepare(op, name string, key crypto.Signer, replaces []byte) (proto.Order, []byte, error) {
	order := proto.Order{Profile: i.c.Profile, Identifiers: []proto.Identifier{{Type: "dns", Value: name}}}
	if !hostName(name) {
		return order, nil, fault.New(fault.Invalid, op, "a certificate is for one host name in lower case").WithHint("Name it in full, without a dot at its end.")
	}
	if key == nil || !usable(key.Public()) {
		return order, nil, fault.New(fault.Invalid, op, "public CAs certify keys of P-256 and RSA").WithHint("Make the key as ecdsa-p256 or rsa-2048.")
	}
	if len(replaces) > 0 {
		old, err := x509.ParseCertificate(replaces)
		if err != nil {
			return order, nil, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint("Give the leaf that is renewed as DER, or none.")
		}
		// A certificate of another issuer has no place in this CA's order.
		if id, err := proto.ARIUniqueIdentifier(old); err == nil && len(old.AuthorityKeyId) > 0 {
			order.Replaces = id
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	return order, csr, fault.Wrap(fault.KindOf(err), op, err)
}

// hostName tells whether a text is a DNS name as certificates have it.
func hostName(name string) bool {
	if len(name) > 253 || !strings.Contains(name, ".") {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// obtain is one order from its beginning to the PEM of the chain.
func (s *session) obtain(ctx context.Context, order proto.Order, csr []byte) ([]byte, error) {
	account, err := s.registered(ctx)
	if err != nil {
		return nil, err
	}
	order, err = s.order(ctx, account, order)
	if err != nil {
		return nil, err
	}
	if len(order.Authorizations) > maxAuthorizations {
		return nil, fmt.Errorf("the CA wants %d authorizations for one name", len(order.Authorizations))
	}
	for _, location := range order.Authorizations {
		if err := s.authorize(ctx, account, location); err != nil {
			return nil, err
		}
	}
	if order, err = s.FinalizeOrder(ctx, account, order, csr); err != nil {
		return nil, err
	}
	chains, err := s.GetCertificateChain(ctx, account, order.Certificate)
	if err != nil {
		return nil, err
	}
	if len(chains) == 0 {
		return nil, errors.New("the CA issued no chain")
	}
	return chains[0].ChainPEM, nil
}

// order asks for the order. That a certificate was replaced already, or is not
// one of this CA, is no reason not to have a new one (RFC 9773 5).
func (s *session) order(ctx context.Context, account proto.Account, order proto.Order) (proto.Order, error) {
	got, err := s.NewOrder(ctx, account, order)
	if err == nil || order.Replaces == "" {
		return got, err
	}
	switch problemOf(err).Type {
	case "", proto.ProblemTypeRateLimited, proto.ProblemTypeAccountDoesNotExist:
		return got, err
	}
	order.Replaces = ""
	return s.NewOrder(ctx, account, order)
}

// authorize proves that the name is ours.
func (s *session) authorize(ctx context.Context, account proto.Account, location string) error {
	a, err := s.GetAuthorization(ctx, account, location)
	if err != nil || a.Status == proto.StatusValid {
		return err
	}
	if a.Status != proto.StatusPending || len(a.Challenges) == 0 {
		return fmt.Errorf("the CA gave an authorization in the state %q with %d challenges", a.Status, len(a.Challenges))
	}
	kind := proto.ChallengeTypeHTTP01
	if s.c.DNS != nil {
		kind = proto.ChallengeTypeDNS01
	}
	for _, c := range a.Challenges {
		if c.Type != kind {
			continue
		}
		end, err := s.present(ctx, c, a.IdentifierValue())
		if err != nil {
			return err
		}
		defer end()
		if _, err := s.InitiateChallenge(ctx, account, c); err != nil {
			return err
		}
		_, err = s.PollAuthorization(ctx, account, a)
		return err
	}
	return fault.New(fault.Denied, "acme.Authorize", "the CA offers no challenge of "+kind+" for this name").
		WithHint("Use the other kind of challenge, or another CA.")
}

// present lets the CA find the answer until end is called.
func (s *session) present(ctx context.Context, c proto.Challenge, name string) (end func(), err error) {
	if !token(c.Token) {
		return nil, errors.New("the CA gave a challenge without a token")
	}
	if s.c.DNS == nil {
		s.mu.Lock()
		s.tokens[c.Token] = c.KeyAuthorization
		s.mu.Unlock()
		return func() {
			s.mu.Lock()
			delete(s.tokens, c.Token)
			s.mu.Unlock()
		}, nil
	}
	return s.publish(ctx, "_acme-challenge."+name, c.DNS01KeyAuthorization())
}

// publish lets the CA find a TXT record. One that was published in part is taken
// away at once.
func (s *session) publish(ctx context.Context, fqdn, value string) (end func(), err error) {
	end = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
		defer cancel()
		if err := s.c.DNS.Withdraw(ctx, fqdn, value); err != nil {
			s.c.Log.Warn("the record of an ACME challenge was not taken away", "name", fqdn, "value", value, "error", err)
		}
	}
	if err := s.c.DNS.Publish(ctx, fqdn, value); err != nil {
		end()
		kind := fault.Later
		var ours *fault.Error
		if errors.As(err, &ours) {
			kind = ours.Kind
		}
		return nil, fault.Wrap(kind, "acme.Publish", err)
	}
	return end, nil
}

// token tells whether a text may stand in the path of a challenge: base64url
// without padding (RFC 8555 8.1).
func token(t string) bool {
	return t != "" && len(t) <= 256 && strings.Trim(t, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}
