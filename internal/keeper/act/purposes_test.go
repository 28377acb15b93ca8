package act

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

func certificate(t testing.TB, name string, purposes ...x509.ExtKeyUsage) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: purposes}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPurposes(t *testing.T) {
	of := func(u ...x509.ExtKeyUsage) []byte { return certificate(t, "leaf", u...) }
	ca := func(u ...x509.ExtKeyUsage) []byte { return certificate(t, "Some CA", u...) }
	s, c := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, x := range []struct {
		chain        [][]byte
		good, limits string
	}{
		{[][]byte{of(s)}, "serverAuth", "[]"},
		{[][]byte{of(s, c)}, "serverAuth clientAuth", "[]"},
		{[][]byte{of(s, c), ca(s)}, "serverAuth", "[{clientAuth CN=Some CA}]"},
		{[][]byte{of(s, c), ca(), ca(s)}, "serverAuth", "[{clientAuth CN=Some CA}]"},
		{[][]byte{of(s, c), ca()}, "serverAuth clientAuth", "[]"},
		{[][]byte{of(s, c), ca(x509.ExtKeyUsageAny)}, "serverAuth clientAuth", "[]"},
		{[][]byte{of()}, "serverAuth clientAuth emailProtection", "[]"},
		{[][]byte{of(c), ca(s)}, "", "[{clientAuth CN=Some CA}]"},
		{[][]byte{of(x509.ExtKeyUsageEmailProtection)}, "emailProtection", "[]"},
		{[][]byte{of(x509.ExtKeyUsageTimeStamping)}, "", "[]"},
		{[][]byte{of(s), []byte("junk")}, "", "[]"},
		{nil, "", "[]"},
	} {
		good, limits := Purposes(x.chain)
		if got := strings.Join(good, " "); got != x.good || fmt.Sprint(limits) != x.limits {
			t.Errorf("%q %v, not %q %s", got, limits, x.good, x.limits)
		}
	}
}

func FuzzPurposes(f *testing.F) {
	f.Add(certificate(f, "leaf", x509.ExtKeyUsageClientAuth), certificate(f, "Some CA", x509.ExtKeyUsageServerAuth))
	f.Add([]byte("junk"), []byte(nil))
	f.Fuzz(func(t *testing.T, leaf, ca []byte) {
		good, limits := Purposes([][]byte{leaf, ca})
		if len(good)+len(limits) > 64 {
			t.Errorf("%d and %d", len(good), len(limits))
		}
	})
}
