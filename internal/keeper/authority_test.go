package keeper

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func TestAuthority(t *testing.T) {
	at := &clock{now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	set := func(c *Config) { c.Now, c.Hosts = at.Now, nil }
	r := newRig(t, set)
	info, err := os.Stat(filepath.Join(r.dir, rootKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	root := r.Root()
	if root == nil || !root.IsCA || len(root.PermittedDNSDomains) != 1 || root.PermittedDNSDomains[0] != "us.gate.example" {
		t.Fatalf("%+v", root)
	}
	names := map[string]int{}
	for _, e := range r.entries(t) {
		names[e.Act+" "+e.Outcome]++
	}
	for _, want := range []string{"make-root begun", "make-root done", "renew-issuer begun", "renew-issuer done"} {
		if names[want] != 1 {
			t.Errorf("%d of %s", names[want], want)
		}
	}
	first := r.authority.online.Certificate
	at.set(at.Now().Add(44 * day))
	if err := r.tendAuthority(t.Context()); err != nil || r.authority.online.Certificate != first {
		t.Errorf("renewed too early: %v", err)
	}
	at.set(at.Now().Add(2 * day))
	if err := r.tendAuthority(t.Context()); err != nil || r.authority.online.Certificate.Equal(first) {
		t.Errorf("not renewed: %v", err)
	}
	second := r.authority.online.Certificate
	r.end()

	// Another start has the same, and so has one without the root's key.
	offline := filepath.Join(t.TempDir(), rootKeyFile)
	if err := os.Rename(filepath.Join(r.dir, rootKeyFile), offline); err != nil {
		t.Fatal(err)
	}
	r = openRig(t, r.dir, r.kek, set)
	if !r.Root().Equal(root) || !r.authority.online.Certificate.Equal(second) {
		t.Error("another root or issuer")
	}
	r.boundAll(t, "acme")
	r.offline(t, at, offline)
}

// offline is the root's key elsewhere: weeks before the issuer ends people are
// told, day by day, and what is issued ends with it.
func (r *rig) offline(t *testing.T, at *clock, file string) {
	end := r.authority.online.Certificate.NotAfter
	for left, alarms := range map[int]int{44: 0, 39: 1} {
		r.quiet()
		at.set(end.Add(-time.Duration(left) * day))
		if err := r.tendAuthority(t.Context()); err != nil {
			t.Error(err)
		}
		if got := len(r.alarms.recent()); got != alarms {
			t.Errorf("%d days before: %d alarms", left, got)
		}
	}
	at.set(end.Add(-38*day - time.Minute))
	for range 49 { // each hour
		at.set(at.Now().Add(time.Hour))
		if err := r.tendAuthority(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := r.alarms.recent(); len(got) < 3 || len(got) > 4 || got[0].Kind != alarmIssuer || !strings.Contains(got[0].Text, rootKeyFile) {
		t.Errorf("%+v", got)
	}
	at.set(end.Add(-10 * day))
	if i := r.issued(t, "acme", ofClient, 0); !i.NotAfter.Equal(end) {
		t.Errorf("it ends %v, its issuer %v", i.NotAfter, end)
	}
	at.set(end.Add(time.Hour))
	if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient)}); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), rootKeyFile) {
		t.Errorf("%v", err)
	}
	r.wrongRoot(t)
	if err := os.Rename(file, filepath.Join(r.dir, rootKeyFile)); err != nil {
		t.Fatal(err)
	}
	if err := r.tendAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.verify(t, r.issued(t, "acme", ofClient, 0), x509.ExtKeyUsageClientAuth)
}

// quiet forgets alarms.
func (r *rig) quiet() {
	r.alarms.mu.Lock()
	defer r.alarms.mu.Unlock()
	r.alarms.list, r.alarms.told = nil, nil
}

// wrongRoot: keys that are not the root's, or that anybody can read, issue
// nothing.
func (r *rig) wrongRoot(t *testing.T) {
	path := filepath.Join(r.dir, rootKeyFile)
	if _, err := writeRootKey(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := r.tendAuthority(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("another key: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := r.tendAuthority(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("a key for the group: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.tendAuthority(t.Context()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A crash after the key's file was written and before its certificate was
// remembered leaves a key that the next start uses.
func TestRootKeyLeft(t *testing.T) {
	dir := t.TempDir()
	s, err := writeRootKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := openRig(t, dir, newKEK(t, "us"))
	if !samePublic(s.Public(), r.Root().PublicKey) {
		t.Error("another key was made")
	}
}

// A root key that cannot be used when the issuer is due stops no start.
func TestStartWithoutRenewal(t *testing.T) {
	at := &clock{now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	set := func(c *Config) { c.Now, c.Hosts = at.Now, nil }
	r := newRig(t, set)
	first := r.authority.online.Certificate
	r.end()
	if err := os.Chmod(filepath.Join(r.dir, rootKeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	at.set(at.Now().Add(80 * day))
	r = openRig(t, r.dir, r.kek, set)
	if got := r.alarms.recent(); !r.authority.online.Certificate.Equal(first) || len(got) != 1 || got[0].Kind != alarmIssuer || !strings.Contains(got[0].Text, "10 days") {
		t.Errorf("%+v", got)
	}
}

func TestEndingIdentities(t *testing.T) {
	at := &clock{now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	r := newRig(t, func(c *Config) { c.Now, c.Hosts = at.Now, nil })
	r.boundAll(t, "acme")
	r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	for days, want := range map[int]int{20: 0, 25: 1} {
		r.quiet()
		at.set(time.Date(2026, 5, 4+days, 3, 2, 1, 0, time.UTC))
		for range 2 {
			if err := r.warnEnding(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.alarms.recent(); len(got) != want || want == 1 && (got[0].Kind != alarmRenewal || got[0].Tenant != "acme") {
			t.Errorf("after %d days: %+v", days, got)
		}
	}
}
