//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// rig is a token with a driver and a KEK on it.
type rig struct {
	*testpeer.SoftHSM
	modules *Modules
	config  Config
	driver  keys.Driver
	kek     seal.KEK
	sealer  *seal.DataKey
}

// shelf is a KEK that wraps by doing nothing: handles are sealed under it when
// the token's own KEK is not what is tested.
type shelf struct{}

func (shelf) ID() string                 { return "test" }
func (shelf) Describe() seal.Description { return seal.Description{} }
func (shelf) Wrap(_ context.Context, s seal.Secret, _ []byte) ([]byte, error) {
	return append([]byte(nil), s.Bytes()...), nil
}
func (shelf) Unwrap(_ context.Context, b, _ []byte) (seal.Secret, error) {
	return seal.NewSecret(append([]byte(nil), b...)), nil
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{SoftHSM: testpeer.StartSoftHSM(t), modules: &Modules{}}
	t.Cleanup(r.modules.Close)
	r.config = Config{Module: r.Module, Token: r.Label, PINFile: r.PINFile, Sessions: 8, Pause: 10 * time.Millisecond}
	var err error
	if r.driver, err = r.modules.OpenDriver(r.config); err != nil {
		t.Fatal(err)
	}
	if err = r.modules.CreateKEK(t.Context(), "us", r.config); err != nil {
		t.Fatal(err)
	}
	if r.kek, err = r.modules.OpenKEK("us", r.config); err != nil {
		t.Fatal(err)
	}
	if r.sealer, _, err = seal.NewDataKey(t.Context(), shelf{}, "us", "acme"); err != nil {
		t.Fatal(err)
	}
	return r
}

func place() seal.Place {
	return seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: "smtp-client", Kind: seal.PrivateKey, Epoch: 1}
}

// key makes a key and loads it.
func (r *rig) key(t testing.TB, a keys.Algorithm) (keys.Made, crypto.Signer) {
	t.Helper()
	made, err := r.driver.Make(t.Context(), r.sealer, place(), a)
	if err != nil {
		t.Fatal(err)
	}
	k, err := r.driver.Load(t.Context(), r.sealer, place(), made.Handle)
	if err != nil {
		t.Fatal(err)
	}
	return made, k
}

// inToken does something with the library itself, on the link in use.
func (r *rig) inToken(t testing.TB, f func(*link) error) {
	t.Helper()
	_, err := call(t.Context(), r.driver.(*driver).t, "test", 5*time.Second, func(l *link) (struct{}, error) { return struct{}{}, f(l) })
	if err != nil {
		t.Error(err)
	}
}

// soon waits until something holds.
func soon(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
