package operator

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"
)

// The acts that are ordered.
const (
	ChangeBinding = "change-binding"
	OpenCampaign  = "open-campaign"
	LiftBreaker   = "lift-breaker"
	Thaw          = "thaw"
	RotateKEK     = "rotate-kek"
	Restore       = "restore"
	PlantDecoy    = "plant-decoy"
	ReleaseDecoy  = "release-decoy"
)

// Order is what operators sign.
type Order struct {
	Act        string
	Region     string
	Subject    string // what it is of: a tenant's connection, a KEK
	Parameters map[string]string
	Nonce      [16]byte
	NotAfter   time.Time // to the second
}

// Bounds of what is parsed.
const (
	maxText       = 4 << 10
	maxParameters = 64
	maxOrder      = 64 << 10
	maxSignatures = 16
)

// orderLabel begins what is signed, so that an operator's key signs nothing
// else by accident.
const orderLabel = "sallyport operator order 1\x00"

// New makes an order with a fresh nonce.
func New(act, region, subject string, parameters map[string]string, notAfter time.Time) Order {
	o := Order{Act: act, Region: region, Subject: subject, Parameters: parameters, NotAfter: notAfter.Truncate(time.Second).UTC()}
	rand.Read(o.Nonce[:])
	return o
}

// Bytes is the canonical encoding: the label, act, region and subject after
// their lengths (4 bytes, big-endian), the number of parameters and each name
// and value in order of names, the nonce, the end as seconds since 1970.
func (o Order) Bytes() []byte {
	b := []byte(orderLabel)
	for _, s := range []string{o.Act, o.Region, o.Subject} {
		b = appendText(b, s)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(o.Parameters)))
	for _, name := range slices.Sorted(maps.Keys(o.Parameters)) {
		b = appendText(appendText(b, name), o.Parameters[name])
	}
	b = append(b, o.Nonce[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(o.NotAfter.Unix()))
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// reader takes an encoding apart; after a failure it gives nothing more.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	got := r.b[:n]
	r.b = r.b[n:]
	return got
}

func (r *reader) number() int {
	b := r.take(4)
	if r.bad {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxText {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) text() string { return string(r.take(r.number())) }

// parseOrder reads a canonical encoding, and nothing but one: each order has
// one encoding, and each encoding is read as one order.
func parseOrder(b []byte) (Order, error) {
	bad := errors.New("the order is not in its canonical form")
	if len(b) > maxOrder {
		return Order{}, bad
	}
	r := &reader{b: b}
	if string(r.take(len(orderLabel))) != orderLabel {
		return Order{}, bad
	}
	o := Order{Act: r.text(), Region: r.text(), Subject: r.text()}
	n := r.number()
	if n > maxParameters {
		return Order{}, bad
	}
	last := ""
	for i := range n {
		name := r.text()
		if i > 0 && name <= last {
			return Order{}, bad
		}
		if o.Parameters == nil {
			o.Parameters = map[string]string{}
		}
		last = name
		o.Parameters[name] = r.text()
	}
	copy(o.Nonce[:], r.take(len(o.Nonce)))
	end := r.take(8)
	if r.bad || len(r.b) != 0 {
		return Order{}, bad
	}
	seconds := binary.BigEndian.Uint64(end)
	if seconds > 1<<40 { // past any calendar
		return Order{}, bad
	}
	o.NotAfter = time.Unix(int64(seconds), 0).UTC()
	return o, nil
}

// signature is one operator's.
type signature struct {
	Key       string `json:"key"` // id of the public key
	Signature []byte `json:"signature"`
}

// signed is an order on its way: the canonical bytes and who signed them.
type signed struct {
	Order      []byte      `json:"order"`
	Signatures []signature `json:"signatures"`
}

// Sign begins an order with a first signature.
func Sign(o Order, k *Key) ([]byte, error) {
	b := o.Bytes()
	if _, err := parseOrder(b); err != nil {
		return nil, invalid("operator.Sign", err, "Shorten the texts of the order, or give fewer parameters.")
	}
	return json.Marshal(signed{Order: b, Signatures: []signature{k.sign(b)}})
}

// Cosign adds another operator's signature. agree is shown what the order says:
// he signs that, not what he was told.
func Cosign(raw []byte, k *Key, agree func(Order) bool) ([]byte, error) {
	const op = "operator.Cosign"
	s, o, err := parse(raw)
	if err != nil {
		return nil, invalid(op, err, "Ask for the order as the first operator's sallyport wrote it.")
	}
	if slices.ContainsFunc(s.Signatures, func(have signature) bool { return have.Key == k.Public().ID() }) {
		return nil, conflict(op, "this key has signed the order already", "Let another operator sign.")
	}
	if !agree(o) {
		return nil, denied(op, "the order was not agreed to", "Make another order.")
	}
	s.Signatures = append(s.Signatures, k.sign(s.Order))
	return json.Marshal(s)
}

// Look tells what an order says and the ids of the keys that are said to have
// signed it. Nothing is verified: it is for showing an order, not for obeying it.
func Look(raw []byte) (Order, []string, error) {
	s, o, err := parse(raw)
	if err != nil {
		return Order{}, nil, invalid("operator.Look", err, "Give the file that `sallyport order make` wrote.")
	}
	keys := make([]string, len(s.Signatures))
	for i, g := range s.Signatures {
		keys[i] = g.Key
	}
	return o, keys, nil
}

// Read tells what a signed order says. No signature is verified: it is nothing
// to act upon.
func Read(raw []byte) (Order, error) {
	_, o, err := parse(raw)
	if err != nil {
		return Order{}, invalid("operator.Read", err, "Hand in the order as sallyport wrote it.")
	}
	return o, nil
}

// parse reads a signed order; no signature is verified.
func parse(raw []byte) (signed, Order, error) {
	var s signed
	if len(raw) > 2*maxOrder {
		return s, Order{}, errors.New("the order is too long")
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, Order{}, errors.New("the order is no JSON of ours: " + err.Error())
	}
	if len(s.Signatures) == 0 || len(s.Signatures) > maxSignatures {
		return s, Order{}, errors.New("an order has 1 to 16 signatures")
	}
	o, err := parseOrder(s.Order)
	return s, o, err
}
