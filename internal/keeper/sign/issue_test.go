package sign

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// ca is a region's root and its online issuer.
type ca struct {
	root, online Authority
}

func newCA(t *testing.T, region string) ca {
	t.Helper()
	rk, ik := Key{ecKey(t), Issuer}, Key{ecKey(t), Issuer}
	root, err := NewRoot(rk, region, "gate.example", maxRoot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	inter, err := IssueIntermediate(Authority{rk, root}, ik.Signer.Public(), region, "gate.example", maxIntermediate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca{Authority{rk, root}, Authority{ik, inter}}
}

func (c ca) verify(leaf *x509.Certificate, name string, eku x509.ExtKeyUsage) error {
	roots, inters := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root.Certificate)
	inters.AddCert(c.online.Certificate)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inters, DNSName: name, KeyUsages: []x509.ExtKeyUsage{eku}})
	return err
}

func leafOf(t *testing.T, c ca, use Use, region string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	k := ecKey(t)
	leaf, err := IssueLeaf(c.online, Leaf{Name{3, "acme", region, "gate.example"}, use, k.Public(), 24 * time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return leaf, k
}

func TestIssue(t *testing.T) {
	c := newCA(t, "us")
	leaf, k := leafOf(t, c, TLSClient, "us")
	const name = "e3.acme.us.gate.example"
	if err := c.verify(leaf, name, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if err := c.verify(leaf, name, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a client's certificate serves")
	}
	if leaf.Subject.CommonName != name || len(leaf.DNSNames) != 1 || leaf.IsCA || !k.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("%+v", leaf.Subject)
	}
	server, _ := leafOf(t, c, TLSServer, "us")
	if err := c.verify(server, name, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	if leaf.SerialNumber.Cmp(server.SerialNumber) == 0 || leaf.SerialNumber.Sign() <= 0 {
		t.Error("serial numbers")
	}
}

// TestAnotherRegion: an issuer of one region that was stolen makes nothing
// that counts in another.
func TestAnotherRegion(t *testing.T) {
	us, uk := newCA(t, "us"), newCA(t, "uk")
	leaf, _ := leafOf(t, us, TLSClient, "uk")
	if err := us.verify(leaf, "e3.acme.uk.gate.example", x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("the name constraint does not hold")
	}
	if err := uk.verify(leaf, "e3.acme.uk.gate.example", x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("another region's root vouches for it")
	}
}

func TestIssueRefuses(t *testing.T) {
	c := newCA(t, "us")
	good := Leaf{Name{1, "acme", "us", "gate.example"}, TLSClient, ecKey(t).Public(), time.Hour}
	for name, change := range map[string]func(*Leaf){
		"two labels":    func(l *Leaf) { l.Name.Label = "a.b" },
		"wildcard":      func(l *Leaf) { l.Name.Label = "*" },
		"no label":      func(l *Leaf) { l.Name.Label = "" },
		"epoch 0":       func(l *Leaf) { l.Name.Epoch = 0 },
		"too long":      func(l *Leaf) { l.Life = 91 * day },
		"another use":   func(l *Leaf) { l.Use = DKIM },
		"an Ed25519":    func(l *Leaf) { l.Public = make(ed25519.PublicKey, 32) },
		"no public key": func(l *Leaf) { l.Public = nil },
	} {
		l := good
		change(&l)
		if _, err := IssueLeaf(c.online, l, time.Now()); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := IssueLeaf(c.online, Leaf{good.Name, good.Use, good.Public, maxLeaf}, time.Now().Add(day)); !fault.Is(err, fault.Conflict) {
		t.Errorf("outlives its issuer: %v", err)
	}
	if _, err := IssueIntermediate(c.root, ecKey(t).Public(), "us", "gate.example", 91*day, time.Now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("an intermediate of 91 days: %v", err)
	}
	// A leaf's certificate issues nothing, whatever its key is said to be for.
	leaf, k := leafOf(t, c, TLSClient, "us")
	forged, err := IssueLeaf(Authority{Key{k, Issuer}, leaf}, good, time.Now())
	if err == nil && c.verify(forged, good.Name.String(), x509.ExtKeyUsageClientAuth) == nil {
		t.Error("a leaf issued a certificate that counts")
	}
}

func TestLongNamesAreNotCommon(t *testing.T) {
	c := newCA(t, "us")
	n := Name{1, strings.Repeat("a", 60), "us", "gate.example"}
	leaf, err := IssueLeaf(c.online, Leaf{n, TLSClient, ecKey(t).Public(), time.Hour}, time.Now())
	if err != nil || leaf.Subject.CommonName != "" || leaf.DNSNames[0] != n.String() {
		t.Errorf("%v %+v", err, leaf)
	}
}

// TestOpenSSL lets a foreign reader judge chain and name.
func TestOpenSSL(t *testing.T) {
	openssl := testpeer.Need(t, "openssl", "openssl")[0]
	c := newCA(t, "us")
	leaf, _ := leafOf(t, c, TLSClient, "us")
	dir := t.TempDir()
	put := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, inter := put("root", "CERTIFICATE", c.root.Certificate.Raw), put("inter", "CERTIFICATE", c.online.Certificate.Raw)
	file := put("leaf", "CERTIFICATE", leaf.Raw)
	for name, good := range map[string]bool{"e3.acme.us.gate.example": true, "e4.acme.us.gate.example": false} {
		out, err := exec.Command(openssl, "verify", "-x509_strict", "-CAfile", root, "-untrusted", inter, "-purpose", "sslclient", "-verify_hostname", name, file).CombinedOutput()
		if (err == nil) != good {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// An app's certificate is a client's, of an RSA key.
func TestIssueApp(t *testing.T) {
	c := newCA(t, "us")
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := IssueLeaf(c.online, Leaf{Name{1, "acme", "us", "gate.example"}, EntraApp, k.Public(), time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.verify(leaf, "e1.acme.us.gate.example", x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
}

func TestSelfSign(t *testing.T) {
	k := Key{ecKey(t), TLSServer}
	for _, host := range []string{"mx.us.gate.example", "192.0.2.1", "2001:db8::1", strings.Repeat("a", 60) + ".us.gate.example"} {
		c, err := SelfSign(k, host, maxRoot, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil || c.VerifyHostname(host) != nil || c.IsCA {
			t.Errorf("%s: %v", host, err)
		}
	}
	for name, f := range map[string]func() (*x509.Certificate, error){
		"a client's key": func() (*x509.Certificate, error) {
			return SelfSign(Key{k.Signer, TLSClient}, "mx.example", time.Hour, time.Now())
		},
		"no name":      func() (*x509.Certificate, error) { return SelfSign(k, "", time.Hour, time.Now()) },
		"a wildcard":   func() (*x509.Certificate, error) { return SelfSign(k, "*.example", time.Hour, time.Now()) },
		"for too long": func() (*x509.Certificate, error) { return SelfSign(k, "mx.example", maxRoot+1, time.Now()) },
		"for no time":  func() (*x509.Certificate, error) { return SelfSign(k, "mx.example", 0, time.Now()) },
		"an issuer key": func() (*x509.Certificate, error) {
			return SelfSign(Key{k.Signer, Issuer}, "mx.example", time.Hour, time.Now())
		},
	} {
		if c, err := f(); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%s: %v %v", name, c, err)
		}
	}
}
