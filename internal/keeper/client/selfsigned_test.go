package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxCommonName is ub-common-name (RFC 5280 A.1); a longer name stands in the
// subject alternative name only.
const maxCommonName = 64

// SelfSigned makes a server certificate for a host name and signs it with its
// own key (ECDSA P-256), as gateways before the keeper did.
func SelfSigned(host string, now time.Time, life time.Duration) (certPEM, keyPEM []byte, err error) {
	const op = "client.SelfSigned"
	if err := checkNames(op, host); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, op, err)
	}
	template, err := serverTemplate(host, now, life)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, op, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, op, err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, op, err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

func serverTemplate(host string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // 20 octets at most (RFC 5280 4.1.2.2)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-time.Hour), // for clocks that are behind
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	if len(host) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: host}
	}
	return t, nil
}

// newFiles is custody by files in a directory, as gateways before the keeper
// made it.
func newFiles(dir string) (*Files, error) {
	for _, sub := range []string{tlsDir, identitiesDir, secretsDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return ExistingFiles(dir), nil
}
