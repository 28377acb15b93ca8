package acme

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxChain bounds a chain: public ones have two or three certificates.
const maxChain = 8

// readChain reads what a CA issued, and holds it against what it was asked for.
func readChain(text []byte, name string, public crypto.PublicKey, now time.Time) ([][]byte, error) {
	var chain [][]byte
	var certs []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("the chain has something that is no certificate")
		}
		if len(chain) == maxChain {
			return nil, fmt.Errorf("the chain has more than %d certificates", maxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the chain has a certificate that can't be read: %w", err)
		}
		chain, certs, text = append(chain, block.Bytes), append(certs, c), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain is empty")
	}
	return chain, fits(certs, name, public, now)
}

// fits tells what is wrong with a chain.
func fits(certs []*x509.Certificate, name string, public crypto.PublicKey, now time.Time) error {
	leaf := certs[0]
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !key.Equal(leaf.PublicKey):
		return errors.New("the certificate is not of our key")
	case leaf.VerifyHostname(name) != nil:
		return errors.New("the certificate is not for " + name)
	case !leaf.NotAfter.After(now):
		return errors.New("the certificate has expired already")
	case leaf.IsCA:
		return errors.New("the certificate is a CA's")
	}
	for n, c := range certs[:len(certs)-1] {
		if err := c.CheckSignatureFrom(certs[n+1]); err != nil {
			return fmt.Errorf("the chain does not hang together: %w", err)
		}
	}
	return nil
}
