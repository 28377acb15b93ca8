package keeper

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// rootKeyFile holds the root's key, PKCS#8 in PEM. It is needed when the online
// issuer is made or renewed, and may be anywhere else for the rest of the time.
const rootKeyFile = "root.key"

const maxFile = 64 << 10

// readRootKey reads the root's key; kind missing when it is elsewhere.
func readRootKey(dir string) (crypto.Signer, error) {
	const op = "keeper.RootKey"
	raw, err := readPrivate(filepath.Join(dir, rootKeyFile))
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fault.New(fault.Invalid, op, rootKeyFile+" is no PEM").WithHint("Put the file there as the keeper has made it.")
	}
	defer clear(b.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	s, ok := k.(crypto.Signer)
	if err != nil || !ok { // the parser's text may quote what it read
		return nil, fault.New(fault.Invalid, op, rootKeyFile+" holds no private key").WithHint("Put the file there as the keeper has made it.")
	}
	return s, nil
}

// readPrivate reads a file that only its owner may read, of bounded size, and
// follows no link.
func readPrivate(path string) ([]byte, error) {
	const op = "keeper.ReadFile"
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Missing, op, filepath.Base(path)+" is not there")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > maxFile {
		return nil, fault.New(fault.Denied, op, filepath.Base(path)+" is no small file that only its owner may read").
			WithHint("Give it the mode 0600; if others could read it, make a new key.")
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile))
	return raw, fault.Wrap(fault.Internal, op, err)
}

// writeRootKey makes the root's key, on disk before it is used.
func writeRootKey(dir string) (crypto.Signer, error) {
	const op = "keeper.RootKey"
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return k, fault.Wrap(fault.Internal, op, writePrivate(dir, rootKeyFile, text))
}

// writePrivate writes a file that is there as a whole or not at all.
func writePrivate(dir, name string, text []byte) error {
	f, err := os.CreateTemp(dir, name+".*") // its mode is 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
