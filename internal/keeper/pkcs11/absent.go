//go:build !cgo

package pkcs11

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// Modules are the PKCS#11 modules of a process; this binary has none.
type Modules struct{}

// OpenDriver answers that this binary knows no PKCS#11.
func (*Modules) OpenDriver(Config) (keys.Driver, error) { return nil, absent("pkcs11.OpenDriver") }

// OpenKEK answers that this binary knows no PKCS#11.
func (*Modules) OpenKEK(string, Config) (seal.KEK, error) { return nil, absent("pkcs11.OpenKEK") }

// CreateKEK answers that this binary knows no PKCS#11.
func (*Modules) CreateKEK(context.Context, string, Config) error { return absent("pkcs11.CreateKEK") }

// Close has nothing to close.
func (*Modules) Close() {}

func absent(op string) error {
	return fault.New(fault.Invalid, op, "this binary was built without PKCS#11").
		WithHint("Build one with: make build-pkcs11 (CGO_ENABLED=1, and a C compiler).")
}
