package keeper

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

const (
	importDir  = "import"
	importHalf = 30 * time.Second // one file may be there before the other
	importHelp = "Put a chain and its key in PEM into the keeper's folder as import/<host>.crt and import/<host>.key, both of mode 0600."
)

// importHost takes a pair of files in: the key is sealed, an entry says so, and
// the files are gone. A pair that cannot be used stays, with an alarm.
func (k *Keeper) importHost(ctx context.Context, host string) error {
	base := filepath.Join(k.c.Dir, importDir, host)
	cert, key, err := readPair(base)
	defer clear(key)
	if fault.Is(err, fault.Missing) {
		return k.half(base, host)
	}
	if err != nil {
		k.alarm(alarmImport, "", "the certificate of "+host+" was not imported: "+fault.Sentence(err))
		return nil
	}
	pair, algorithm, err := checkPair(host, cert, key, k.now())
	if err != nil {
		if !young(base, k.c.Now()) {
			k.alarm(alarmImport, "", "the certificate of "+host+" was not imported: "+fault.Sentence(err))
		}
		return nil
	}
	if err := k.takeIn(ctx, host, pair, algorithm); err != nil {
		return err
	}
	if err := shred(base); err != nil {
		k.alarm(alarmImport, "", "the certificate of "+host+" is in use, but its files could not be removed: "+err.Error())
	}
	return nil
}

// takeIn makes the pair the host's identity. One that is there already was
// taken in before a crash, and only its files are left.
func (k *Keeper) takeIn(ctx context.Context, host string, pair *tls.Certificate, a keys.Algorithm) error {
	at := hostSeat(host)
	defer k.places.lock(at.tenant, at.connection)()
	_, err := k.row(ctx, selectByCertificate, sumOf(pair.Leaf.Raw))
	if !fault.Is(err, fault.Missing) {
		return err
	}
	r := k.newHost(host, ownIssuer, a)
	return k.own(ctx, ownAct{name: "import-certificate", connection: host, purpose: r.purpose, subject: r.id + " " + sumOf(pair.Leaf.Raw)}, func(ctx context.Context) error {
		der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			return fault.Wrap(fault.Internal, "keeper.Import", err)
		}
		secret := seal.NewSecret(der)
		defer secret.Wipe()
		if err := k.sealHost(ctx, r, secret); err != nil {
			return err
		}
		return k.addHost(ctx, r, pair.Certificate, pair.Leaf)
	})
}

// readPair reads both files; kind missing when one or both are not there.
func readPair(base string) (cert, key []byte, err error) {
	if cert, err = readBounded(base + ".crt"); err != nil {
		return nil, nil, err
	}
	key, err = readPrivate(base + ".key")
	return cert, key, err
}

func readBounded(path string) ([]byte, error) {
	const op = "keeper.ReadFile"
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Missing, op, filepath.Base(path)+" is not there")
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return nil, fault.New(fault.Invalid, op, filepath.Base(path)+" is no small file").WithHint(importHelp)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	raw, err := os.ReadFile(path)
	return raw, fault.Wrap(fault.Internal, op, err)
}

// half tells of one file that has waited for the other too long.
func (k *Keeper) half(base, host string) error {
	_, noCert := os.Stat(base + ".crt")
	_, noKey := os.Stat(base + ".key")
	if (noCert == nil) != (noKey == nil) && !young(base, k.c.Now()) {
		k.alarm(alarmImport, "", "of the certificate and the key of "+host+" one is not there")
	}
	return nil
}

// young reports whether a file of the pair was written just now: somebody may
// be at it.
func young(base string, now time.Time) bool {
	for _, end := range []string{".crt", ".key"} {
		if info, err := os.Stat(base + end); err == nil && now.Sub(info.ModTime()).Abs() < importHalf {
			return true
		}
	}
	return false
}

// checkPair takes a chain for the host name and the key that belongs to it.
func checkPair(host string, cert, key []byte, now time.Time) (*tls.Certificate, keys.Algorithm, error) {
	const op = "keeper.Import"
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // its text names blocks, never what is in them
		return nil, "", (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint(importHelp)
	}
	algorithm, ok := serverAlgorithm(pair.Leaf.PublicKey)
	reason := ""
	switch {
	case pair.Leaf.VerifyHostname(host) != nil:
		reason = "the certificate is not of " + host
	case !now.Before(pair.Leaf.NotAfter):
		reason = "the certificate has ended"
	case !ok:
		reason = "the key is neither P-256 nor RSA of 2048 bits or more"
	case len(chainText(pair.Certificate)) > maxChain:
		reason = "the chain is too long"
	}
	if reason != "" {
		return nil, "", fault.New(fault.Invalid, op, reason).WithHint(importHelp)
	}
	return &pair, algorithm, nil
}

// serverAlgorithm is the kind of a server's key, if it is one that sign uses.
func serverAlgorithm(pub crypto.PublicKey) (keys.Algorithm, bool) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return keys.P256, pub.Curve == elliptic.P256()
	case *rsa.PublicKey:
		n := pub.N.BitLen()
		return keys.Algorithm("rsa-" + strconv.Itoa(n)), n >= 2048
	}
	return "", false
}

// shred removes a pair; the key is written over first, which is worth what the
// disk makes of it.
func shred(base string) error {
	err := overwrite(base + ".key")
	return errors.Join(err, os.Remove(base+".key"), os.Remove(base+".crt"), syncDir(filepath.Dir(base)))
}

func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, info.Size()))
	}
	return errors.Join(err, f.Sync(), f.Close())
}
