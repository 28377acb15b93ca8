package rfc2136

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	regionZone = "us.gate.example"
	ownZone    = "challenges.example"
	name       = "_acme-challenge.e1.abc." + regionZone
	noNS       = "@ IN NS ns\nns IN A 127.0.0.1\n"
)

// primary is a BIND with two zones, each with a key of its own.
type primary struct {
	*testpeer.BIND
	region, own Key
	text        string // of the key of region
}

func newPrimary(t *testing.T, set ...func(*testpeer.BINDConfig)) *primary {
	t.Helper()
	region, own := testpeer.BINDKey(t, "Region.Key", SHA256), testpeer.BINDKey(t, "own.key", SHA512)
	c := testpeer.BINDConfig{Keys: region + own, Zones: []testpeer.BINDZone{
		{Name: regionZone, Records: noNS, Policy: "grant region.key zonesub TXT;"},
		{Name: ownZone, Records: noNS, Policy: "grant own.key zonesub TXT;"},
	}}
	for _, f := range set {
		f(&c)
	}
	return &primary{BIND: testpeer.StartBIND(t, c), region: key(t, region), own: key(t, own), text: region}
}

func key(t *testing.T, text string) Key {
	t.Helper()
	k, err := ParseKey([]byte(text), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// updater changes records at a server, and waits for that server alone.
func (p *primary) updater(t *testing.T, k Key, set ...func(*Config)) *Updater {
	t.Helper()
	c := Config{Server: p.Addr, Key: k, Resolvers: []string{p.Addr}, Check: []string{p.Addr}, Propagation: 5 * time.Second}
	for _, f := range set {
		f(&c)
	}
	u, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// untouched is that a zone has what it began with.
func (p *primary) untouched(t *testing.T, zones ...string) {
	t.Helper()
	for _, z := range zones {
		if all := p.Zone(t, z); len(all) != 2 {
			t.Errorf("%s has %q", z, all)
		}
	}
}

// refused is a fault of a kind with a hint, and with each part in its words.
func refused(t *testing.T, what string, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	if !fault.Is(err, kind) || fault.HintOf(err) == "" {
		t.Errorf("%s: %v of kind %v, hint %q", what, err, fault.KindOf(err), fault.HintOf(err))
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error()+" / "+fault.HintOf(err), part) {
			t.Errorf("%s: no %q in %v / %s", what, part, err, fault.HintOf(err))
		}
	}
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// proxy leads from an address to another, as the second server on the port that
// NS records stand for. Ended, nobody listens there.
func proxy(t *testing.T, from, to string) (end func()) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				d, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer d.Close()
				go io.Copy(d, c)
				io.Copy(c, d)
			}()
		}
	}()
	return func() { l.Close() }
}

// waitZone waits until a secondary has the zone.
func waitZone(t *testing.T, b *testpeer.BIND) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(b.Log(), "Transfer status: success"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no transfer:\n%s", b.Log())
		}
	}
}

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
