package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	proto "github.com/mholt/acmez/v3/acme"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// How often a CA is asked about one certificate: what it says, between bounds
// (RFC 9773 4.3.2), or every six hours (4.3.3 on failures).
const (
	soonest    = time.Minute
	latest     = 24 * time.Hour
	usual      = 6 * time.Hour
	mostAdvice = 100_000
)

// advised is an answer, kept until the CA may be asked again.
type advised struct {
	until       time.Time
	at          time.Time
	explanation string
	err         error
}

// Advice is when the CA wants a certificate of its own renewed, and the address
// where it explains that, if it does. The time is one of its window, by chance,
// but always the same of one certificate and window. One in the past means now:
// the certificate will be revoked, or is.
//
// Errors: missing when the CA gives no advice; later when it could not be asked
// or its answer makes no sense. Then the renewal goes by the certificate's own
// life.
func (i *Issuer) Advice(ctx context.Context, leaf *x509.Certificate) (renewAt time.Time, explanation string, err error) {
	const op = "acme.Advice"
	if leaf == nil || len(leaf.AuthorityKeyId) == 0 {
		return time.Time{}, "", fault.New(fault.Invalid, op, "the certificate does not say who issued it").WithHint("Ask about certificates of this issuer.")
	}
	id, err := proto.ARIUniqueIdentifier(leaf)
	if err != nil {
		return time.Time{}, "", fault.Wrap(fault.Invalid, op, err)
	}
	i.mu.Lock()
	known, ok := i.advice[id]
	i.mu.Unlock()
	if !ok || !known.until.After(i.c.Now()) {
		if known, err = i.ask(ctx, op, id, leaf); err != nil {
			return time.Time{}, "", err
		}
		i.keep(id, known)
	}
	return known.at, known.explanation, known.err
}

func (i *Issuer) keep(id string, a advised) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.advice) >= mostAdvice {
		clear(i.advice)
	}
	i.advice[id] = a
}

// ask gets an answer that is kept, a failure among them. What its caller gave
// up is none.
func (i *Issuer) ask(caller context.Context, op, id string, leaf *x509.Certificate) (advised, error) {
	ctx, cancel := context.WithTimeout(caller, min(i.c.Timeout, 30*time.Second))
	defer cancel()
	s, now := i.session(), i.c.Now()
	a, err := within(ctx, 0, func() (advised, error) { return s.renewalInfo(ctx, id, leaf, now) })
	if err == nil {
		return a, nil
	}
	if caller.Err() != nil {
		return a, fault.Wrap(fault.Later, op, caller.Err())
	}
	var ours *fault.Error
	if !errors.As(err, &ours) {
		ours = (&fault.Error{Kind: fault.Later, Op: op, Err: errors.New("the CA gave no advice on renewal: " + clean(reason(err)))}).
			WithHint("Nothing need be done: the renewal goes by the certificate's own life.")
	}
	_, again := s.wire.said()
	return advised{until: between(again, now), err: ours}, nil
}

// between is when to ask again, given what the CA said, if it did.
func between(said, now time.Time) time.Time {
	switch {
	case said.IsZero():
		return now.Add(usual)
	case said.Before(now.Add(soonest)):
		return now.Add(soonest)
	case said.After(now.Add(latest)):
		return now.Add(latest)
	}
	return said
}

func (s *session) renewalInfo(ctx context.Context, id string, leaf *x509.Certificate, now time.Time) (advised, error) {
	dir, err := s.GetDirectory(ctx)
	if err != nil {
		return advised{}, err
	}
	if dir.RenewalInfo == "" {
		return advised{}, fault.New(fault.Missing, "acme.Advice", "the CA gives no advice on renewal").
			WithHint("Nothing need be done: the renewal goes by the certificate's own life.")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, dir.RenewalInfo+"/"+id, nil)
	if err != nil {
		return advised{}, err
	}
	resp, err := s.HTTPClient.Do(r)
	if err != nil {
		return advised{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return advised{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return advised{}, fmt.Errorf("it answered with status %d", resp.StatusCode)
	}
	a, err := readAdvice(body, leaf)
	a.until = between(retryAfter(resp.Header.Get("Retry-After"), now), now)
	return a, err
}

// readAdvice reads a RenewalInfo object (RFC 9773 4.2) and chooses the time.
func readAdvice(body []byte, leaf *x509.Certificate) (advised, error) {
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
		ExplanationURL  string
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return advised{}, errors.New("the answer is not its JSON")
	}
	w := info.SuggestedWindow
	switch {
	case w.Start.IsZero() || !w.End.After(w.Start):
		return advised{}, errors.New("the window ends before it begins")
	case w.Start.After(leaf.NotAfter) || w.End.Sub(w.Start) > leaf.NotAfter.Sub(leaf.NotBefore):
		return advised{}, errors.New("the window has nothing to do with the certificate's life")
	}
	at := w.Start.Add(time.Duration(share(leaf) * float64(w.End.Sub(w.Start)))).UTC().Truncate(time.Second)
	a := advised{at: earlier(at, leaf.NotAfter)}
	if u, err := url.Parse(info.ExplanationURL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && len(info.ExplanationURL) <= maxText {
		a.explanation = clean(info.ExplanationURL)
	}
	return a, nil
}

// share is a number from 0 to 1 by chance: the certificate's own bytes, its
// signature among them, are the die, so that it falls once.
func share(leaf *x509.Certificate) float64 {
	sum := sha256.Sum256(append([]byte("sallyport renewal 1\x00"), leaf.Raw...))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}
