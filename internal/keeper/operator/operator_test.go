package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// memory keeps nonces.
type memory map[[16]byte]bool

func (m memory) Spend(_ context.Context, n [16]byte, _ time.Time) error {
	if m[n] {
		return fault.New(fault.Conflict, "test", "the order was carried out already")
	}
	m[n] = true
	return nil
}

func now() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }

func newKey(t testing.TB, name string) *Key {
	t.Helper()
	k, err := NewKey(filepath.Join(t.TempDir(), "operator.key"), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// panel is a verifier with three keys of two people.
type panel struct {
	*Verifier
	ann, ann2, bob, eve *Key
	spent               memory
}

func newPanel(t testing.TB) panel {
	t.Helper()
	p := panel{ann: newKey(t, "ann"), ann2: newKey(t, "ann"), bob: newKey(t, "bob"), eve: newKey(t, "eve"), spent: memory{}}
	v, err := NewVerifier(Config{
		Region: "us", Operators: []Public{p.ann.Public(), p.ann2.Public(), p.bob.Public()}, Nonces: p.spent, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Verifier = v
	return p
}

func order(act string) Order {
	return New(act, "us", "acme/mailbox", map[string]string{"tenants": "1", "host": "mx.acme.example"}, now().Add(time.Hour))
}

func sign(t testing.TB, o Order, keys ...*Key) []byte {
	t.Helper()
	raw, err := Sign(o, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys[1:] {
		if raw, err = Cosign(raw, k, func(seen Order) bool { return bytes.Equal(seen.Bytes(), o.Bytes()) }); err != nil {
			t.Fatal(err)
		}
	}
	return raw
}

func TestVerify(t *testing.T) {
	p := newPanel(t)
	raw := sign(t, order(ChangeBinding), p.ann)
	v, err := p.Verify(t.Context(), raw)
	if err != nil || v.Order().Parameters["host"] != "mx.acme.example" || fmt.Sprint(v.Signers()) != "[ann]" {
		t.Fatalf("%+v %v", v, err)
	}
	if _, err := p.Verify(t.Context(), raw); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second time: %v", err)
	}
	v, err = p.Verify(t.Context(), sign(t, order(LiftBreaker), p.bob, p.ann))
	if err != nil || fmt.Sprint(v.Signers()) != "[ann bob]" {
		t.Errorf("%v %v", v.Signers(), err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	p := newPanel(t)
	with := func(o Order, change func(*Order)) Order { change(&o); return o }
	many := order(ChangeBinding)
	many.Parameters["tenants"] = "11"
	for name, raw := range map[string][]byte{
		"one signer of two":        sign(t, order(LiftBreaker), p.ann),
		"one person with two keys": sign(t, order(LiftBreaker), p.ann, p.ann2),
		"many tenants by one":      sign(t, many, p.ann),
		"tenants not said":         sign(t, with(order(ChangeBinding), func(o *Order) { o.Parameters = nil }), p.ann),
		"a stranger":               sign(t, order(ChangeBinding), p.eve),
		"a stranger besides":       sign(t, order(ChangeBinding), p.ann, p.eve),
		"another region":           sign(t, with(order(ChangeBinding), func(o *Order) { o.Region = "uk" }), p.ann),
		"over":                     sign(t, with(order(ChangeBinding), func(o *Order) { o.NotAfter = now() }), p.ann),
		"too far ahead":            sign(t, with(order(ChangeBinding), func(o *Order) { o.NotAfter = now().Add(25 * time.Hour) }), p.ann),
		"an act without a rule":    sign(t, order("sign-bytes"), p.ann, p.bob),
	} {
		if _, err := p.Verify(t.Context(), raw); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(p.spent) != 0 {
		t.Error("a refused order was spent")
	}
}

// TestEveryFieldIsSigned moves a signature onto an order that differs in one
// field.
func TestEveryFieldIsSigned(t *testing.T) {
	p := newPanel(t)
	o := order(ChangeBinding)
	var s signed
	if err := json.Unmarshal(sign(t, o, p.ann), &s); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Order){
		"act":       func(o *Order) { o.Act = RotateKEK },
		"subject":   func(o *Order) { o.Subject = "other/mailbox" },
		"parameter": func(o *Order) { o.Parameters = map[string]string{"tenants": "1", "host": "mx.evil.example"} },
		"one more":  func(o *Order) { o.Parameters = map[string]string{"tenants": "1", "host": "mx.acme.example", "x": ""} },
		"nonce":     func(o *Order) { o.Nonce[0]++ },
		"end":       func(o *Order) { o.NotAfter = o.NotAfter.Add(time.Second) },
	} {
		other := o
		change(&other)
		raw, err := json.Marshal(signed{Order: other.Bytes(), Signatures: s.Signatures})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Verify(t.Context(), raw); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCosign(t *testing.T) {
	p := newPanel(t)
	raw := sign(t, order(Thaw), p.ann)
	if _, err := Cosign(raw, p.ann, func(Order) bool { return true }); !fault.Is(err, fault.Conflict) {
		t.Errorf("twice: %v", err)
	}
	if _, err := Cosign(raw, p.bob, func(Order) bool { return false }); !fault.Is(err, fault.Denied) {
		t.Errorf("not agreed: %v", err)
	}
	long := order(Thaw)
	long.Subject = strings.Repeat("a", maxText+1)
	if _, err := Sign(long, p.ann); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operator.key")
	k, err := NewKey(path, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKey(path, "ann"); !fault.Is(err, fault.Conflict) {
		t.Errorf("over another: %v", err)
	}
	again, err := ReadKey(path)
	if err != nil || again.Public().ID() != k.Public().ID() || again.name != "ann" {
		t.Errorf("%v", err)
	}
	if s := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(s, "private") || strings.Contains(s, "0x") {
		t.Errorf("prints %s", s)
	}
	pub, err := ParsePublic(k.Public().String())
	if err != nil || pub.ID() != k.Public().ID() {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); !fault.Is(err, fault.Denied) {
		t.Errorf("read by a group: %v", err)
	}
	if _, err := NewKey(filepath.Join(t.TempDir(), "k"), "two words"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a name of two words: %v", err)
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	p := newPanel(t)
	for name, c := range map[string]Config{
		"no region": {Nonces: memory{}},
		"no nonces": {Region: "us"},
		"twice":     {Region: "us", Nonces: memory{}, Operators: []Public{p.ann.Public(), p.ann.Public()}},
		"damaged":   {Region: "us", Nonces: memory{}, Operators: []Public{{Name: "x", Key: []byte{1}}}},
	} {
		if _, err := NewVerifier(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzOrder: what is read as an order is written as the same bytes.
func FuzzOrder(f *testing.F) {
	k := newKey(f, "ann")
	f.Add(order(Thaw).Bytes())
	f.Add(sign(f, order(Thaw), k))
	f.Add([]byte(orderLabel))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := parseOrder(b); err == nil && !bytes.Equal(o.Bytes(), b) {
			t.Errorf("%x is read as %+v", b, o)
		}
		if s, o, err := parse(b); err == nil && !bytes.Equal(o.Bytes(), s.Order) {
			t.Errorf("%q is read as %+v", b, o)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add([]byte(`{"format":"sallyport operator key 1","name":"ann","seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`), "sallyport-operator ann AAAA")
	f.Fuzz(func(t *testing.T, b []byte, line string) {
		if k, err := parseKey(b); err == nil && !isName(k.name) {
			t.Errorf("took %q", b)
		}
		if p, err := ParsePublic(line); err == nil {
			if again, err := ParsePublic(p.String()); err != nil || again.ID() != p.ID() {
				t.Errorf("%q is not read back", line)
			}
		}
	})
}
