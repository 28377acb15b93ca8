package rfc2136

import (
	"context"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// Against BIND: one value comes and goes, and others at the name stay.
func TestPublish(t *testing.T) {
	p := newPrimary(t)
	for what, set := range map[string]func(*Config){
		"zone found": func(*Config) {},
		"zone named": func(c *Config) { c.Zone = strings.ToUpper(regionZone) + "." },
		"from NS":    func(c *Config) { c.Check = nil },
	} {
		u := p.updater(t, p.region, set)
		u.port = portOf(t, p.Addr)
		if err := u.Publish(t.Context(), name, "one"); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, p.Log())
		}
		equal(t, what, p.Texts(t, name), "one")
		if err := p.updater(t, p.region).Publish(t.Context(), name, "other"); err != nil {
			t.Fatal(err)
		}
		equal(t, what, p.Texts(t, name), "one", "other")
		if err := u.Withdraw(t.Context(), name, "one"); err != nil {
			t.Fatal(err)
		}
		equal(t, what, p.Texts(t, name), "other")
		// What it has not sent is not its to remove: another may have.
		if err := u.Withdraw(t.Context(), name, "other"); err != nil {
			t.Fatal(err)
		}
		equal(t, what, p.Texts(t, name), "other")
		u.places[record{name, "other"}] = place{name + ".", regionZone + "."}
		if err := u.Withdraw(t.Context(), name, "other"); err != nil || len(u.places) != 0 {
			t.Errorf("%v, %v", err, u.places)
		}
	}
	p.untouched(t, regionZone, ownZone)
}

// Many names and many values of one at a time.
func TestPublishTogether(t *testing.T) {
	p := newPrimary(t)
	u := p.updater(t, p.region)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			fqdn, value := strings.Replace(name, "e1", "e"+string(rune('1'+n%2)), 1), "value-"+string(rune('a'+n))
			if err := u.Publish(t.Context(), fqdn, value); err != nil {
				t.Error(err)
			}
			if !strings.Contains(strings.Join(p.Texts(t, fqdn), " "), value) {
				t.Errorf("%s is not at %s", value, fqdn)
			}
			if err := u.Withdraw(t.Context(), fqdn, value); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	p.untouched(t, regionZone)
}

// A CNAME record gives the challenge to a zone of its own, the only one that the
// key may change.
func TestDelegated(t *testing.T) {
	p := newPrimary(t, func(c *testpeer.BINDConfig) {
		c.Zones[0].Records += "_acme-challenge.e1.abc IN CNAME Hop.challenges.example.\n_acme-challenge.e2.abc IN CNAME hop.challenges.example.\n" +
			"_acme-challenge.e3.abc IN CNAME _acme-challenge.e4.abc\n_acme-challenge.e4.abc IN CNAME _acme-challenge.e3.abc\n"
		c.Zones[1].Records += "hop IN CNAME all\n"
		c.Recursion = true
	})
	before := len(p.Zone(t, ownZone))
	u := p.updater(t, p.own)
	second := strings.Replace(name, "e1", "e2", 1)
	for fqdn, value := range map[string]string{name: "one", second: "two"} {
		if err := u.Publish(t.Context(), fqdn, value); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "the target", p.Texts(t, "all."+ownZone), "one", "two")
	equal(t, "through the name", p.Texts(t, name), "one", "two")
	if err := u.Withdraw(t.Context(), name, "one"); err != nil {
		t.Fatal(err)
	}
	equal(t, "the target", p.Texts(t, "all."+ownZone), "two")
	if err := u.Withdraw(t.Context(), second, "two"); err != nil || len(p.Zone(t, ownZone)) != before {
		t.Errorf("%v, %q", err, p.Zone(t, ownZone))
	}
	refused(t, "a circle", u.Publish(t.Context(), strings.Replace(name, "e1", "e3", 1), "x"), fault.Denied, "do not come to an end")
	refused(t, "a zone that it does not lead to", p.updater(t, p.region, func(c *Config) { c.Zone = regionZone }).Publish(t.Context(), name, "x"),
		fault.Denied, "all.challenges.example is not in the zone us.gate.example", "CNAME")
}

// The CNAME record is in a zone of another server, which a resolver knows of.
func TestDelegatedElsewhere(t *testing.T) {
	elsewhere := testpeer.StartBIND(t, testpeer.BINDConfig{Zones: []testpeer.BINDZone{
		{Name: "de.gate.example", Records: noNS + "_acme-challenge.e1.abc IN CNAME e1.challenges.example.\n"},
		{Name: "sub." + regionZone, Records: noNS}}})
	p := newPrimary(t, func(c *testpeer.BINDConfig) { c.Zones[0].Records += "sub IN NS ns.elsewhere.example.\n" })
	const fqdn = "_acme-challenge.e1.abc.de.gate.example"
	u := p.updater(t, p.own, func(c *Config) { c.Resolvers = []string{"127.0.0.1:1", elsewhere.Addr} })
	if err := u.Publish(t.Context(), fqdn, "one"); err != nil {
		t.Fatal(err)
	}
	equal(t, "the target", p.Texts(t, "e1."+ownZone), "one")
	if err := u.Withdraw(t.Context(), fqdn, "one"); err != nil {
		t.Fatal(err)
	}
	p.untouched(t, ownZone)
	refused(t, "no CNAME", u.Publish(t.Context(), "_acme-challenge.e2.abc.de.gate.example", "x"), fault.Denied, "is not authoritative for", "CNAME")
	refused(t, "below a zone cut", p.updater(t, p.region, func(c *Config) { c.Resolvers = []string{elsewhere.Addr} }).Publish(t.Context(), "_acme-challenge.e1.sub."+regionZone, "x"),
		fault.Denied, "is not authoritative for _acme-challenge.e1.sub")
	refused(t, "no resolver", p.updater(t, p.own, func(c *Config) { c.Resolvers = []string{"127.0.0.1:1"} }).Publish(t.Context(), fqdn, "x"),
		fault.Later, "resolver 127.0.0.1:1", "resolvers")
	refused(t, "a resolver that refuses", p.updater(t, p.own, func(c *Config) { c.Resolvers = []string{elsewhere.Addr} }).Publish(t.Context(), "_acme-challenge.x.test", "x"),
		fault.Later, "REFUSED")
}

// What BIND refuses is told in the words of who runs it.
func TestRefusals(t *testing.T) {
	p := newPrimary(t)
	other := func(name string, n int, algorithm string) Key {
		k, err := newKey(name, algorithm, base64.StdEncoding.EncodeToString(make([]byte, n)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sha512 := p.region
	sha512.algorithm = SHA512
	for what, c := range map[string]struct {
		key   Key
		set   func(*Config)
		kind  fault.Kind
		parts []string
	}{
		"no such key":          {other("nobody.key", 32, SHA256), nil, fault.Denied, []string{"BADKEY", "nobody.key", "same name"}},
		"another algorithm":    {sha512, nil, fault.Denied, []string{"BADKEY", "hmac-sha512"}},
		"another secret":       {other("region.key", 32, SHA256), nil, fault.Denied, []string{"BADSIG", "key_file"}},
		"a key without rights": {p.own, nil, fault.Denied, []string{"REFUSED", "own.key", "grant own.key name " + name + " TXT"}},
		"a clock behind":       {p.region, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(-24 * time.Hour) } }, fault.Later, []string{"BADTIME", "24h0m0s", "NTP"}},
		"a clock ahead":        {p.region, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } }, fault.Later, []string{"BADTIME", "1h0m0s"}},
		"another zone":         {p.region, func(c *Config) { c.Zone = ownZone }, fault.Denied, []string{"is not in the zone", "CNAME"}},
		"no such zone":         {p.region, func(c *Config) { c.Zone = "gate.example" }, fault.Denied, []string{"NOTAUTH", "not authoritative for the zone gate.example", "primary"}},
		"nobody listens":       {p.region, func(c *Config) { c.Server = "127.0.0.1:1" }, fault.Later, []string{"127.0.0.1:1", "refused", "takes TCP"}},
	} {
		u := p.updater(t, c.key)
		if c.set != nil {
			u = p.updater(t, c.key, c.set)
		}
		refused(t, what, u.Publish(t.Context(), name, "value"), c.kind, c.parts...)
		if err := u.Withdraw(t.Context(), name, "value"); err != nil {
			t.Errorf("%s: withdraw: %v", what, err)
		}
	}
	p.untouched(t, regionZone, ownZone)
	refused(t, "a name", p.updater(t, p.region).Publish(t.Context(), strings.Repeat("a", 64)+".example", "x"), fault.Invalid)
}

// A secondary is waited for; one that lags is named, and nothing stays behind.
func TestSecondary(t *testing.T) {
	const records = "@ IN NS ns1\n@ IN NS ns2\nns1 IN A 127.0.0.1\nns2 IN A 127.0.0.2\n"
	region := testpeer.BINDKey(t, "region.key", SHA256)
	p := &primary{BIND: testpeer.StartBIND(t, testpeer.BINDConfig{Keys: region, Zones: []testpeer.BINDZone{
		{Name: regionZone, Records: records, Policy: "grant region.key zonesub TXT;"}}}), region: key(t, region)}
	second := testpeer.StartBIND(t, testpeer.BINDConfig{Secondaries: map[string]*testpeer.BIND{regionZone: p.BIND}})
	waitZone(t, second)
	before := len(p.Zone(t, regionZone))
	end := proxy(t, "127.0.0.2:"+portOf(t, p.Addr), second.Addr)
	u := p.updater(t, p.region, func(c *Config) { c.Check, c.Propagation = nil, time.Second })
	u.port = portOf(t, p.Addr)

	refused(t, "it lags", u.Publish(t.Context(), name, "value"), fault.Later, "after 1s", "1 of 2 DNS servers", "ns2.us.gate.example: it answers without it", "propagation_s")
	// An operator who knows of it waits for others.
	others := p.updater(t, p.region)
	if err := others.Publish(t.Context(), name, "another"); err != nil {
		t.Errorf("%v", err)
	}
	end()
	refused(t, "it is away", u.Publish(t.Context(), name, "value"), fault.Later, "ns2.us.gate.example: connect: connection refused")
	refused(t, "one of the list is away", p.updater(t, p.region, func(c *Config) { c.Check, c.Propagation = []string{"127.0.0.1:1", p.Addr}, time.Second }).Publish(t.Context(), name, "third"),
		fault.Later, "1 of 2 DNS servers", "127.0.0.1:1")
	for value, u := range map[string]*Updater{"value": u, "another": others} {
		if err := u.Withdraw(t.Context(), name, value); err != nil {
			t.Error(err)
		}
	}
	equal(t, "not taken away yet", p.Texts(t, name), "third")
	if got := p.Zone(t, regionZone); len(got) != before+1 {
		t.Errorf("%q", got)
	}
}

// A secondary that is told of the change is waited for.
func TestSecondaryTold(t *testing.T) {
	far := testpeer.BINDKey(t, "region.key", SHA512)
	p := &primary{region: key(t, far)}
	// The secondary has to be known to the primary, and the other way round.
	place := freeAddress(t)
	p.BIND = testpeer.StartBIND(t, testpeer.BINDConfig{Keys: far, Zones: []testpeer.BINDZone{
		{Name: regionZone, Records: noNS, Policy: "grant region.key zonesub TXT;", Notify: []string{place}}}})
	second := testpeer.StartBIND(t, testpeer.BINDConfig{Addr: place, Secondaries: map[string]*testpeer.BIND{regionZone: p.BIND}})
	waitZone(t, second)
	u := p.updater(t, p.region, func(c *Config) { c.Check, c.Propagation = []string{second.Addr, p.Addr}, 30*time.Second })
	if err := u.Publish(t.Context(), name, "value"); err != nil {
		t.Fatalf("%v\n%s", err, second.Log())
	}
	equal(t, "the secondary", second.Texts(t, name), "value")
	if err := u.Withdraw(t.Context(), name, "value"); err != nil {
		t.Error(err)
	}
	p.untouched(t, regionZone)
}

// A request that ends has its record taken away all the same; a server that is
// away at first is asked again.
func TestWithdrawAfterEnd(t *testing.T) {
	p := newPrimary(t)
	u := p.updater(t, p.region, func(c *Config) { c.Check, c.Propagation = []string{"127.0.0.1:1"}, time.Minute })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	refused(t, "cut off", u.Publish(ctx, name, "value"), fault.Later, "when the time of the request was over", "127.0.0.1:1")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	equal(t, "published", p.Texts(t, name), "value")
	p.Stop()
	back := make(chan error, 1)
	go func() { back <- u.Withdraw(t.Context(), name, "value") }()
	p.Start(t)
	if err := <-back; err != nil {
		t.Error(err)
	}
	p.untouched(t, regionZone)

	p.Stop()
	refused(t, "down", u.Publish(t.Context(), name, "value"), fault.Later, "could not be asked")
	u.places[record{name, "value"}] = place{name + ".", regionZone + "."}
	gone, end := context.WithCancel(t.Context())
	end()
	refused(t, "no time", u.Withdraw(gone, name, "value"), fault.Later, "given up")
	if len(u.places) != 0 {
		t.Errorf("%v", u.places)
	}
}

func TestSettings(t *testing.T) {
	k, err := ParseKey([]byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), "k.", "")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]Config{
		"no server":     {Key: k},
		"no port":       {Server: "ns.example:", Key: k},
		"a port":        {Server: "ns.example:99999", Key: k},
		"a URL":         {Server: "https://ns.example/", Key: k},
		"no key":        {Server: "ns.example"},
		"a zone":        {Server: "ns.example", Key: k, Zone: "a..b"},
		"a resolver":    {Server: "ns.example", Key: k, Resolvers: []string{""}},
		"a check":       {Server: "ns.example", Key: k, Check: []string{"a b:53"}},
		"a TTL":         {Server: "ns.example", Key: k, TTL: time.Millisecond},
		"a propagation": {Server: "ns.example", Key: k, Propagation: 2 * time.Hour},
	} {
		if _, err := New(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for in, want := range map[string]string{
		"ns.example": "ns.example:53", "ns.example:5353": "ns.example:5353", "192.0.2.1": "192.0.2.1:53",
		"2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:5353": "[2001:db8::1]:5353",
	} {
		u, err := New(Config{Server: in, Key: k})
		if err != nil || u.c.Server != want {
			t.Errorf("%s: %v, %v", in, u, err)
		}
	}
	u, err := New(Config{Server: "ns.example", Key: k})
	if err != nil || u.c.TTL != time.Minute || u.c.Propagation != time.Minute || len(u.resolvers()) == 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
