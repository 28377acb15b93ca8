package sim

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Files of a simulator's directory.
const (
	indexFile    = "index.json"    // addresses, and the tenants as they were made
	tenantFolder = "tenants"       // one file for each that has changed since
	mailFile     = "arrivals.json" // one arrival a line
	signInFile   = "signins.json"
	auditFile    = "audits.json"
	actFile      = "acts.json"
)

// disk keeps a simulator's state. A nil *disk keeps nothing.
type disk struct {
	dir      string
	journals map[string]*os.File
}

// index is what a reader of the directory finds the tenants by.
type index struct {
	SMTP, HTTP string
	Tenants    []*tenant
}

// journalled is a row with whose it is.
type journalled[T any] struct {
	Tenant string `json:"t"`
	Row    T      `json:"r"`
}

// load opens the directory, or makes everything anew.
func (s *Sim) load() error {
	if s.cfg.Dir == "" {
		return s.makeAnew()
	}
	if err := os.MkdirAll(filepath.Join(s.cfg.Dir, tenantFolder), 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "sim.Open", err)
	}
	s.disk = &disk{dir: s.cfg.Dir, journals: map[string]*os.File{}}
	_, err := os.Stat(s.disk.path(indexFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = s.makeAnew()
	case err == nil:
		err = s.readBack()
	}
	if err == nil {
		err = s.disk.openJournals()
	}
	return err
}

// makeAnew makes authority, token key and tenants. The index comes last, for
// it says that the rest is there.
func (s *Sim) makeAnew() error {
	var err error
	if s.ca, err = newAuthority(s.cfg.Now()); err != nil {
		return err
	}
	if s.tokens, err = newTokenKey(); err != nil {
		return err
	}
	if err := s.disk.saveKeys(s.ca, s.tokens); err != nil {
		return err
	}
	s.fill()
	return s.disk.saveIndex(s)
}

// fill makes the tenants that are missing.
func (s *Sim) fill() {
	for n := len(s.order) + 1; n <= s.cfg.Tenants; n++ {
		s.adopt(newTenant(n, s.cfg.Now()))
	}
}

// readBack restores the state of an earlier run.
func (s *Sim) readBack() error {
	if err := s.readKeys(); err != nil {
		return err
	}
	ix, err := readIndex(s.disk.dir)
	if err != nil {
		return err
	}
	for _, t := range ix.Tenants {
		s.adopt(t)
	}
	before := len(s.order)
	s.fill()
	if len(s.order) > before {
		if err := s.disk.saveIndex(s); err != nil {
			return err
		}
	}
	err = readJournal(s.disk.path(mailFile), s.arrivals)
	if err == nil {
		err = readJournal(s.disk.path(signInFile), s.signIns)
	}
	if err == nil {
		err = readJournal(s.disk.path(auditFile), s.audits)
	}
	if err == nil {
		err = readJournal(s.disk.path(actFile), s.acts)
	}
	return err
}

// readIndex reads the tenants of a directory as they are now.
func readIndex(dir string) (index, error) {
	var ix index
	if err := readJSON(filepath.Join(dir, indexFile), &ix); err != nil {
		return ix, err
	}
	for i, t := range ix.Tenants {
		var now tenant
		err := readJSON(filepath.Join(dir, tenantFolder, t.ID+".json"), &now)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return ix, err
		}
		ix.Tenants[i] = &now
	}
	return ix, nil
}

// ListDir is List for a directory, whether a simulator runs from it or not.
func ListDir(dir string) ([]Listed, error) {
	ix, err := readIndex(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Missing, "sim.List", "there is no simulator in "+dir).
			WithHint("Start one with `sallyport sim m365 --data DIR`, or name its directory with --data.")
	}
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir}
	out := make([]Listed, 0, len(ix.Tenants))
	for _, t := range ix.Tenants {
		out = append(out, t.listed(ix.SMTP, ix.HTTP, d.caFile()))
	}
	return out, nil
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

// caFile is where the authority's certificate is, "" without a directory.
func (d *disk) caFile() string {
	if d == nil {
		return ""
	}
	path, err := filepath.Abs(d.path("ca.pem"))
	if err != nil {
		return d.path("ca.pem")
	}
	return path
}

func (d *disk) saveIndex(s *Sim) error {
	if d == nil {
		return nil
	}
	ix := index{SMTP: s.smtpAddr, HTTP: s.httpAddr}
	for _, id := range s.order {
		ix.Tenants = append(ix.Tenants, s.tenants[id])
	}
	return writeJSON(d.path(indexFile), ix)
}

// saveTenant keeps one tenant's settings after a change.
func (d *disk) saveTenant(t *tenant) error {
	if d == nil {
		return nil
	}
	return writeJSON(filepath.Join(d.dir, tenantFolder, t.ID+".json"), t)
}

func (d *disk) saveKeys(ca *authority, tokens *rsa.PrivateKey) error {
	if d == nil {
		return nil
	}
	for name, key := range map[string]any{"ca.key": ca.key, "token.key": tokens} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := os.WriteFile(d.path(name), text, 0o600); err != nil {
			return fault.Wrap(fault.Invalid, "sim.Open", err)
		}
	}
	return fault.Wrap(fault.Invalid, "sim.Open", os.WriteFile(d.path("ca.pem"), ca.pem, 0o644))
}

func (s *Sim) readKeys() error {
	caKey, err := readKey[*ecdsa.PrivateKey](s.disk.path("ca.key"))
	if err != nil {
		return err
	}
	certPEM, err := os.ReadFile(s.disk.path("ca.pem"))
	if err != nil {
		return fault.Wrap(fault.Invalid, "sim.Open", err)
	}
	if s.ca, err = readAuthority(certPEM, caKey); err != nil {
		return err
	}
	s.tokens, err = readKey[*rsa.PrivateKey](s.disk.path("token.key"))
	return err
}

func readKey[K any](path string) (K, error) {
	var none K
	text, err := os.ReadFile(path)
	if err != nil {
		return none, fault.Wrap(fault.Invalid, "sim.Open", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return none, fault.New(fault.Invalid, "sim.Open", path+" holds no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, fault.Wrap(fault.Invalid, "sim.Open", err)
	}
	k, ok := key.(K)
	if !ok {
		return none, fault.New(fault.Invalid, "sim.Open", path+" holds another kind of key")
	}
	return k, nil
}

func (d *disk) openJournals() error {
	for _, name := range []string{mailFile, signInFile, auditFile, actFile} {
		f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fault.Wrap(fault.Invalid, "sim.Open", err)
		}
		d.journals[name] = f
	}
	return nil
}

// journal appends one row, in one write: a simulator that is killed leaves
// whole lines but for the last.
func journal[T any](d *disk, name, tenant string, row T) error {
	if d == nil {
		return nil
	}
	line, err := json.Marshal(journalled[T]{tenant, row})
	if err == nil {
		_, err = d.journals[name].Write(append(line, '\n'))
	}
	return err
}

// readJournal reads whole lines; a last one that was cut off did not happen.
func readJournal[T any](path string, into map[string][]T) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, "sim.Open", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var whole int64
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			// What follows the last whole line would spoil the next one.
			return fault.Wrap(fault.Internal, "sim.Open", os.Truncate(path, whole))
		}
		var row journalled[T]
		if err := json.Unmarshal(line, &row); err != nil {
			return fault.Wrap(fault.Invalid, "sim.Open", err)
		}
		whole += int64(len(line))
		into[row.Tenant] = append(into[row.Tenant], row.Row)
	}
}

func (d *disk) close() error {
	if d == nil {
		return nil
	}
	var first error
	for _, f := range d.journals {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func readJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Invalid, "sim.Open", json.Unmarshal(raw, v))
}

// writeJSON puts a whole file in another's place.
func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fault.Wrap(fault.Internal, "sim", err)
	}
	return fault.Wrap(fault.Internal, "sim", os.Rename(path+".new", path))
}
