package main

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// lockFolder keeps two gateways from serving the same folder. The lock goes
// with the process, however that ends.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "lock", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.New(fault.Conflict, "", "another gateway is serving "+dir).
			WithHint("Stop it first, or name another folder with --data.")
	}
	return func() { f.Close() }, nil
}
