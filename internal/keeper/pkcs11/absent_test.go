//go:build !cgo

package pkcs11

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func TestAbsent(t *testing.T) {
	m := &Modules{}
	_, driver := m.OpenDriver(Config{})
	_, kek := m.OpenKEK("us", Config{})
	for _, err := range []error{driver, kek, m.CreateKEK(t.Context(), "us", Config{})} {
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "built without PKCS#11") || !strings.Contains(fault.HintOf(err), "make build-pkcs11") {
			t.Errorf("%v: %s", err, fault.HintOf(err))
		}
	}
}
