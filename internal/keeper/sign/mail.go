package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Field is a header field as it stands in the message: what follows the colon,
// folded or not, without the last CRLF.
type Field struct{ Name, Value string }

// Domain is the identity that signs: it gives d= and s=.
type Domain struct{ Name, Selector string }

// Mail is what a message signature covers.
type Mail struct {
	// Fields in the order in which they are signed: of several with one name
	// the lowest comes first (RFC 6376 5.4.2).
	Fields []Field
	// Absent are names signed once more than they occur, so that nobody can
	// add such a field (RFC 6376 5.4).
	Absent   []string
	BodyHash [32]byte // SHA-256 of the relaxed body
	Time     time.Time
	Expire   time.Time // zero: no x=
}

const (
	maxFields   = 200
	maxHeader   = 256 << 10 // of all the fields signed
	headerHint  = "Give the header fields as they stand in the message."
	domainHint  = "Look at the identity's domain and selector."
	maxInstance = 50 // RFC 8617 4.2.1
)

// SignDKIM makes the value of a DKIM-Signature field (RFC 6376 3.5).
func SignDKIM(k Key, d Domain, m Mail) (Field, error) {
	const op = "sign.SignDKIM"
	if err := k.may(op, DKIM); err != nil {
		return Field{}, err
	}
	return k.message(op, "DKIM-Signature", "v=1", d, m)
}

// message is what DKIM-Signature and ARC-Message-Signature share (RFC 8617
// 4.1.2): the fields, then the signature's own field with an empty b=.
func (k Key) message(op, name, first string, d Domain, m Mail) (Field, error) {
	alg, err := k.algorithm(op)
	if err == nil {
		err = d.check(op)
	}
	if err == nil {
		err = m.check(op)
	}
	if err != nil {
		return Field{}, err
	}
	var names []string
	var input strings.Builder
	for _, f := range m.Fields {
		names = append(names, strings.ToLower(f.Name))
		input.WriteString(relaxed(f) + "\r\n")
	}
	for _, n := range m.Absent {
		names = append(names, strings.ToLower(n)) // signed as nothing
	}
	tags := []string{
		first, "a=" + alg, "c=relaxed/relaxed", "d=" + d.Name, "s=" + d.Selector,
		"t=" + strconv.FormatInt(m.Time.Unix(), 10),
	}
	if !m.Expire.IsZero() {
		tags = append(tags, "x="+strconv.FormatInt(m.Expire.Unix(), 10))
	}
	value := " " + strings.Join(tags, "; ") +
		";\r\n\th=" + strings.Join(names, ":\r\n\t ") +
		";\r\n\tbh=" + base64.StdEncoding.EncodeToString(m.BodyHash[:]) + ";\r\n\tb="
	own := Field{Name: name, Value: value}
	input.WriteString(relaxed(own)) // no CRLF after it: RFC 6376 3.7
	sig, err := k.mail(op, input.String())
	own.Value += sig
	return own, err
}

// Set is one ARC set (RFC 8617 3.10).
type Set struct{ Results, Message, Seal Field }

// Chain is what an ARC set is made from.
type Chain struct {
	Validation string // cv=: none, pass or fail
	Results    string // authserv-id and results, as in Authentication-Results
	Previous   []Set  // sets 1 to n, in order
	Mail       Mail
}

// SealARC makes the next ARC set of a message (RFC 8617 5.1).
func SealARC(k Key, d Domain, c Chain) (Set, error) {
	const op = "sign.SealARC"
	if err := k.may(op, ARC); err != nil {
		return Set{}, err
	}
	if err := c.check(op); err != nil {
		return Set{}, err
	}
	i := "i=" + strconv.Itoa(len(c.Previous)+1)
	s := Set{Results: Field{Name: "ARC-Authentication-Results", Value: " " + i + "; " + c.Results}}
	if err := checkField(op, s.Results); err != nil {
		return Set{}, err
	}
	var err error
	if s.Message, err = k.message(op, "ARC-Message-Signature", i, d, c.Mail); err != nil {
		return Set{}, err
	}
	alg, err := k.algorithm(op)
	if err != nil {
		return Set{}, err
	}
	s.Seal = Field{Name: "ARC-Seal", Value: " " + strings.Join([]string{
		i, "a=" + alg, "t=" + strconv.FormatInt(c.Mail.Time.Unix(), 10), "cv=" + c.Validation, "d=" + d.Name, "s=" + d.Selector,
	}, "; ") + ";\r\n\tb="}
	sig, err := k.mail(op, c.covered(s))
	s.Seal.Value += sig
	return s, err
}

// covered is what an ARC-Seal signs: every set in order, each as results,
// message signature, seal (RFC 8617 5.1.1); after a failed chain only its own
// (5.1.2).
func (c Chain) covered(own Set) string {
	var b strings.Builder
	sets := c.Previous
	if c.Validation == "fail" {
		sets = nil
	}
	for _, s := range sets {
		b.WriteString(relaxed(s.Results) + "\r\n" + relaxed(s.Message) + "\r\n" + relaxed(s.Seal) + "\r\n")
	}
	b.WriteString(relaxed(own.Results) + "\r\n" + relaxed(own.Message) + "\r\n" + relaxed(own.Seal))
	return b.String()
}

func (c Chain) check(op string) error {
	const hint = "Give the sets as the message has them, lowest instance first."
	first := len(c.Previous) == 0
	switch {
	case c.Validation != "none" && c.Validation != "pass" && c.Validation != "fail",
		first != (c.Validation == "none"):
		return invalid(op, "cv is none for the first set, then pass or fail", hint)
	case len(c.Previous) >= maxInstance:
		return invalid(op, "a chain has at most 50 sets", hint)
	case c.Results == "":
		return invalid(op, "a set needs authentication results", hint)
	}
	for n, s := range c.Previous {
		i := "i=" + strconv.Itoa(n+1)
		for name, f := range map[string]Field{"arc-authentication-results": s.Results, "arc-message-signature": s.Message, "arc-seal": s.Seal} {
			if err := checkField(op, f); err != nil {
				return err
			}
			if !strings.EqualFold(f.Name, name) || !hasTag(f.Value, i) {
				return invalid(op, "set "+strconv.Itoa(n+1)+" of the chain is not complete", hint)
			}
		}
	}
	for _, f := range c.Mail.Fields {
		// RFC 8617 4.1.2: not the results of this chain, not a seal.
		if n := strings.ToLower(f.Name); n == "arc-seal" || n == "arc-authentication-results" || n == "arc-message-signature" {
			return invalid(op, "an ARC message signature does not cover ARC fields", headerHint)
		}
	}
	return nil
}

// hasTag looks for a tag among those of a value.
func hasTag(value, tag string) bool {
	for t := range strings.SplitSeq(value, ";") {
		if strings.Join(strings.Fields(t), "") == tag {
			return true
		}
	}
	return false
}

func (m Mail) check(op string) error {
	if len(m.Fields)+len(m.Absent) > maxFields {
		return invalid(op, "a signature covers at most 200 fields", headerHint)
	}
	size, from := 0, false
	for _, f := range m.Fields {
		if err := checkField(op, f); err != nil {
			return err
		}
		size += len(f.Name) + len(f.Value)
		from = from || strings.EqualFold(f.Name, "from")
	}
	if !from {
		return invalid(op, "a signature covers From (RFC 6376 5.4)", headerHint)
	}
	if size > maxHeader {
		return invalid(op, "the header fields to be signed have more than 256 KB", headerHint)
	}
	for _, n := range m.Absent {
		if !isFieldName(n) {
			return invalid(op, "a header field has an impossible name", headerHint)
		}
	}
	if m.Time.Unix() <= 0 || !m.Expire.IsZero() && !m.Expire.After(m.Time) {
		return invalid(op, "a signature expires after it was made", headerHint)
	}
	return nil
}

// checkField takes a field that is one field: a line end in it is followed by
// white space.
func checkField(op string, f Field) error {
	flat := unfold(f.Value)
	if !isFieldName(f.Name) || strings.ContainsAny(flat, "\r\n\x00") || len(f.Value) > maxHeader {
		return invalid(op, "a header field is not a field as RFC 5322 2.2 has it", headerHint)
	}
	return nil
}

func isFieldName(s string) bool {
	return s != "" && len(s) <= 200 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 127 || c == ':' || c == ';' })
}

func unfold(v string) string {
	return strings.NewReplacer("\r\n ", " ", "\r\n\t", " ").Replace(v)
}

// relaxed is a field in relaxed canonical form without the CRLF (RFC 6376
// 3.4.2): the name in lower case, unfolded, white space runs as one space.
func relaxed(f Field) string {
	words := strings.FieldsFunc(unfold(f.Value), func(r rune) bool { return r == ' ' || r == '\t' })
	return strings.ToLower(f.Name) + ":" + strings.Join(words, " ")
}

func (d Domain) check(op string) error {
	for _, s := range []string{d.Name, d.Selector} {
		if !IsDomain(s) {
			return invalid(op, "the domain or selector is no domain name", domainHint)
		}
	}
	return nil
}

// IsDomain takes letters, digits and hyphens between dots, and the underscore
// that selectors may have.
func IsDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// algorithm is a= of the key (RFC 6376 3.3, RFC 8463 3).
func (k Key) algorithm(op string) (string, error) {
	switch k.Signer.Public().(type) {
	case *rsa.PublicKey:
		return "rsa-sha256", nil
	case ed25519.PublicKey:
		return "ed25519-sha256", nil
	}
	return "", invalid(op, "mail is signed by RSA or Ed25519", "Issue this identity with such a key.")
}

// mail signs the input and folds the signature. Ed25519 signs the SHA-256 of
// the input, itself unhashed (RFC 8463 3).
func (k Key) mail(op, input string) (string, error) {
	opts := crypto.SignerOpts(crypto.SHA256)
	if _, ok := k.Signer.Public().(ed25519.PublicKey); ok {
		opts = crypto.Hash(0)
	}
	sig, err := k.digest(op, []byte(input), opts)
	if err != nil {
		return "", fault.Wrap(fault.Internal, op, err)
	}
	text := base64.StdEncoding.EncodeToString(sig)
	var lines []string
	for len(text) > 72 {
		lines, text = append(lines, text[:72]), text[72:]
	}
	return strings.Join(append(lines, text), "\r\n\t "), nil
}
