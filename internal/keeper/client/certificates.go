package client

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// The extensions of a certificate chain and its key, both PEM.
const (
	certExt = ".crt"
	keyExt  = ".key"
)

// pair is a certificate with its key as it was last read.
type pair struct {
	checkedAt time.Time
	cert, key fs.FileInfo      // of the files that were read
	usable    *tls.Certificate // the last one that could be read
	err       error            // why the files of now can't be used
}

// CertificateInfo describes the certificate of one of our host names.
type CertificateInfo struct {
	Host       string
	NotAfter   time.Time // of the one in use, where the file's can't be read
	SelfSigned bool
	Err        error // the file's certificate can't be used
}

// ServerCertificates lists the server certificates as they lie on disk now.
func (f *Files) ServerCertificates() []CertificateInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []CertificateInfo
	for _, host := range f.hosts() {
		info := CertificateInfo{Host: host}
		path := f.tlsPath(host)
		c, err := loadPair(path)
		if info.Err = err; err != nil && f.pairs[path] != nil {
			c = f.pairs[path].usable
		}
		if c != nil {
			info.NotAfter = c.Leaf.NotAfter
			info.SelfSigned = isSelfSigned(c.Leaf)
		}
		all = append(all, info)
	}
	return all
}

// WriteServerCertificate stores the certificate chain and key (PEM) of a host
// name. They must belong together and be for that name. In the moment between
// the two files a reader keeps what it has.
func (f *Files) WriteServerCertificate(host string, certPEM, keyPEM []byte) error {
	const op = "client.WriteServerCertificate"
	host = strings.ToLower(host)
	if err := checkNames(op, host); err != nil {
		return err
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err == nil {
		err = c.Leaf.VerifyHostname(host)
	}
	if err != nil {
		return (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).
			WithHint("Give a PEM chain for this host name, its own certificate first, and the key that belongs to it.")
	}
	if err := writeFile(f.tlsPath(host)+keyExt, keyPEM); err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	if err := writeFile(f.tlsPath(host)+certExt, certPEM); err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	f.lookAgain(f.tlsPath(host))
	return nil
}

// lookAgain makes what was written count at once, not within a second.
func (f *Files) lookAgain(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = nil
	if p := f.pairs[path]; p != nil {
		p.checkedAt = time.Time{}
	}
}

// current returns the certificate at a path, read again when a file changed.
// The caller holds the lock.
func (f *Files) current(op, name, path string) (*tls.Certificate, error) {
	p := f.pairs[path]
	if p == nil {
		p = new(pair)
	}
	if now := f.now(); p.checkedAt.IsZero() || now.Sub(p.checkedAt) >= time.Second {
		p.checkedAt = now
		f.refresh(name, path, p)
	}
	if errors.Is(p.err, fs.ErrNotExist) && p.usable == nil {
		delete(f.pairs, path)
		return nil, fault.New(fault.Missing, op, "no certificate for "+name)
	}
	f.pairs[path] = p
	if p.usable == nil {
		return nil, (&fault.Error{Kind: fault.Internal, Op: op, Err: p.err}).
			WithHint("Put a certificate and the key that belongs to it at " + path + certExt + " and " + keyExt + ".")
	}
	return p.usable, nil
}

// refresh reads the files if they are others than before, or could not be
// used then: half of a pair may have been written when it was looked at.
func (f *Files) refresh(name, path string, p *pair) {
	cert, errCert := os.Stat(path + certExt)
	key, errKey := os.Stat(path + keyExt)
	if errors.Is(errCert, fs.ErrNotExist) && errors.Is(errKey, fs.ErrNotExist) {
		f.withdraw(name, p, errCert)
		return
	}
	same := sameFile(cert, p.cert) && sameFile(key, p.key)
	if same && p.err == nil {
		return
	}
	c, err := loadPair(path)
	if err == nil {
		*p = pair{checkedAt: p.checkedAt, cert: cert, key: key, usable: c}
		return
	}
	told := same && p.err != nil && p.err.Error() == err.Error()
	p.cert, p.key, p.err = cert, key, err
	if !told {
		f.report(name, err)
	}
}

// withdraw forgets a certificate whose two files were both taken away, which
// is how an operator ends its use.
func (f *Files) withdraw(name string, p *pair, err error) {
	if p.usable != nil {
		f.report(name, err)
	}
	*p = pair{checkedAt: p.checkedAt, err: err}
}

func (f *Files) report(name string, err error) {
	if f.OnError != nil {
		f.OnError(name, err)
	}
}

// sameFile compares what a replacement or a rewriting changes.
func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// loadPair reads a pair and hides the key's bytes. Its error is text alone: a
// file that is missing from a pair is a fault, not an absence.
func loadPair(path string) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(path+certExt, path+keyExt)
	if err != nil {
		return nil, errors.New(filepath.Base(path) + ": " + err.Error())
	}
	s, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New(filepath.Base(path) + ": the key cannot sign")
	}
	c.PrivateKey = signer{s}
	return &c, nil
}

// signer signs and does nothing else: no caller can take the key out of it by
// a type assertion.
type signer struct {
	key crypto.Signer
}

func (s signer) Public() crypto.PublicKey { return s.key.Public() }

func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(rand, digest, opts)
}

// String and GoString keep the key out of logs that print whatever they get.
func (s signer) String() string   { return "signer" }
func (s signer) GoString() string { return "signer" }

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
