package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	day             = 24 * time.Hour
	maxIntermediate = 90 * day
	maxLeaf         = 90 * day
	maxRoot         = 20 * 365 * day
	backdate        = 5 * time.Minute // for partners whose clock is behind
	longBackdate    = 25 * time.Hour  // for a keeper's own clock that was a day ahead, and is not any more
	issueHint       = "Ask with the names, use and life that the identity has."
)

// Name is the name of an identity: e<epoch>.<label>.<region>.<base>. The label
// is the tenant's or a random one; it is a single label.
type Name struct {
	Epoch               uint64
	Label, Region, Base string
}

// String is the domain name.
func (n Name) String() string {
	return "e" + strconv.FormatUint(n.Epoch, 10) + "." + n.Label + "." + n.Region + "." + n.Base
}

func (n Name) check(op string) error {
	if strings.Contains(n.Label, ".") || strings.Contains(n.Region, ".") || !IsDomain(n.String()) || n.Epoch == 0 {
		return invalid(op, strconv.Quote(n.String())+" is no name of an identity", issueHint)
	}
	return nil
}

// Authority is a certificate that issues, with its key.
type Authority struct {
	Key         Key
	Certificate *x509.Certificate
}

// NewRoot makes a region's root certificate. Its key is made and kept offline;
// it may issue for names below the region's domain only.
func NewRoot(k Key, region, base string, life time.Duration, now time.Time) (*x509.Certificate, error) {
	const op = "sign.NewRoot"
	if life < day || life > maxRoot {
		return nil, invalid(op, "a root lives from one day to twenty years", issueHint)
	}
	t, err := authorityTemplate(op, "Sallyport root "+region, region, base, life, now)
	if err != nil {
		return nil, err
	}
	t.MaxPathLen = 1
	return create(op, t, Authority{Key: k, Certificate: t}, k.Signer.Public(), now)
}

// IssueIntermediate makes the certificate of the online issuer: at most 90
// days, at most one level, the same name constraints.
func IssueIntermediate(root Authority, pub crypto.PublicKey, region, base string, life time.Duration, now time.Time) (*x509.Certificate, error) {
	const op = "sign.IssueIntermediate"
	if life < time.Hour || life > maxIntermediate {
		return nil, invalid(op, "an intermediate lives from one hour to 90 days", issueHint)
	}
	t, err := authorityTemplate(op, "Sallyport issuer "+region, region, base, life, now)
	if err != nil {
		return nil, err
	}
	t.MaxPathLenZero = true
	return create(op, t, root, pub, now)
}

// from is when a certificate begins that lives long: what a keeper made while
// its clock was a day ahead counts at once when that is mended. Short lives keep
// a short time before them, since renewal goes by the whole.
func from(now time.Time, life time.Duration) time.Time {
	return now.Add(-min(longBackdate, max(backdate, life/24)))
}

// authorityTemplate is what roots and intermediates share. A CA that is held
// to region.base can't issue for another region (RFC 5280 4.2.1.10).
func authorityTemplate(op, name, region, base string, life time.Duration, now time.Time) (*x509.Certificate, error) {
	if strings.Contains(region, ".") || !IsDomain(region+"."+base) {
		return nil, invalid(op, "the region and base domain make no domain name", issueHint)
	}
	return &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    from(now, life), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{region + "." + base},
		// A kind of name without a constraint is unconstrained: no address is
		// permitted.
		ExcludedIPRanges: []*net.IPNet{
			{IP: make(net.IP, net.IPv4len), Mask: make(net.IPMask, net.IPv4len)},
			{IP: make(net.IP, net.IPv6len), Mask: make(net.IPMask, net.IPv6len)},
		},
	}, nil
}

// Leaf is what an identity's certificate is made from.
type Leaf struct {
	Name   Name
	Use    Use // TLSClient, TLSServer or EntraApp
	Public crypto.PublicKey
	Life   time.Duration
}

// IssueLeaf makes an identity's certificate. Names, usages and serial are ours;
// nothing is copied from a request.
func IssueLeaf(by Authority, l Leaf, now time.Time) (*x509.Certificate, error) {
	const op = "sign.IssueLeaf"
	if err := l.Name.check(op); err != nil {
		return nil, err
	}
	if l.Life < time.Minute || l.Life > maxLeaf {
		return nil, invalid(op, "a certificate of an identity lives from one minute to 90 days", issueHint)
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		// Exchange Online is said to match the subject by some and the names
		// by others: it stands in both, first in both.
		Subject:   pkix.Name{CommonName: commonName(l.Name.String())},
		DNSNames:  []string{l.Name.String()},
		NotBefore: from(now, l.Life), NotAfter: now.Add(l.Life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
	switch l.Use {
	case TLSClient, EntraApp: // an app signs in by its certificate's key: a client too
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case TLSServer:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	default:
		return nil, invalid(op, "the issuer makes certificates for TLS clients and servers and for Entra apps", issueHint)
	}
	return create(op, t, by, l.Public, now)
}

// SelfSign makes a server certificate of a host name or address, signed with
// its own key. It encrypts, but nobody can verify it.
func SelfSign(k Key, host string, life time.Duration, now time.Time) (*x509.Certificate, error) {
	const op = "sign.SelfSign"
	if err := k.may(op, TLSServer); err != nil {
		return nil, err
	}
	ip := net.ParseIP(host)
	if ip == nil && !IsDomain(host) {
		return nil, invalid(op, strconv.Quote(host)+" is no host name", issueHint)
	}
	if life < time.Minute || life > maxRoot {
		return nil, invalid(op, "a self-signed certificate lives from one minute to twenty years", issueHint)
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: commonName(host)},
		NotBefore:    from(now, life), NotAfter: now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Signer.Public(), k.Signer)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint(issueHint)
	}
	c, err := x509.ParseCertificate(der)
	return c, fault.Wrap(fault.Internal, op, err)
}

// commonName leaves the subject empty when the name is too long for it: a
// common name has at most 64 characters (RFC 5280 A.1, ub-common-name).
func commonName(name string) string {
	if len(name) > 64 {
		return ""
	}
	return name
}

// create signs a template with an issuer that may do so now.
func create(op string, t *x509.Certificate, by Authority, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if err := by.Key.may(op, Issuer); err != nil {
		return nil, err
	}
	if !strongPublic(pub) {
		return nil, invalid(op, "the public key is of a type or length that is not used here", issueHint)
	}
	if c := by.Certificate; t.NotAfter.After(c.NotAfter) || now.Before(c.NotBefore) {
		return nil, fault.New(fault.Conflict, op, "the certificate would outlive its issuer, whose own ends "+c.NotAfter.UTC().Format(time.RFC3339)).
			WithHint("Renew the issuer first, or ask for a shorter life.")
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.Certificate, pub, by.Key.Signer)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint(issueHint)
	}
	c, err := x509.ParseCertificate(der)
	return c, fault.Wrap(fault.Internal, op, err)
}

func strongPublic(pub crypto.PublicKey) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return pub.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return pub.N.BitLen() >= minRSA
	}
	return false
}

// serial is 127 random bits: positive, and never two alike (RFC 5280 4.1.2.2).
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}
