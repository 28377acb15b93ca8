package keeper

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

const mx = "mx.us.gate.example"

// pair writes a certificate for a host name to the import folder, old enough
// not to be half written.
func (r *rig) pair(t testing.TB, host string, k crypto.Signer, from, to time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), NotBefore: from, NotAfter: to, DNSNames: []string{host}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, mx+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	r.put(t, mx+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) put(t testing.TB, name string, text []byte) {
	t.Helper()
	path := filepath.Join(r.dir, importDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) left(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, importDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// shownBy is the certificate that a host shows.
func (r *rig) shownBy(t testing.TB, host string) *x509.Certificate {
	t.Helper()
	got, err := r.HostCertificate(t.Context(), someone(), act.Host{Context: act.Context{Region: "us", Purpose: "smtp-server", Trace: "t"}, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(got.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHosts(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		self := r.shownBy(t, mx)
		if err := self.CheckSignature(self.SignatureAlgorithm, self.RawTBSCertificate, self.Signature); err != nil || self.VerifyHostname(mx) != nil || time.Until(self.NotAfter) < 9*365*day {
			t.Errorf("%v %+v", err, self.Subject)
		}
		if _, err := r.HostCertificate(t.Context(), someone(), act.Host{Host: "mx.uk.gate.example"}); !fault.Is(err, fault.Missing) {
			t.Errorf("%v", err)
		}
		now := time.Now()
		for _, k := range []crypto.Signer{rsaKey(t, 2048), p256(t)} {
			c := r.pair(t, mx, k, now.Add(-time.Hour), now.Add(time.Hour))
			if err := r.tendHosts(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := r.shownBy(t, "MX.us.gate.example"); !got.Equal(c) {
				t.Errorf("%+v is shown", got.Subject)
			}
			if left := r.left(t); len(left) != 0 {
				t.Errorf("%v is still there", left)
			}
			r.serves(t, mx, c)
		}
		// The same once more, as after a crash before the files were removed.
		_, err := r.row(t.Context(), selectByCertificate, sumOf(r.shownBy(t, mx).Raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.tendHosts(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := r.list(t.Context(), act.IdentityQuery{Context: act.Context{Connection: mx}})
		if err != nil || len(all.Identities) != 3 {
			t.Fatalf("%+v %v", all, err)
		}
		states := map[act.IdentityState]int{}
		for _, i := range all.Identities {
			states[i.State]++
		}
		if states[act.Active] != 1 || states[act.Retiring] != 1 || states[act.Retired] != 1 {
			t.Errorf("%v", states)
		}
		r.loadable(t)
	})
}

// serves shakes hands with the keeper's key of a host.
func (r *rig) serves(t testing.TB, host string, c *x509.Certificate) {
	t.Helper()
	gate := r.remote(t)
	cert, err := gate.ServerCertificate(host)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if _, err := meet(t, &tls.Config{RootCAs: pool, ServerName: host, MaxVersion: version}, &tls.Config{Certificates: []tls.Certificate{*cert}}); err != nil {
			t.Errorf("%x: %v", version, err)
		}
	}
}

// A crash between the row and the removal of the files imports nothing twice.
func TestImportAgain(t *testing.T) {
	r := newRig(t)
	k, now := p256(t), time.Now()
	c := r.pair(t, mx, k, now.Add(-time.Hour), now.Add(time.Hour))
	crt, err := os.ReadFile(filepath.Join(r.dir, importDir, mx+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(r.dir, importDir, mx+".key"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.put(t, mx+".crt", crt)
		r.put(t, mx+".key", key)
		if err := r.tendHosts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := r.left(t); len(left) != 0 || !r.shownBy(t, mx).Equal(c) {
			t.Errorf("%v is still there", left)
		}
	}
	all, err := r.list(t.Context(), act.IdentityQuery{Context: act.Context{Connection: mx}})
	if err != nil || len(all.Identities) != 2 {
		t.Errorf("%d identities: %v", len(all.Identities), err)
	}
	names := map[string]int{}
	for _, e := range r.entries(t) {
		names[e.Act+" "+e.Outcome]++
	}
	if names["import-certificate begun"] != 1 || names["import-certificate done"] != 1 || names["self-sign done"] != 1 {
		t.Errorf("%v", names)
	}
}

// The key's bytes are gone from the file before its name is.
func TestOverwrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := overwrite(path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q %v", got, err)
	}
}

// What cannot be used stays where it is, with an alarm; what is half there and
// young is waited for.
func TestImportRefuses(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		put    func(t *testing.T, r *rig)
		alarms int
	}{
		"another host":   {func(t *testing.T, r *rig) { r.pair(t, "other.example", p256(t), now, now.Add(time.Hour)) }, 1},
		"ended":          {func(t *testing.T, r *rig) { r.pair(t, mx, p256(t), now.Add(-time.Hour), now.Add(-time.Minute)) }, 1},
		"a short key":    {func(t *testing.T, r *rig) { r.pair(t, mx, rsaKey(t, 1024), now, now.Add(time.Hour)) }, 1},
		"no PEM":         {func(t *testing.T, r *rig) { r.put(t, mx+".crt", []byte("x")); r.put(t, mx+".key", []byte("x")) }, 1},
		"no certificate": {func(t *testing.T, r *rig) { r.put(t, mx+".key", []byte("x")) }, 1},
		"a key for all": {func(t *testing.T, r *rig) {
			r.pair(t, mx, p256(t), now, now.Add(time.Hour))
			if err := os.Chmod(filepath.Join(r.dir, importDir, mx+".key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"a link": {func(t *testing.T, r *rig) {
			r.pair(t, mx, p256(t), now, now.Add(time.Hour))
			key := filepath.Join(r.dir, importDir, mx+".key")
			if err := os.Rename(key, filepath.Join(r.dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(r.dir, "elsewhere"), key); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"another key": {func(t *testing.T, r *rig) {
			r.pair(t, mx, p256(t), now, now.Add(time.Hour))
			key, err := os.ReadFile(filepath.Join(r.dir, importDir, mx+".key"))
			if err != nil {
				t.Fatal(err)
			}
			r.pair(t, mx, p256(t), now, now.Add(time.Hour))
			r.put(t, mx+".key", key)
		}, 1},
		"half, young": {func(t *testing.T, r *rig) {
			r.put(t, mx+".key", []byte("x"))
			if err := os.Chtimes(filepath.Join(r.dir, importDir, mx+".key"), now, now); err != nil {
				t.Fatal(err)
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GODEBUG", "rsa1024min=0")
			r := newRig(t)
			self := r.shownBy(t, mx)
			c.put(t, r)
			before := r.left(t)
			if err := r.tendHosts(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := r.alarms.recent()
			if len(got) != c.alarms || c.alarms > 0 && got[0].Kind != alarmImport || len(r.left(t)) != len(before) || !r.shownBy(t, mx).Equal(self) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A host whose key was seen shows another certificate at once, and the old one
// signs no more. Whoever asks for its certificate then learns of those before,
// of which there may be sessions.
func TestCompromisedHost(t *testing.T) {
	r := newRig(t)
	gate := r.remote(t)
	var stolen []string
	told := func(host string) []string {
		t.Helper()
		got, err := r.HostCertificate(t.Context(), someone(), act.Host{Context: act.Context{Region: "us", Purpose: "smtp-server", Trace: "t"}, Host: host})
		if err != nil {
			t.Fatal(err)
		}
		return got.Compromised
	}
	for range 2 {
		if got := told(strings.ToUpper(mx)); !slices.Equal(got, stolen) {
			t.Errorf("told of %q, want %q", got, stolen)
		}
		old := r.shownBy(t, mx)
		all, err := gate.ListIdentities(t.Context(), "", mx)
		if err != nil {
			t.Fatal(err)
		}
		one := all[len(all)-1]
		if one.SHA256 != sumOf(old.Raw) {
			t.Fatalf("%+v", one)
		}
		if got, err := gate.MoveIdentity(t.Context(), one, act.Compromised); err != nil || got.State != act.Compromised || got.Tenant != "" {
			t.Fatalf("%+v %v", got, err)
		}
		stolen = append([]string{one.SHA256}, stolen...)
		if next := r.shownBy(t, mx); next.Equal(old) {
			t.Error("the same is shown")
		}
		_, err = r.HandshakeAsHost(t.Context(), someone(), act.HostHandshake{Context: act.Context{Region: "us", Purpose: "smtp-server", Trace: "t"},
			Host: mx, Identity: one.SHA256, Scheme: 0x0403, Transcript: make([]byte, 32)})
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%v", err)
		}
	}
	if _, err := r.MoveIdentity(t.Context(), someone(), act.Move{Context: act.Context{Region: "us", Connection: "", Purpose: "smtp-server", Trace: "t"}, Identity: "x", To: act.Retired}); !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
	// One that was only replaced is none of them.
	all, err := gate.ListIdentities(t.Context(), "", mx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.MoveIdentity(t.Context(), all[len(all)-1], act.Retired); err != nil {
		t.Fatal(err)
	}
	if got := told(mx); !slices.Equal(got, stolen) {
		t.Errorf("told of %q, want %q", got, stolen)
	}
	for _, host := range r.c.Hosts {
		if got := told(host); host != mx && len(got) > 0 {
			t.Errorf("%s was told of %q", host, got)
		}
	}
}

// When the newest has ended and the one before has not, that one is shown.
func TestNewestUnended(t *testing.T) {
	at := &clock{now: time.Now()}
	r := newRig(t, func(c *Config) { c.Now = at.Now })
	self := r.shownBy(t, mx)
	c := r.pair(t, mx, p256(t), at.Now().Add(-time.Hour), at.Now().Add(time.Hour))
	if err := r.tendHosts(t.Context()); err != nil || !r.shownBy(t, mx).Equal(c) {
		t.Fatal(err)
	}
	at.set(at.Now().Add(2 * time.Hour))
	for range 2 {
		if err := r.tendHosts(t.Context()); err != nil || !r.shownBy(t, mx).Equal(self) {
			t.Fatal(err)
		}
	}
}
