package acme

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	proto "github.com/mholt/acmez/v3/acme"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxText bounds what of a CA's words is told on.
const maxText = 400

// pauses are until when a name is not asked for; "" is every name.
type pauses map[string]time.Time

const (
	mostPauses = 10_000
	// shared is how long a limit that one name met holds for all names: it may be
	// the account's, and then each name would ask once more.
	shared = time.Minute
	// unsaid is how long to wait for a CA that is busy and does not say how long.
	unsaid = 5 * time.Minute
)

// set keeps a pause. There is no use in more of them than this.
func (p pauses) set(name string, until, now time.Time) {
	if len(p) >= mostPauses {
		for n, t := range p {
			if !t.After(now) {
				delete(p, n)
			}
		}
	}
	if len(p) < mostPauses && until.After(p[name]) {
		p[name] = until
	}
}

// paused refuses what a CA has said not to ask for yet.
func (i *Issuer) paused(op, name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	until := i.pauses[name]
	if all := i.pauses[""]; all.After(until) {
		until = all
	}
	if !until.After(i.c.Now()) {
		return nil
	}
	return fault.New(fault.Later, op, "the CA said not to ask before "+until.UTC().Format(time.RFC3339)).WithHint(waitHint)
}

const waitHint = "Wait: it is asked again then. If the limit is met often, ask the CA for a higher one."

// problemOf is the problem document in an error, an empty one for none.
func problemOf(err error) proto.Problem {
	var p proto.Problem
	var q *proto.Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.As(err, &q) && q != nil {
		return *q
	}
	return proto.Problem{}
}

// failure makes a fault of whatever went wrong with an order.
func (s *session) failure(op, name string, err error) error {
	var ours *fault.Error
	if errors.As(err, &ours) {
		return fault.Wrap(ours.Kind, op, err)
	}
	p := problemOf(err)
	if busy, again := s.wire.said(); busy || p.Type == proto.ProblemTypeRateLimited {
		return s.wait(op, name, again, p)
	}
	kind, hint := judge(p)
	if p.Type == "" {
		return (&fault.Error{Kind: kind, Op: op, Err: errors.New("the CA could not be asked: " + clean(reason(err)))}).WithHint(hint)
	}
	return (&fault.Error{Kind: kind, Op: op, Err: errors.New("the CA refused: " + words(p))}).WithHint(hint)
}

func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it did not answer in time"
	}
	if errors.Is(err, errMany) {
		return errMany.Error()
	}
	return err.Error()
}

// wait remembers a rate limit or an overload.
func (s *session) wait(op, name string, again time.Time, p proto.Problem) error {
	now := s.c.Now()
	if again.IsZero() {
		again = now.Add(unsaid)
	}
	s.mu.Lock()
	s.pauses.set(name, again, now)
	s.pauses.set("", earlier(again, now.Add(shared)), now)
	s.mu.Unlock()
	text := "the CA has too much to do for us until " + again.UTC().Format(time.RFC3339)
	if p.Detail != "" {
		text += ": " + words(p)
	}
	return fault.New(fault.Later, op, text).WithHint(waitHint)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// judge says what can be done about a problem (RFC 8555 6.7).
func judge(p proto.Problem) (fault.Kind, string) {
	switch p.Type {
	case "", proto.ProblemTypeServerInternal, proto.ProblemTypeBadNonce, proto.ProblemTypeOrderNotReady:
		return fault.Later, "Check that the CA's directory can be reached; it is asked again."
	case proto.ProblemTypeConnection, proto.ProblemTypeDNS, proto.ProblemTypeTLS, proto.ProblemTypeIncorrectResponse, proto.ProblemTypeUnauthorized:
		return fault.Denied, "Check that the name points here, and that the CA reaches our listener on port 80, or finds the TXT record."
	case proto.ProblemTypeCAA:
		return fault.Denied, "Let the domain's CAA record name this CA."
	case proto.ProblemTypeRejectedIdentifier, proto.ProblemTypeUnsupportedIdentifier:
		return fault.Never, "This CA certifies no such name: use another name or another CA."
	case proto.ProblemTypeBadPublicKey, proto.ProblemTypeBadCSR, proto.ProblemTypeBadSignatureAlgorithm:
		return fault.Never, "This CA takes no such key: make one of another algorithm."
	case proto.ProblemTypeExternalAccountRequired:
		return fault.Denied, "Give the external account binding of this CA."
	case proto.ProblemTypeUserActionRequired:
		return fault.Denied, "Look at the CA's terms of service, and agree to them anew."
	}
	return fault.Denied, "Read what the CA says, and look at its documentation of that problem."
}

// words are what the CA says, for people.
func words(p proto.Problem) string {
	text := p.Detail
	for _, sub := range p.Subproblems {
		text += "; " + sub.Detail
	}
	if text == "" {
		text = p.Title
	}
	return clean(strings.TrimPrefix(p.Type, proto.ProblemTypeNamespace) + ": " + text)
}

// clean makes a stranger's text fit to be shown on one line.
func clean(text string) string {
	if len(text) > 4*maxText {
		text = text[:4*maxText]
	}
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > maxText {
		text = string(runes[:maxText]) + "…"
	}
	return text
}
