package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// memory is a KEK of the test with an id of its own.
func memory(t testing.TB, id string) KEK {
	t.Helper()
	l, err := newLocal("test", id, NewSecret(bytes.Repeat([]byte(id[:1]), kekBytes)))
	if err != nil {
		t.Fatal(err)
	}
	return fileKEK{l}
}

func somewhere() Place {
	return Place{
		Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: "smtp-auth", Kind: Password, Epoch: 3,
		Binding: Binding{Host: "mx.acme.example", Port: 25, ServerName: "mx.acme.example", CA: "aa", Pin: "bb", EntraTenant: "t", App: "a"},
	}
}

// changes are every field of a place, each changed alone.
func changes() map[string]func(*Place, string) {
	return map[string]func(*Place, string){
		"region":       func(p *Place, s string) { p.Region += s },
		"tenant":       func(p *Place, s string) { p.Tenant += s },
		"connection":   func(p *Place, s string) { p.Connection += s },
		"purpose":      func(p *Place, s string) { p.Purpose += s },
		"kind":         func(p *Place, s string) { p.Kind += Kind(s) },
		"epoch":        func(p *Place, s string) { p.Epoch += uint64(len(s)) },
		"host":         func(p *Place, s string) { p.Binding.Host += s },
		"port":         func(p *Place, s string) { p.Binding.Port += uint16(len(s)) },
		"server name":  func(p *Place, s string) { p.Binding.ServerName += s },
		"ca":           func(p *Place, s string) { p.Binding.CA += s },
		"pin":          func(p *Place, s string) { p.Binding.Pin += s },
		"entra tenant": func(p *Place, s string) { p.Binding.EntraTenant += s },
		"app":          func(p *Place, s string) { p.Binding.App += s },
	}
}

func TestOpensOnlyAtItsPlace(t *testing.T) {
	kek := memory(t, "one")
	k, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		p := somewhere()
		p.Connection = rapid.StringN(0, 20, 40).Draw(r, "connection")
		p.Binding.Host = rapid.StringN(0, 20, 40).Draw(r, "host")
		p.Epoch = rapid.Uint64Max(1<<40).Draw(r, "epoch")
		secret := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(r, "secret")
		blob, err := k.Seal(p, NewSecret(secret))
		if err != nil {
			r.Fatal(err)
		}
		got, err := k.Open(p, blob)
		if err != nil || !bytes.Equal(got.Bytes(), secret) {
			r.Fatalf("at its own place: %v", err)
		}
		extra := rapid.StringN(1, 5, 20).Draw(r, "extra")
		for name, change := range changes() {
			other := p
			change(&other, extra)
			if other == p {
				r.Fatalf("%s was not changed", name)
			}
			if _, err := k.Open(other, blob); !fault.Is(err, fault.Denied) {
				r.Fatalf("opened with another %s: %v", name, err)
			}
			if _, err := (&DataKey{region: other.Region, tenant: other.Tenant, aead: k.aead}).Open(other, blob); !fault.Is(err, fault.Denied) {
				r.Fatalf("the cipher itself opened with another %s: %v", name, err)
			}
		}
	})
	again, err := OpenDataKey(t.Context(), kek, "us", "acme", w)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := k.Seal(somewhere(), NewSecret([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(somewhere(), blob); err != nil || string(got.Bytes()) != "x" {
		t.Errorf("after unwrapping: %v", err)
	}
}

// TestPlacesAreUnambiguous moves bytes over the border of two fields: the
// encodings must differ.
func TestPlacesAreUnambiguous(t *testing.T) {
	a := Place{Region: "us", Tenant: "ab", Connection: "c", Purpose: "p", Kind: Token}
	b := Place{Region: "us", Tenant: "a", Connection: "bc", Purpose: "p", Kind: Token}
	if bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two places have one encoding")
	}
	if bytes.Equal(somewhere().Bytes(), Wrapped{Region: "us", Tenant: "acme"}.associated()) {
		t.Error("a place looks like a data key")
	}
}

func TestDataKeyOfAnother(t *testing.T) {
	kek := memory(t, "one")
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	stolen := w
	stolen.Tenant = "other"
	abroad := w
	abroad.Region = "uk"
	cut := w
	cut.Blob = w.Blob[:5]
	for name, got := range map[string]error{
		"row of another tenant":      errOf(OpenDataKey(t.Context(), kek, "us", "other", w)),
		"row renamed to the tenant":  errOf(OpenDataKey(t.Context(), kek, "us", "other", stolen)),
		"row renamed to the region":  errOf(OpenDataKey(t.Context(), kek, "uk", "acme", abroad)),
		"cut blob":                   errOf(OpenDataKey(t.Context(), kek, "us", "acme", cut)),
		"KEK of another key, one id": errOf(OpenDataKey(t.Context(), fileKEK{&local{"one", memory(t, "two").(fileKEK).aead}}, "us", "acme", w)),
	} {
		if !fault.Is(got, fault.Denied) || fault.HintOf(got) == "" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := errOf(OpenDataKey(t.Context(), memory(t, "two"), "us", "acme", w)); !fault.Is(err, fault.Conflict) {
		t.Errorf("another KEK: %v", err)
	}
}

func errOf(_ *DataKey, err error) error { return err }

func TestRewrapLeavesWhatIsBelow(t *testing.T) {
	from, to := memory(t, "one"), memory(t, "two")
	k, w, err := NewDataKey(t.Context(), from, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := k.Seal(somewhere(), NewSecret([]byte("a password")))
	if err != nil {
		t.Fatal(err)
	}
	next, err := Rewrap(t.Context(), from, to, w)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Rewrap(t.Context(), from, to, next); err != nil || !bytes.Equal(again.Blob, next.Blob) {
		t.Errorf("a second time: %v", err)
	}
	if err := errOf(OpenDataKey(t.Context(), from, "us", "acme", next)); err == nil {
		t.Error("the old KEK still opens it")
	}
	k2, err := OpenDataKey(t.Context(), to, "us", "acme", next)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k2.Open(somewhere(), blob); err != nil || string(got.Bytes()) != "a password" {
		t.Errorf("the secret below does not open: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	k, _, err := NewDataKey(t.Context(), memory(t, "one"), "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	nowhere, long := somewhere(), somewhere()
	nowhere.Purpose = ""
	long.Connection = string(make([]byte, maxField+1))
	for name, f := range map[string]func() error{
		"nothing":     func() error { _, err := k.Seal(somewhere(), NewSecret(nil)); return err },
		"too much":    func() error { _, err := k.Seal(somewhere(), NewSecret(make([]byte, maxPlain+1))); return err },
		"no purpose":  func() error { _, err := k.Seal(nowhere, NewSecret([]byte("x"))); return err },
		"a long name": func() error { _, err := k.Open(long, []byte("x")); return err },
	} {
		if err := f(); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret([]byte("hunter2"))
	inside := struct{ Password Secret }{s}
	j, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	shown := string(j)
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		shown += fmt.Sprintf(f+f, s, inside)
	}
	for _, leak := range []string{"hunter2", "104", "68756e"} {
		if bytes.Contains([]byte(shown), []byte(leak)) {
			t.Errorf("%q is in %s", leak, shown)
		}
	}
	b := s.Bytes()
	s.Wipe()
	if !bytes.Equal(b, make([]byte, 7)) {
		t.Error("not wiped")
	}
}

// FuzzOpen has keys of its own in each process: a worker of the fuzzer must not
// open what another has made.
func FuzzOpen(f *testing.F) {
	key := make([]byte, kekBytes)
	rand.Read(key)
	l, err := newLocal("test", "one", NewSecret(key))
	if err != nil {
		f.Fatal(err)
	}
	kek := fileKEK{l}
	k, w, err := NewDataKey(f.Context(), kek, "us", "acme")
	if err != nil {
		f.Fatal(err)
	}
	blob, err := k.Seal(somewhere(), NewSecret([]byte("x")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add(w.Blob)
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := k.Open(somewhere(), b); err == nil && !bytes.Equal(b, blob) {
			t.Errorf("opened a foreign blob as %q", got.Bytes())
		}
		row := w
		row.Blob = b
		if _, err := OpenDataKey(t.Context(), kek, "us", "acme", row); err == nil && !bytes.Equal(b, w.Blob) {
			t.Error("opened a foreign data key")
		}
	})
}
