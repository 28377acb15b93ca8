//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

func TestKEK(t *testing.T) {
	r := newRig(t)
	_, w, err := seal.NewDataKey(t.Context(), r.kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenDataKey(t.Context(), r.kek, "us", "acme", w); err != nil {
		t.Error(err)
	}
	blob, err := r.kek.Wrap(t.Context(), seal.NewSecret([]byte("a data key")), []byte("acme"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.kek.Wrap(t.Context(), seal.NewSecret([]byte("a data key")), []byte("acme"))
	if err != nil || string(again[:13]) == string(blob[:13]) {
		t.Errorf("a nonce came twice: %v", err)
	}
	if got, err := r.kek.Unwrap(t.Context(), blob, []byte("acme")); err != nil || string(got.Bytes()) != "a data key" {
		t.Errorf("%s: %v", got.Bytes(), err)
	}
	r.refusesAll(t, blob)
	if d := r.kek.Describe(); !d.OnHost || d.Driver != "pkcs11" || d.ID != r.kek.ID() || !strings.Contains(d.Detail, "SoftHSM") {
		t.Errorf("%+v", d)
	}
	if err := r.modules.CreateKEK(t.Context(), "us", r.config); !fault.Is(err, fault.Conflict) {
		t.Errorf("made twice: %v", err)
	}
	uk, err := r.modules.OpenKEK("uk", r.config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uk.Wrap(t.Context(), seal.NewSecret([]byte("x")), nil); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
		t.Errorf("a region without a key: %v", err)
	}
}

// refusesAll tries what does not belong together. A refusal costs no login: a
// stranger's blob is no loss of the token.
func (r *rig) refusesAll(t *testing.T, blob []byte) {
	t.Helper()
	before := r.generation()
	for i := range blob {
		bad := append([]byte(nil), blob...)
		bad[i] ^= 1
		if _, err := r.kek.Unwrap(t.Context(), bad, []byte("acme")); !fault.Is(err, fault.Denied) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, c := range []struct {
		blob []byte
		ad   string
	}{{blob, "other"}, {blob, ""}, {blob[:20], "acme"}, {nil, "acme"}, {make([]byte, maxBlob+1), "acme"}} {
		if _, err := r.kek.Unwrap(t.Context(), c.blob, []byte(c.ad)); !fault.Is(err, fault.Denied) {
			t.Errorf("%d bytes for %s: %v", len(c.blob), c.ad, err)
		}
	}
	if r.generation() != before {
		t.Error("it logged in again")
	}
}

func (r *rig) generation() *generation {
	m := r.driver.(*driver).t.module
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live
}

// A KEK that could be read out, or that has a double, is none.
func TestUnfitKEK(t *testing.T) {
	r := newRig(t)
	r.inToken(t, func(l *link) error {
		for _, c := range []struct {
			label string
			set   map[crypto11.AttributeType]any
			bits  int
		}{
			{"extractable", map[crypto11.AttributeType]any{crypto11.CkaExtractable: true}, 256},
			{"readable", map[crypto11.AttributeType]any{crypto11.CkaSensitive: false}, 256},
			{"short", nil, 128},
			{"double", nil, 256}, {"double", nil, 256},
		} {
			set, err := crypto11.NewAttributeSetWithIDAndLabel([]byte(c.label), []byte(c.label))
			if err != nil {
				return err
			}
			for a, v := range c.set {
				if err := set.Set(a, v); err != nil {
					return err
				}
			}
			if _, err := l.GenerateSecretKeyWithAttributes(set, c.bits, crypto11.CipherAES); err != nil {
				return err
			}
		}
		return nil
	})
	for _, label := range []string{"extractable", "readable", "short", "double"} {
		c := r.config
		c.KeyLabel = label
		k, err := r.modules.OpenKEK("us", c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Wrap(t.Context(), seal.NewSecret([]byte("x")), nil); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", label, err)
		}
	}
}

// The token goes and comes back, under load, for driver and KEK alike.
func TestTokenGoneAndBack(t *testing.T) {
	r := newRig(t)
	made, k := r.key(t, keys.P256)
	blob, err := r.kek.Wrap(t.Context(), seal.NewSecret([]byte("a data key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	sign := func() error { _, err := k.Sign(nil, sum[:], crypto.SHA256); return err }
	unwrap := func() error { _, err := r.kek.Unwrap(t.Context(), blob, nil); return err }
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 6 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, err := range []error{sign(), unwrap()} {
					if err != nil && (!fault.Is(err, fault.Later) || fault.HintOf(err) == "") {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 3 {
		r.Away(t)
		soon(t, "nobody noticed", func() bool { return fault.Is(sign(), fault.Later) && fault.Is(unwrap(), fault.Later) })
		if _, err := r.driver.Make(t.Context(), r.sealer, place(), keys.P256); !fault.Is(err, fault.Later) {
			t.Errorf("made while it was away: %v", err)
		}
		if _, err := r.driver.Load(t.Context(), r.sealer, place(), made.Handle); !fault.Is(err, fault.Later) {
			t.Errorf("loaded while it was away: %v", err)
		}
		r.Back(t)
		soon(t, "it is not used again", func() bool { return sign() == nil && unwrap() == nil })
	}
	close(stop)
	load.Wait()
}

// SoftHSM without its files says that there is no such key. That is later, not
// missing, whether the link has found another key before or none.
func TestGoneIsNotMissing(t *testing.T) {
	for _, known := range []bool{true, false} {
		r := newRig(t)
		made, _ := r.key(t, keys.P256)
		other, _ := r.key(t, keys.P256)
		r.inToken(t, func(l *link) error {
			l.mu.Lock()
			clear(l.signers)
			clear(l.kek)
			l.mu.Unlock()
			return nil
		})
		if known {
			if _, err := r.driver.Load(t.Context(), r.sealer, place(), other.Handle); err != nil {
				t.Fatal(err)
			}
		}
		r.Away(t)
		if _, err := r.driver.Load(t.Context(), r.sealer, place(), made.Handle); !fault.Is(err, fault.Later) {
			t.Errorf("known %v: %v", known, err)
		}
		r.Back(t)
		r.modules.Close()
	}
}

// A token that is going may say anything of a key. It is believed when it is
// there and says it twice.
func TestRefusedOnceIsNotRefused(t *testing.T) {
	r := newRig(t)
	r.key(t, keys.P256)
	asked := 0
	refuse := func(times int, and func()) error {
		asked = 0
		_, err := call(t.Context(), r.driver.(*driver).t, "test", 5*time.Second, func(*link) (struct{}, error) {
			if asked++; asked > times {
				return struct{}{}, nil
			}
			and()
			return struct{}{}, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_VALUE_INVALID)
		})
		return err
	}
	if err := refuse(1, func() {}); err != nil {
		t.Errorf("refused once: %v", err)
	}
	if err := refuse(2, func() {}); !fault.Is(err, fault.Invalid) || asked != 2 {
		t.Errorf("refused twice: %v, asked %d times", err, asked)
	}
	if err := refuse(1, func() { r.Away(t) }); !fault.Is(err, fault.Later) {
		t.Errorf("refused while it went: %v", err)
	}
}

// Two tokens of one module: one that can't be opened costs the other nothing
// but a login now and then.
func TestTwoTokens(t *testing.T) {
	r := newRig(t)
	_, k := r.key(t, keys.P256)
	c := r.config
	c.Token, c.Pause = "second", 50*time.Millisecond
	second, err := r.modules.OpenDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	for range 20 {
		if _, err := second.Make(t.Context(), r.sealer, place(), keys.P256); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
			t.Fatal(err)
		}
		if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	// Within its pause it costs not even that.
	c.Token, c.Pause = "third", time.Hour
	third, err := r.modules.OpenDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	var before *generation
	for n := range 5 {
		if _, err := third.Make(t.Context(), r.sealer, place(), keys.P256); !fault.Is(err, fault.Later) {
			t.Fatal(err)
		}
		if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		if n > 0 && r.generation() != before {
			t.Error("a token that is awaited made the others log in again")
		}
		before = r.generation()
	}
	r.AddToken(t, "second")
	soon(t, "the new token is not seen", func() bool {
		_, err := second.Make(t.Context(), r.sealer, place(), keys.P256)
		return err == nil
	})
	if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
}

// A wrong PIN is tried once, until there is another.
func TestWrongPIN(t *testing.T) {
	r := newRig(t)
	r.modules.Close()
	write := func(pin string) {
		if err := os.WriteFile(r.PINFile, []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong-one")
	tk := r.driver.(*driver).t
	for range 3 {
		if _, err := r.driver.Make(t.Context(), r.sealer, place(), keys.P256); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Fatal(err)
		}
		tk.mu.Lock()
		tk.again = time.Time{} // the pause is over
		tk.mu.Unlock()
	}
	tk.mu.Lock()
	if tk.pause != tk.c.Pause {
		t.Errorf("it was tried again: %v", tk.pause)
	}
	tk.mu.Unlock()
	write(r.PIN)
	if _, err := r.driver.Make(t.Context(), r.sealer, place(), keys.P256); err != nil {
		t.Error(err)
	}
}

// A call that hangs in the module keeps nobody.
func TestHang(t *testing.T) {
	r := newRig(t)
	c := r.config
	c.Sessions, c.Timeout = 2, 100*time.Millisecond
	d, err := r.modules.OpenDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	tk := d.(*driver).t
	wake := make(chan struct{})
	for range 3 { // two fill the slots, the third finds none
		start := time.Now()
		_, err := call(t.Context(), tk, "test", c.Timeout, func(*link) (int, error) { <-wake; return 1, nil })
		if !fault.Is(err, fault.Later) || fault.HintOf(err) == "" || time.Since(start) > 5*time.Second {
			t.Errorf("%v", err)
		}
	}
	close(wake)
	soon(t, "it does not go on", func() bool {
		got, err := call(t.Context(), tk, "test", c.Timeout, func(*link) (int, error) { return 2, nil })
		return err == nil && got == 2
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.kek.Wrap(ctx, seal.NewSecret([]byte("x")), nil); !fault.Is(err, fault.Later) {
		t.Errorf("cancelled: %v", err)
	}
}

// What the library does in its despair is an error.
func TestPanics(t *testing.T) {
	r := newRig(t)
	for _, what := range []any{errors.New("an error"), "a text"} {
		_, err := call(t.Context(), r.driver.(*driver).t, "test", time.Second, func(*link) (int, error) { panic(what) })
		if !fault.Is(err, fault.Later) {
			t.Errorf("%v", err)
		}
	}
	r.key(t, keys.P256)
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	module, pin := file("module.so", "", 0o600), file("pin", "1234\n", 0o600)
	for name, c := range map[string]Config{
		"no module":      {Token: "x", PINFile: pin},
		"no token":       {Module: module, PINFile: pin},
		"no PIN":         {Module: module, Token: "x"},
		"absent module":  {Module: filepath.Join(dir, "none.so"), Token: "x", PINFile: pin},
		"absent PIN":     {Module: module, Token: "x", PINFile: filepath.Join(dir, "none")},
		"readable PIN":   {Module: module, Token: "x", PINFile: file("open", "1234", 0o644)},
		"empty PIN":      {Module: module, Token: "x", PINFile: file("empty", "\n", 0o600)},
		"endless PIN":    {Module: module, Token: "x", PINFile: file("long", strings.Repeat("1", 300), 0o600)},
		"a folder's PIN": {Module: module, Token: "x", PINFile: dir},
	} {
		if _, err := (&Modules{}).OpenDriver(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := &Modules{}
	if _, err := m.OpenKEK("", Config{Module: module, Token: "x", PINFile: pin}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no region: %v", err)
	}
	// A file that is no module is a token that is away.
	k, err := m.OpenKEK("us", Config{Module: module, Token: "x", PINFile: pin})
	if err != nil || k.Describe().OnHost {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := k.Wrap(t.Context(), seal.NewSecret([]byte("x")), nil); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("no module: %v", err)
	}
}
