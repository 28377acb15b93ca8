package client

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// cell is a keeper that answers with a certificate, and counts.
type cell struct {
	region string
	asked  atomic.Int64
	mu     sync.Mutex
	last   string
	// hold, when there is one, is called before a certificate is given.
	hold     func()
	srv      *http.Server
	listener net.Listener
}

func (c *cell) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct{ Region, Tenant, Connection, Host string }
	json.NewDecoder(r.Body).Decode(&q)
	name := strings.TrimPrefix(r.URL.Path, "/v1/acts/")
	c.mu.Lock()
	c.last = name + " " + q.Region + " " + q.Tenant + "/" + q.Connection + q.Host
	hold := c.hold
	c.mu.Unlock()
	c.asked.Add(1)
	if hold != nil {
		hold()
	}
	switch act.Name(name) {
	case act.TenantCertificate, act.HostCertificate:
		cert, _, _ := SelfSigned("x.test", time.Now(), time.Hour)
		json.NewEncoder(w).Encode(act.Certificate{Chain: [][]byte{derOf(cert)}})
	default:
		json.NewEncoder(w).Encode(struct{}{})
	}
}

func (c *cell) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// newCells are two regions' keepers, and their client.
func newCells(t *testing.T) (*Cells, map[string]*cell) {
	t.Helper()
	cells, keepers := map[string]*cell{}, map[string]*Remote{}
	for _, region := range []string{"us", "de"} {
		c := &cell{region: region}
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		c.srv, c.listener = &http.Server{Handler: c}, l
		go c.srv.Serve(l)
		t.Cleanup(func() { c.srv.Close() })
		if keepers[region], err = NewRemote(RemoteConfig{Region: region, Socket: socket}); err != nil {
			t.Fatal(err)
		}
		cells[region] = c
	}
	all, err := NewCells(CellsConfig{Regions: []string{"us", "de"}, Base: "gw.test", Keepers: keepers, RegionOf: func(tenant string) (string, bool) {
		region, ok := map[string]string{"acme": "us", "umlaut": "de", "moved": "fr"}[tenant]
		return region, ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	return all, cells
}

// Each thing is asked of the keeper of its region, in that region's name.
func TestCellsAskTheRightKeeper(t *testing.T) {
	c, cells := newCells(t)
	ctx := t.Context()
	for _, one := range []struct {
		region, want string
		ask          func() error
	}{
		{"us", "host-certificate us /mx.us.gw.test", func() error { _, err := c.ServerCertificate("mx.us.gw.test"); return err }},
		{"de", "host-certificate de /out.de.gw.test", func() error { _, err := c.ServerCertificate("OUT.de.gw.test"); return err }},
		{"us", "host-certificate us /mx.gw.test", func() error { _, err := c.ServerCertificate("mx.gw.test"); return err }},
		{"us", "host-certificate us /mx.fr.gw.test", func() error { _, err := c.ServerCertificate("mx.fr.gw.test"); return err }},
		{"us", "host-certificate us /mx.de.other.test", func() error { _, err := c.ServerCertificate("mx.de.other.test"); return err }},
		{"de", "tenant-certificate de umlaut/box", func() error { _, err := c.ClientCertificate(ctx, "umlaut", "box"); return err }},
		{"us", "open-credential us acme/box", func() error {
			_, err := c.OpenCredential(ctx, Use{Tenant: "acme", Connection: "box", Purpose: "smtp-auth"})
			return err
		}},
		{"de", "set-credential de umlaut/box", func() error { return c.SetCredential(ctx, "umlaut", "box", Credential{User: "u", Password: "p"}) }},
		{"de", "remove-credential de umlaut/box", func() error { return c.RemoveCredential(ctx, "umlaut", "box") }},
		{"us", "list-credentials us acme/", func() error { _, err := c.ListCredentials(ctx, "acme"); return err }},
	} {
		if err := one.ask(); err != nil || cells[one.region].said() != one.want {
			t.Errorf("%s: %v, asked %q", one.want, err, cells[one.region].said())
		}
	}
	for _, tenant := range []string{"nobody", "moved"} {
		if _, err := c.For(tenant); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", tenant, err)
		}
		if err := c.SetCredential(ctx, tenant, "box", Credential{}); !fault.Is(err, fault.Missing) {
			t.Errorf("%s: %v", tenant, err)
		}
	}
}

// An answer is shared for a while, and no longer than until Forget.
func TestCellsShareAnAnswer(t *testing.T) {
	c, cells := newCells(t)
	now := time.Now()
	c.c.Now = func() time.Time { return now }
	us := cells["us"]
	get := func() {
		t.Helper()
		if _, err := c.ClientCertificate(t.Context(), "acme", "box"); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		do   func()
		want int64
	}{
		{get, 1}, {get, 1},
		{func() { c.Forget("acme", "other"); get() }, 1},
		{func() { c.Forget("acme", "box"); get() }, 2},
		{func() { now = now.Add(certFresh - time.Second); get() }, 2},
		{func() { now = now.Add(time.Second); get() }, 3},
		{func() { now = now.Add(-time.Hour); get() }, 4}, // a clock that was set back
	} {
		if step.do(); us.asked.Load() != step.want {
			t.Errorf("step %d: asked %d times, want %d", i, us.asked.Load(), step.want)
		}
	}
	// What was asked before something changed is not kept after it.
	c.Forget("acme", "box")
	us.mu.Lock()
	us.hold = func() { c.Forget("acme", "box") }
	us.mu.Unlock()
	get()
	us.mu.Lock()
	us.hold = nil
	us.mu.Unlock()
	before := us.asked.Load()
	if get(); us.asked.Load() != before+1 {
		t.Error("an answer from before the change was kept")
	}
}

// A keeper is woken before it is asked, and not asked when it can't be.
func TestWake(t *testing.T) {
	var woken atomic.Int64
	r, err := NewRemote(RemoteConfig{Region: "us", Socket: filepath.Join(t.TempDir(), "s"), Wake: func(context.Context) error {
		woken.Add(1)
		return fault.New(fault.Later, "x", "it does not run")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Status(t.Context()); !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "does not run") || woken.Load() != 1 {
		t.Errorf("%v, woken %d times", err, woken.Load())
	}
	if r.Reachable(t.Context()) {
		t.Error("it is reachable")
	}
}

// Whether a keeper can be reached is known at once when it goes and comes.
func TestReachable(t *testing.T) {
	c, cells := newCells(t)
	r, err := c.Region("us")
	if err != nil {
		t.Fatal(err)
	}
	if !r.Reachable(t.Context()) {
		t.Error("not reachable while it is there")
	}
	_, _ = r.Status(t.Context()) // it serves by now, whatever it answers: Close closes its listener at once
	cells["us"].srv.Close()
	cells["us"].listener.Close() // Serve may not have begun, and then it is not the server's yet
	if r.Reachable(t.Context()) {
		t.Error("reachable though it is gone")
	}
}

func derOf(certPEM []byte) []byte {
	b, _ := pem.Decode(certPEM)
	return b.Bytes
}
