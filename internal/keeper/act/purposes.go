package act

import (
	"crypto/x509"
	"slices"
)

// Limit is a purpose that a certificate has and a CA above it does not allow.
type Limit struct {
	Purpose string
	By      string // the CA's subject
}

// Purposes are the extended key usages (RFC 5280 4.2.1.12) that a chain is good
// for: those of the leaf that every CA above it allows; limits are those that
// one does not. Public CAs grant serverAuth alone, and whether a partner takes
// that of a client is for a connection test to find out. Both are nil where the
// chain can't be read.
func Purposes(chain [][]byte) (good []string, limits []Limit) {
	var left []x509.ExtKeyUsage
	for n, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil
		}
		own := allowed(c)
		if n == 0 {
			left = own
			continue
		}
		left = slices.DeleteFunc(left, func(u x509.ExtKeyUsage) bool {
			lacks := !slices.Contains(own, u)
			if name := purposeName(u); lacks && name != "" {
				limits = append(limits, Limit{name, c.Subject.String()})
			}
			return lacks
		})
	}
	for _, u := range left {
		if name := purposeName(u); name != "" {
			good = append(good, name)
		}
	}
	return good, limits
}

// allowed are a certificate's purposes; one that says nothing is for any.
func allowed(c *x509.Certificate) []x509.ExtKeyUsage {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageEmailProtection}
	}
	return slices.Clone(c.ExtKeyUsage)
}

func purposeName(u x509.ExtKeyUsage) string {
	switch u {
	case x509.ExtKeyUsageServerAuth:
		return "serverAuth"
	case x509.ExtKeyUsageClientAuth:
		return "clientAuth"
	case x509.ExtKeyUsageEmailProtection:
		return "emailProtection"
	}
	return ""
}
