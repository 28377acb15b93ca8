package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// custody is Files with a clock and an ear.
type custody struct {
	*Files
	clock  time.Time
	errors []string
}

func newCustody(t *testing.T) *custody {
	t.Helper()
	f, err := newFiles(filepath.Join(t.TempDir(), "custody"))
	if err != nil {
		t.Fatal(err)
	}
	c := &custody{Files: f, clock: time.Now()}
	f.now = func() time.Time { return c.clock }
	f.OnError = func(host string, err error) { c.errors = append(c.errors, host+": "+err.Error()) }
	return c
}

// put writes a pair as an operator would, past our own writer.
func (c *custody) put(t *testing.T, path string, cert, key []byte) {
	t.Helper()
	path = filepath.Join(c.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for ext, data := range map[string][]byte{".crt": cert, ".key": key} {
		if data == nil {
			continue
		}
		if err := os.WriteFile(path+ext, data, 0o600); err != nil {
			t.Fatal(err)
		}
		// A clock tick of the file system may be longer than this test.
		c.clock = c.clock.Add(time.Millisecond)
		if err := os.Chtimes(path+ext, c.clock, c.clock); err != nil {
			t.Fatal(err)
		}
	}
}

func selfSigned(t *testing.T, host string) (cert, key []byte) {
	t.Helper()
	cert, key, err := SelfSigned(host, time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func serial(t *testing.T, c *tls.Certificate, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.String()
}

func TestServerCertificate(t *testing.T) {
	c := newCustody(t)
	const host = "mx.us.gate.example"
	if _, err := c.ServerCertificate(host); !fault.Is(err, fault.Missing) {
		t.Fatalf("before there is one: %v", err)
	}
	cert, key := selfSigned(t, host)
	if err := c.WriteServerCertificate("MX.us.gate.example", cert, key); err != nil {
		t.Fatal(err)
	}
	got, err := c.ServerCertificate("MX.US.gate.example")
	first := serial(t, got, err)
	if err := got.Leaf.VerifyHostname(host); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"us.gate.example", "", "../tls/" + host, "a/b", ".", "..", host + ".", "a\x00b", strings.Repeat("a", 300)} {
		if _, err := c.ServerCertificate(name); !fault.Is(err, fault.Missing) {
			t.Errorf("%q: %v", name, err)
		}
	}
	cert, key = selfSigned(t, host)
	c.put(t, "tls/"+host, cert, key)
	got, err = c.ServerCertificate(host)
	if serial(t, got, err) != first {
		t.Error("looked again within the second")
	}
	c.clock = c.clock.Add(time.Second)
	got, err = c.ServerCertificate(host)
	if serial(t, got, err) == first || len(c.errors) != 0 {
		t.Errorf("the new one is not in use, %q", c.errors)
	}
}

func TestBrokenReplacementKeepsTheOld(t *testing.T) {
	c := newCustody(t)
	const host = "mx.us.gate.example"
	cert, key := selfSigned(t, host)
	c.put(t, "tls/"+host, cert, key)
	got, err := c.ServerCertificate(host)
	first := serial(t, got, err)
	newCert, newKey := selfSigned(t, host)
	steps := []struct {
		name      string
		cert, key []byte
		old       bool
		errors    int
	}{
		{"half of a pair", newCert, nil, true, 1},
		{"still half", nil, nil, true, 1},
		{"garbage", []byte("no"), nil, true, 2},
		{"whole", newCert, newKey, false, 2},
	}
	for _, s := range steps {
		c.put(t, "tls/"+host, s.cert, s.key)
		c.clock = c.clock.Add(time.Second)
		got, err := c.ServerCertificate(host)
		if (serial(t, got, err) == first) != s.old || len(c.errors) != s.errors {
			t.Errorf("%s: old one in use: %v, told %q", s.name, serial(t, got, err) == first, c.errors)
		}
	}
}

func TestWithdrawnCertificate(t *testing.T) {
	c := newCustody(t)
	const host = "mx.us.gate.example"
	cert, key := selfSigned(t, host)
	c.put(t, "tls/"+host, cert, key)
	got, err := c.ServerCertificate(host)
	serial(t, got, err)
	if err := os.Remove(c.tlsPath(host) + ".key"); err != nil {
		t.Fatal(err)
	}
	c.clock = c.clock.Add(time.Second)
	got, err = c.ServerCertificate(host)
	serial(t, got, err)
	if err := os.Remove(c.tlsPath(host) + ".crt"); err != nil {
		t.Fatal(err)
	}
	c.clock = c.clock.Add(time.Second)
	if _, err := c.ServerCertificate(host); !fault.Is(err, fault.Missing) || len(c.errors) != 2 || len(c.pairs) != 0 {
		t.Errorf("%v, told %q, %d kept", err, c.errors, len(c.pairs))
	}
}

func TestUnknownNamesCostNoMemory(t *testing.T) {
	c := newCustody(t)
	for i := range 1000 {
		if _, err := c.ServerCertificate(fmt.Sprintf("h%d.example", i)); !fault.Is(err, fault.Missing) {
			t.Fatal(err)
		}
	}
	if len(c.pairs) != 0 || len(c.listed) != 0 {
		t.Errorf("%d pairs, %d names", len(c.pairs), len(c.listed))
	}
}

func TestWriteServerCertificateRefuses(t *testing.T) {
	c := newCustody(t)
	cert, key := selfSigned(t, "mx.us.gate.example")
	_, other := selfSigned(t, "mx.us.gate.example")
	for name, err := range map[string]error{
		"another name":  c.WriteServerCertificate("mx.uk.gate.example", cert, key),
		"another key":   c.WriteServerCertificate("mx.us.gate.example", cert, other),
		"no PEM":        c.WriteServerCertificate("mx.us.gate.example", nil, nil),
		"a path":        c.WriteServerCertificate("../mx", cert, key),
		"a hidden file": c.WriteServerCertificate(".mx", cert, key),
	} {
		if !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := c.ServerCertificates(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestServerCertificates(t *testing.T) {
	c := newCustody(t)
	cert, key := selfSigned(t, "a.example")
	c.put(t, "tls/a.example", cert, key)
	c.put(t, "tls/b.example", []byte("no"), []byte("no"))
	c.put(t, "tls/c.example", cert, nil)
	got := c.ServerCertificates()
	if len(got) != 3 || got[0].Host != "a.example" || !got[0].SelfSigned || got[0].Err != nil || got[1].Err == nil || got[2].Err == nil {
		t.Fatalf("%+v", got)
	}
	if left := time.Until(got[0].NotAfter); left < 23*time.Hour || left > 25*time.Hour {
		t.Errorf("%s", left)
	}
}

func TestKeyStaysInside(t *testing.T) {
	c := newCustody(t)
	cert, key := selfSigned(t, "mx.us.gate.example")
	c.put(t, "identities/acme/mailbox", cert, key)
	got, err := c.ClientCertificate(t.Context(), "acme", "mailbox")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.PrivateKey.(crypto.Signer); !ok {
		t.Error("no signer")
	}
	if _, ok := got.PrivateKey.(*ecdsa.PrivateKey); ok {
		t.Error("the key itself was handed out")
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(form, got.PrivateKey); s != "signer" {
			t.Errorf("%s prints %q", form, s)
		}
	}
	if _, err := c.ClientCertificate(t.Context(), "acme", "none"); !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
	if _, err := c.ClientCertificate(t.Context(), "..", "mailbox"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestHandshake(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := newCustody(t)
		cert, key := selfSigned(t, "mx.us.gate.example")
		if err := c.WriteServerCertificate("mx.us.gate.example", cert, key); err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(cert)
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- tls.Server(server, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return c.ServerCertificate(h.ServerName)
			}}).Handshake()
		}()
		err := tls.Client(client, &tls.Config{ServerName: "mx.us.gate.example", RootCAs: roots, MaxVersion: version}).Handshake()
		if serverErr := <-done; err != nil || serverErr != nil {
			t.Errorf("%x: %v, %v", version, err, serverErr)
		}
		client.Close()
		server.Close()
	}
}

func TestCredentials(t *testing.T) {
	c, ctx := newCustody(t), t.Context()
	use := Use{Tenant: "acme", Connection: "relay", Purpose: "smtp-auth"}
	if _, err := c.OpenCredential(ctx, use); !fault.Is(err, fault.Missing) {
		t.Fatalf("%v", err)
	}
	for _, want := range []Credential{{"u", "p"}, {"ü\n", strings.Repeat("\"x", 1000)}} {
		if err := c.SetCredential(ctx, "acme", "relay", want); err != nil {
			t.Fatal(err)
		}
		if got, err := c.OpenCredential(ctx, use); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	path := filepath.Join(c.dir, "secrets", "acme", "relay")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenCredential(ctx, use); !fault.Is(err, fault.Denied) {
		t.Errorf("readable by others: %v", err)
	}
	if err := c.RemoveCredential(ctx, "acme", "relay"); err != nil {
		t.Error(err)
	}
	if err := c.RemoveCredential(ctx, "acme", "relay"); !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
}

func TestListCredentials(t *testing.T) {
	c, ctx := newCustody(t), t.Context()
	if all, err := c.ListCredentials(ctx, "acme"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	before := time.Now().Add(-time.Minute)
	for _, name := range []string{"relay", "mailbox"} {
		if err := c.SetCredential(ctx, "acme", name, Credential{"u", "p"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetCredential(ctx, "globex", "other", Credential{"u", "p"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "secrets", "acme", ".new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := c.ListCredentials(ctx, "acme")
	if err != nil || len(all) != 2 || all[0].Connection != "mailbox" || all[1].Connection != "relay" {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, one := range all {
		if one.SetAt.Before(before) || one.SetAt.After(time.Now()) || one.Opened != nil || one.LastOpened != nil {
			t.Errorf("%+v", one)
		}
	}
	if _, err := c.ListCredentials(ctx, "../acme"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

// What a kill leaves half written goes at the start; nothing else does.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a [dir]*")
	f, err := newFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := selfSigned(t, "mx.test")
	if err := f.WriteServerCertificate("mx.test", cert, key); err != nil {
		t.Fatal(err)
	}
	if err := f.SetCredential(t.Context(), "acme", "relay", Credential{"u", "p"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "identities", "acme"), 0o700); err != nil {
		t.Fatal(err)
	}
	left := []string{"tls/.new-1", "identities/.new-2", "identities/acme/.new-3", "secrets/.new-4", "secrets/acme/.new-5"}
	kept := []string{".new-6", "tls/mx.test.crt", "tls/mx.test.key", "secrets/acme/relay", "secrets/acme/.newer"}
	for _, name := range append(slices.Clone(left), ".new-6", "secrets/acme/.newer") {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{len(left), 0} {
		if n, err := f.Sweep(); err != nil || n != want {
			t.Errorf("%d swept, not %d: %v", n, want, err)
		}
	}
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range kept {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedCredentialIsNotQuoted(t *testing.T) {
	c, ctx := newCustody(t), t.Context()
	if err := c.SetCredential(ctx, "acme", "relay", Credential{"u", "p"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "secrets", "acme", "relay"), []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.OpenCredential(ctx, Use{Tenant: "acme", Connection: "relay"})
	if err == nil || strings.Contains(err.Error()+fault.HintOf(err), "hunter2") {
		t.Errorf("%v", err)
	}
}

func TestNamesStayInside(t *testing.T) {
	c, ctx := newCustody(t), t.Context()
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\x00", ".hidden", "ä", strings.Repeat("a", 241)} {
		for _, pair := range [][2]string{{name, "relay"}, {"acme", name}} {
			errs := []error{
				c.SetCredential(ctx, pair[0], pair[1], Credential{"u", "p"}),
				c.RemoveCredential(ctx, pair[0], pair[1]),
			}
			_, err := c.OpenCredential(ctx, Use{Tenant: pair[0], Connection: pair[1]})
			for _, err := range append(errs, err) {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%q: %v", pair, err)
				}
			}
		}
	}
	var files []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := newCustody(t)
	c.now = time.Now
	cert, key := selfSigned(t, "mx.us.gate.example")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if err := c.WriteServerCertificate("mx.us.gate.example", cert, key); err != nil {
					t.Error(err)
				}
				if _, err := c.ServerCertificate("mx.us.gate.example"); err != nil {
					t.Error(err)
				}
				if err := c.SetCredential(t.Context(), "acme", "relay", Credential{"u", "p"}); err != nil {
					t.Error(err)
				}
				if got, err := c.OpenCredential(t.Context(), Use{Tenant: "acme", Connection: "relay"}); err != nil || got.User != "u" {
					t.Error(got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFilesFulfilBothSeams(t *testing.T) {
	var f any = newCustody(t).Files
	if _, ok := f.(Signers); !ok {
		t.Error("Signers")
	}
	if _, ok := f.(Credentials); !ok {
		t.Error("Credentials")
	}
}
