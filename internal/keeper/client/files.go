package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// The directories below that of Files.
const (
	tlsDir        = "tls"
	identitiesDir = "identities"
	secretsDir    = "secrets"
)

// unfinished begins the name of a file that is being written.
const unfinished = ".new-"

// Files is custody by files below a directory: tls/<host>.crt and .key,
// identities/<tenant>/<connection>.crt and .key, secrets/<tenant>/<connection>
// (mode 0600). Certificates are read again when their file changes, looked at
// no more than once a second. It is safe for concurrent use.
type Files struct {
	// OnError is told when a changed certificate can't be used and the one
	// before it stays, or when one in use is gone; once for each change. Set
	// it before the first use; it must not call back.
	OnError func(host string, err error)

	dir string
	now func() time.Time

	mu       sync.Mutex
	pairs    map[string]*pair // by path without extension
	listed   map[string]bool  // hosts with a file in tls
	listedAt time.Time
}

// ExistingFiles is custody by what is in a directory already: a gateway from
// before the keeper has made it, and nothing is made anew.
func ExistingFiles(dir string) *Files {
	return &Files{dir: dir, now: time.Now, pairs: make(map[string]*pair)}
}

// Sweep removes what a kill has left half written, and returns how many files
// that were. It is for the start, when nobody else writes: such a file may
// hold a key or a password that nothing would ever remove.
func (f *Files) Sweep() (removed int, err error) {
	for _, pattern := range []string{tlsDir, identitiesDir, identitiesDir + "/*", secretsDir, secretsDir + "/*"} {
		left, err := filepath.Glob(filepath.Join(quoteGlob(f.dir), pattern, unfinished+"*"))
		if err != nil {
			return removed, fault.Wrap(fault.Internal, "client.Sweep", err)
		}
		for _, path := range left {
			if err := removeSynced(path); err != nil {
				return removed, fault.Wrap(fault.Internal, "client.Sweep", err)
			}
			removed++
		}
	}
	return removed, nil
}

// quoteGlob makes a path stand for itself in a pattern.
func quoteGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func removeSynced(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ServerCertificate implements [Signers]. The name may come from any client
// (SNI): one that has no file costs neither memory nor, most of the time, a
// look at the disk.
func (f *Files) ServerCertificate(host string) (*tls.Certificate, error) {
	const op = "client.ServerCertificate"
	host = strings.ToLower(host)
	if !safeName(host) {
		return nil, fault.New(fault.Missing, op, "no certificate for a name like this")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pairs[f.tlsPath(host)] == nil && !f.isListed(host) {
		return nil, fault.New(fault.Missing, op, "no certificate for "+host)
	}
	return f.current(op, host, f.tlsPath(host))
}

// ClientCertificate implements [Signers].
func (f *Files) ClientCertificate(_ context.Context, tenant, connection string) (*tls.Certificate, error) {
	const op = "client.ClientCertificate"
	if err := checkNames(op, tenant, connection); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current(op, tenant+"/"+connection, filepath.Join(f.dir, identitiesDir, tenant, connection))
}

func (f *Files) tlsPath(host string) string { return filepath.Join(f.dir, tlsDir, host) }

// isListed reports a host that has a file, by a listing of the directory that
// is at most a second old.
func (f *Files) isListed(host string) bool {
	if now := f.now(); f.listed == nil || now.Sub(f.listedAt) >= time.Second {
		f.listed, f.listedAt = make(map[string]bool), now
		for _, h := range f.hosts() {
			f.listed[h] = true
		}
	}
	return f.listed[host]
}

// hosts lists the names that have a certificate or a key, sorted.
func (f *Files) hosts() []string {
	entries, err := os.ReadDir(filepath.Join(f.dir, tlsDir))
	if err != nil {
		return nil
	}
	var hosts []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); ext == certExt || ext == keyExt {
			if host := strings.TrimSuffix(name, ext); safeName(host) {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// safeName reports a name that may become a file's: letters, digits, dots,
// hyphens and underscores, the first of them no dot. So it is no path, no
// parent, and no temporary file of ours.
func safeName(s string) bool {
	if s == "" || len(s) > 240 || s[0] == '.' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func checkNames(op string, names ...string) error {
	for _, n := range names {
		if !safeName(n) {
			return fault.New(fault.Invalid, op, "not a name of a tenant, connection or host").
				WithHint("Use letters, digits, dots, hyphens and underscores.")
		}
	}
	return nil
}

// writeFile replaces a file as a whole, readable by its owner only, and
// returns when it is on disk. The directory is made when it is missing.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, unfinished+"*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes one directory and has its name on disk.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Left counts what is still in files: server pairs, passwords, and identities.
func (f *Files) Left() (pairs, secrets, identities int) {
	count := func(dir, ext string) int {
		list, err := filepath.Glob(filepath.Join(quoteGlob(f.dir), dir, "*"+ext))
		if err != nil {
			return 0 // only a bad pattern is an error
		}
		return len(list)
	}
	return count(tlsDir, keyExt), count(secretsDir+"/*", ""), count(identitiesDir+"/*", keyExt)
}
