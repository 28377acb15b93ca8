package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"testing"
	"time"
)

// hands are the certificates that clients of the tests hold out.
type hands struct {
	t      testing.TB
	ca     authority
	other  authority
	server tls.Certificate
	client map[string]tls.Certificate
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const platformName = "mail.protection.outlook.com"

func newHands(t testing.TB) *hands {
	h := &hands{t: t, client: map[string]tls.Certificate{}}
	h.ca, h.other = h.authority("platform roots"), h.authority("unknown roots")
	now := time.Now()
	clientUse := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	h.server = h.issue(h.ca, "mx.gate.test", now.Add(time.Hour), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	for name, c := range map[string]struct {
		by    authority
		cn    string
		until time.Time
		use   []x509.ExtKeyUsage
	}{
		"platform":             {h.ca, platformName, now.Add(time.Hour), clientUse},
		"platform-below":       {h.ca, "eur." + platformName, now.Add(time.Hour), clientUse},
		"platform-expired":     {h.ca, platformName, now.Add(-time.Minute), clientUse},
		"platform-unknown":     {h.other, platformName, now.Add(time.Hour), clientUse},
		"platform-server-only": {h.ca, platformName, now.Add(time.Hour), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		"platform-no-use":      {h.ca, platformName, now.Add(time.Hour), nil},
		"platform-alike":       {h.ca, "evil" + platformName, now.Add(time.Hour), clientUse},
		"acme":                 {h.other, "relay.acme.test", now.Add(time.Hour), clientUse},
		"acme-expired":         {h.other, "relay.acme.test", now.Add(-time.Minute), clientUse},
		"acme-server-only":     {h.other, "relay.acme.test", now.Add(time.Hour), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
	} {
		h.client[name] = h.issue(c.by, c.cn, c.until, c.use)
	}
	return h
}

func (h *hands) authority(name string) authority {
	key := h.key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return authority{cert, key}
}

func (h *hands) key() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	return key
}

func (h *hands) issue(by authority, name string, until time.Time, use []x509.ExtKeyUsage) tls.Certificate {
	key := h.key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: use,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		h.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (h *hands) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(h.ca.cert)
	return pool
}

// sum is how a tenant registers a certificate.
func (h *hands) sum(name string) string {
	sum := sha256.Sum256(h.client[name].Certificate[0])
	return hex.EncodeToString(sum[:])
}
