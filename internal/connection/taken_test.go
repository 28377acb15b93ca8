package connection_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// What partners make of our certificates is told by what these are for.
func TestPurposes(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	told := func(want string) {
		t.Helper()
		got, err := c.Purposes(t.Context())
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	told("for clientAuth: 0 taken, 0 failing, 1 not tried yet")
	if report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{}); err != nil || !report.OK {
		t.Fatalf("%+v, %v", report, err)
	}
	told("for clientAuth: 1 taken, 0 failing, 0 not tried yet")
}

// A CA above our certificate that does not allow what a partner may insist on is
// named.
func TestPurposeTakenAway(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Servers Only CA"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	held := c.keeper.Stolen(t, c.identities(t)["smtp-client"].ID)
	held.Chain = append(held.Chain, der)
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	const want = "clientAuth is not allowed by CN=Servers Only CA"
	if !slices.ContainsFunc(report.Steps, func(s connection.TestStep) bool { return s.Name == "certificate" && strings.Contains(s.Detail, want) }) {
		t.Errorf("%+v", report.Steps)
	}
	if got, err := c.Purposes(t.Context()); err != nil || len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("%q, %v", got, err)
	}
}
