package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// longestSocket is below what the kernel takes of a socket's path (108 bytes
// with its end, unix(7)).
const longestSocket = 100

// shortPath is a path of a socket that the kernel takes: itself, or one that
// leads through the folder held open. The folder is nil for itself, and is to
// stay open as long as the path is used.
func shortPath(path string) (string, *os.File, error) {
	if len(path) <= longestSocket {
		return path, nil, nil
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fault.Wrap(fault.Invalid, "socket", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)), folder, nil
}

// listenSocket makes the keeper's socket. One that is left of a keeper that
// was killed goes; one where somebody answers is an error. Who may ask is not
// told by the file's mode but by the kernel, who knows the peer: the group may
// connect, and without a grant it is refused.
func listenSocket(path string) (*net.UnixListener, *os.File, error) {
	short, folder, err := shortPath(path)
	if err != nil {
		return nil, nil, err
	}
	l, err := bindSocket(path, short)
	if err != nil {
		if folder != nil {
			folder.Close()
		}
		return nil, nil, err
	}
	return l, folder, nil
}

func bindSocket(path, short string) (*net.UnixListener, error) {
	if c, err := net.DialTimeout("unix", short, time.Second); err == nil {
		c.Close()
		return nil, fault.New(fault.Conflict, "", "somebody answers on "+path).WithHint("Stop that keeper, or name another socket in " + keeperConfigName + ".")
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fault.New(fault.Conflict, "", path+" is there and is no socket").WithHint("Name another socket in " + keeperConfigName + ".")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Invalid, "socket", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "cannot make the socket "+path+": "+err.Error()).
			WithHint("Make its folder, writable for the keeper's user, or name another socket in " + keeperConfigName + ".")
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fault.Wrap(fault.Invalid, "socket", err)
	}
	return l, nil
}

// lockWait is how long a child waits for the keeper before it to be gone: that
// one notices the end of its gateway and finishes its acts.
const lockWait = 20 * time.Second

// lockKeeper keeps two keepers from one folder. The lock goes with the
// process, however that ends. It is waited for, up to the given time.
func lockKeeper(ctx context.Context, dir string, wait time.Duration) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "lock", err)
	}
	end := time.Now().Add(wait)
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			f.Close()
			return nil, fault.New(fault.Conflict, "", "another keeper keeps "+dir).
				WithHint("Stop it first, or name another folder with --data.")
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond): // flock tells nobody when it is free
		}
	}
}
