package sim

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// TestMSAL: MSAL for Go with a key in its own hands makes the assertion, by
// its own idea of what one looks like, and reads the refusal.
func TestMSAL(t *testing.T) {
	r := startRig(t, Config{})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	cred, err := confidential.NewCredFromCert([]*x509.Certificate{k.cert}, k.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := confidential.New(r.one.Graph+"/"+r.one.EntraTenant, r.one.AppID, cred,
		confidential.WithHTTPClient(r.http), confidential.WithInstanceDiscovery(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AcquireTokenByCredential(context.Background(), []string{scope}); err == nil || !strings.Contains(err.Error(), "AADSTS700027") {
		t.Errorf("a key that is not registered: %v", err)
	}
	r.register(k)
	result, err := c.AcquireTokenByCredential(context.Background(), []string{scope})
	if err != nil {
		t.Fatal(err)
	}
	claims, ok := r.readAccess(result.AccessToken)
	if !ok || claims.AppID != r.one.AppID || claims.Tenant != r.one.EntraTenant || claims.ACR != "2" {
		t.Errorf("token: %+v", claims)
	}
	r.clock.step(tokenLife * time.Second)
	if _, ok := r.readAccess(result.AccessToken); ok {
		t.Error("the token outlives its life")
	}
}

// TestCutOff: a simulator that was killed in the middle of a row has the rows
// before it, and goes on behind them.
func TestCutOff(t *testing.T) {
	dir := t.TempDir()
	r := startRig(t, Config{Dir: dir})
	r.name("e1.gw.example")
	cert := r.ca.Issue(t, nil, "e1.gw.example")
	box := "user@" + r.one.Domain
	want(t, r.deliver(cert, "a@x.test", box, message), "", "")
	r.stop()
	path := filepath.Join(dir, mailFile)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"t":"` + r.one.EntraTenant + `","r":{"Recip`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for n := range 2 {
		s, err := Open(Config{Dir: dir, Now: r.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Arrivals(r.one.EntraTenant); len(got) != 1+n {
			t.Errorf("start %d: %d arrivals, %d expected", n+1, len(got), 1+n)
		}
		s.mu.Lock()
		err = s.arrive(Arrival{Recipient: box}, s.find(r.one.EntraTenant))
		s.mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}
