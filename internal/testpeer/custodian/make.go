package custodian

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Make makes a key with its certificate.
func (c *Keeper) Make(name, purpose string) (*Held, error) {
	var key crypto.Signer
	var err error
	if purpose == "entra-app" {
		key, err = c.rsaKey()
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(c.Life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	issuer, signer := c.Root, c.issuer
	if purpose == "entra-app" {
		issuer, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Held{Key: key, Identity: act.Identity{ID: ulid.Make().String(), NotBefore: template.NotBefore, NotAfter: template.NotAfter,
		SHA256: hex.EncodeToString(sum[:]), Issuer: "builtin", Driver: "software", Chain: [][]byte{der}, CreatedAt: now, ChangedAt: now}}, nil
}

// someKeys are a few RSA keys, which take long to make, for all of a suite.
var someKeys = sync.OnceValues(func() (keys [4]*rsa.PrivateKey, err error) {
	for i := range keys {
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			break
		}
	}
	return keys, err
})

// rsaKey is the next of some: no two identities after another have the same.
func (c *Keeper) rsaKey() (crypto.Signer, error) {
	keys, err := someKeys()
	c.used++
	return keys[c.used%len(keys)], err
}
