package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// keeperDesk is a gateway's API over one real keeper, whose operators have the
// public lines given.
func keeperDesk(t testing.TB, lines ...string) *desk {
	t.Helper()
	d := newDesk(t, "us")
	d.cells["us"].socket = realKeeper(t, lines...)
	return d
}

// acts is a keeper as its server wants it.
type acts struct {
	*keeper.Keeper
	others
}

// others are acts that are not asked for here.
type others struct{ wire.Acts }

// realKeeper runs a keeper of region us on a database of its own, and returns
// its socket.
func realKeeper(t testing.TB, lines ...string) string {
	t.Helper()
	word := func() seal.Secret { return seal.NewSecret([]byte("a passphrase")) }
	file, err := seal.NewKEKFile("us", word(), seal.Cost{Passes: 1, MemoryKB: 19 << 10, Lanes: 1})
	must(t, err)
	kek, err := seal.OpenKEKFile("us", file, word())
	must(t, err)
	dir := t.TempDir()
	db, err := store.OpenKeeper(t.Context(), store.Config{Dir: filepath.Join(dir, "db")})
	must(t, err)
	c := keeper.Config{DB: db, Dir: dir, Region: "us", Base: "gate.example", KEKs: []seal.KEK{kek}}
	for _, line := range lines {
		p, err := operator.ParsePublic(line)
		must(t, err)
		c.Operators = append(c.Operators, p)
	}
	k, err := keeper.New(t.Context(), c)
	must(t, err)
	socket := filepath.Join(dir, "k")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	s, err := wire.New(wire.Config{Region: "us", Acts: acts{Keeper: k}, Refused: func(wire.Refusal) {}, Allow: []wire.Grant{{
		Local: true, UID: uint32(os.Getuid()), Acts: []act.Name{act.SearchLedger, act.ShowEntry, act.ProveEntry, act.ExportLedger, act.Status, act.Order, act.ReportSighting,
			act.EnterEvents, act.ListCredentials},
	}}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- k.Run(ctx) }()
	go func() { ended <- s.ServeUnix(l) }()
	t.Cleanup(func() {
		last, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		_ = s.Shutdown(last)
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		must(t, db.Close())
	})
	return socket
}

// people makes keys, and returns their public lines.
func people(t testing.TB, dir string, names ...string) []string {
	t.Helper()
	var lines []string
	for _, name := range names {
		var made struct{ Name, ID, Public, File string }
		path := filepath.Join(dir, name+".key")
		offline(t, "", "operator", "new", name, "--out", path, "--json").ok(t, &made)
		if p, err := operator.ParsePublic(made.Public); err != nil || p.Name != name || p.ID() != made.ID || made.File != path {
			t.Errorf("%+v %v", made, err)
		}
		lines = append(lines, made.Public)
	}
	return lines
}

func TestOperatorVerbs(t *testing.T) {
	dir := t.TempDir()
	lines := people(t, dir, "ann", "bob")
	path := filepath.Join(dir, "ann.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	raw, err := os.ReadFile(path)
	must(t, err)
	var key struct{ Seed string }
	must(t, json.Unmarshal(raw, &key))
	shown := offline(t, "", "operator", "show", path).ok(t, nil).out
	if !strings.Contains(shown, lines[0]) || strings.Contains(shown, lines[1]) || strings.Contains(shown, key.Seed) || key.Seed == "" {
		t.Error(shown)
	}
	if got := offline(t, "", "operator", "new", "ann", "--out", path); got.code != exitFailed {
		t.Errorf("over another key: %+v", got)
	}
	if got := offline(t, "", "operator", "new", "a b", "--out", filepath.Join(dir, "x")); got.code != exitFailed {
		t.Errorf("%+v", got)
	}
	must(t, os.Chmod(path, 0o644))
	if got := offline(t, "", "operator", "show", path); got.code != exitFailed || !strings.Contains(got.err, "others can read") {
		t.Errorf("%+v", got)
	}
}

// An order of two people, from the first signature to the entry in the ledger.
func TestOrderOfTwo(t *testing.T) {
	keys := t.TempDir()
	lines := people(t, keys, "ann", "bob", "eve")
	key := func(name string) string { return filepath.Join(keys, name+".key") }
	d := keeperDesk(t, lines[:2]...)
	order := d.path("order.json")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	var v struct {
		Act, Region, Subject string
		Parameters           map[string]string
		Signed               []string
		Needed               int
	}
	offline(t, "", "order", "make", "open-campaign", "--region", "us", "--subject", "spring; cleaning", "--set", "rate=600", "--set", "until="+until,
		"--key", key("ann"), "--out", order, "--json").ok(t, &v)
	if v.Act != "open-campaign" || v.Region != "us" || v.Subject != "spring; cleaning" || v.Parameters["rate"] != "600" || v.Parameters["until"] != until ||
		len(v.Signed) != 1 || v.Needed != 2 {
		t.Errorf("%+v", v)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if got := d.cli(args...); got.code != exitFailed || !strings.Contains(got.err, want) {
			t.Errorf("%v: %+v, want %q", args, got, want)
		}
	}
	fails("1 of 2 operators", "order", "submit", order)
	fails("signed the order already", "order", "sign", order, "--key", key("ann"), "--yes")
	before, err := os.ReadFile(order)
	must(t, err)
	for _, answer := range []string{"", "no\n", "yes, of course\n"} {
		got := offline(t, answer, "order", "sign", order, "--key", key("bob"))
		if got.code != exitFailed || !strings.Contains(got.err, "rate = 600") || !strings.Contains(got.err, "as bob?") {
			t.Errorf("%q: %+v", answer, got)
		}
	}
	if after, err := os.ReadFile(order); err != nil || string(after) != string(before) {
		t.Error("it was signed all the same", err)
	}
	strange := d.file("strange.json", before)
	offline(t, "", "order", "sign", strange, "--key", key("eve"), "--yes").ok(t, nil)
	fails("not of an operator of this keeper", "order", "submit", strange)

	offline(t, "yes\n", "order", "sign", order, "--key", key("bob")).ok(t, nil)
	if text := offline(t, "", "order", "show", order).ok(t, nil).out; !strings.Contains(text, "nothing more: sallyport order submit "+order) {
		t.Error(text)
	}
	var done struct{ Text, Secret *string }
	d.cli("order", "submit", order, "--json").ok(t, &done)
	if done.Text == nil || *done.Text != "the campaign is open" || done.Secret != nil {
		t.Errorf("%+v", done)
	}
	fails("carried out already", "order", "submit", order)

	var entries []struct {
		Index               int64
		Actor, Act, Subject string
		Outcome             string
	}
	d.cli("ledger", "search", "--act", "open-campaign", "--json").ok(t, &entries)
	if len(entries) != 2 || entries[0].Actor != "operators ann, bob" || !strings.Contains(entries[0].Subject, "spring; cleaning") || entries[1].Outcome != "done" {
		t.Errorf("%+v", entries)
	}
	// What the keeper wrote is proved and verified without it.
	proof := d.cli("ledger", "prove", "0").ok(t, nil).out
	offline(t, proof, "ledger", "verify", "--proof", "-").ok(t, nil)
	if v := readVerified(t, d.cli("ledger", "verify", "--json").ok(t, nil)); !v.OK || v.Entries < 10 {
		t.Errorf("%+v", v)
	}
}

// What is said to one keeper alone: the gateway is not told which row is a
// decoy, and the decoy's password comes back once.
func TestOrderPastTheGateway(t *testing.T) {
	keys := t.TempDir()
	d := keeperDesk(t, people(t, keys, "ann")...)
	key, order := filepath.Join(keys, "ann.key"), d.path("decoy.json")
	offline(t, "", "order", "make", "plant-decoy", "--region", "us", "--set", "tenant=acme", "--set", "connection=old-relay", "--set", "host=mail.example",
		"--set", "port=587", "--set", "kind=credential", "--set", "user=relay", "--key", key, "--out", order).ok(t, nil)
	if got := d.cli("order", "submit", order); got.code != exitFailed || !strings.Contains(got.err, "--socket") {
		t.Errorf("%+v", got)
	}
	d.refusesByRoute(t, order, "decoy")
	var done struct{ Text, Secret, Report string }
	offline(t, "", "order", "submit", order, "--socket", d.cells["us"].socket, "--json").ok(t, &done)
	if done.Text == "" || len(done.Secret) < 20 {
		t.Errorf("%+v", done)
	}
	if got := d.cli("ledger", "export", "-").ok(t, nil).out; strings.Contains(got, done.Secret) || strings.Contains(got, "decoy acme") || strings.Contains(got, "decoy tenant") {
		t.Error("the ledger tells of the decoy")
	}
	// Its partner reports a use, through the gateway and past it.
	if got := offline(t, done.Report+"\n", "decoy", "seen", "--stdin", "--api", d.url).ok(t, nil).out; !strings.HasPrefix(got, "reported") {
		t.Error(got)
	}
	var seen struct{ Reported bool }
	if offline(t, done.Report, "decoy", "seen", "--stdin", "--from", "192.0.2.7", "--socket", d.cells["us"].socket, "--json").ok(t, &seen); !seen.Reported {
		t.Errorf("%+v", seen)
	}
	if got := offline(t, "us.other", "decoy", "seen", "--stdin", "--socket", d.cells["us"].socket); got.code != exitFailed || !strings.Contains(got.err, "REGION.CODE") {
		t.Errorf("%+v", got)
	}
	release := d.path("release.json")
	offline(t, "", "order", "make", "release-decoy", "--region", "us", "--set", "tenant=acme", "--set", "connection=old-relay", "--key", key, "--out", release).ok(t, nil)
	d.refusesByRoute(t, release, "decoy")
	text := offline(t, "", "order", "submit", release, "--socket", d.cells["us"].socket).ok(t, nil).out
	if !strings.Contains(text, "release-decoy") || strings.Contains(text, "secret") {
		t.Error(text)
	}
	secret := d.path("secret.json")
	offline(t, "hunter2\n", "order", "make", "restore", "--region", "us", "--set-file", "password=-", "--key", key, "--out", secret).ok(t, nil)
	shown := offline(t, "", "order", "show", secret).ok(t, nil)
	if got := d.cli("order", "submit", secret); got.code != exitFailed || !strings.Contains(got.err, "password") || strings.Contains(shown.out+got.err, "hunter2") {
		t.Errorf("%+v %s", got, shown.out)
	}
	d.refusesByRoute(t, secret, "password")
	if got := offline(t, "", "order", "submit", order, "--socket", d.path("nothing")); got.code != exitFailed || !strings.Contains(got.err, "keeper runs") {
		t.Errorf("%+v", got)
	}
}

// refusesByRoute posts an order as a program of somebody else's would: it is
// refused, and the keeper is not told of it.
func (d *desk) refusesByRoute(t *testing.T, file, why string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	token, err := os.ReadFile(d.path("operator"))
	must(t, err)
	before := d.cli("ledger", "search", "--act", "order", "--json").ok(t, nil).out
	body, err := json.Marshal(map[string]any{"region": "us", "order": json.RawMessage(raw)})
	must(t, err)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/v1/orders", bytes.NewReader(body))
	must(t, err)
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	q.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(q)
	must(t, err)
	defer answer.Body.Close()
	var p struct{ Detail, Hint string }
	must(t, json.NewDecoder(answer.Body).Decode(&p))
	if answer.StatusCode != http.StatusForbidden || answer.Header.Get("Content-Type") != "application/problem+json" ||
		!strings.Contains(p.Detail, why) || !strings.Contains(p.Hint, "--socket") {
		t.Errorf("%d %+v", answer.StatusCode, p)
	}
	if after := d.cli("ledger", "search", "--act", "order", "--json").ok(t, nil).out; after != before {
		t.Errorf("the keeper was told: %s", after)
	}
}

func TestOrderRefuses(t *testing.T) {
	keys := t.TempDir()
	d := keeperDesk(t, people(t, keys, "ann")...)
	key := filepath.Join(keys, "ann.key")
	make := func(args ...string) ran {
		return offline(t, "", append([]string{"order", "make", "--key", key}, args...)...)
	}
	for name, c := range map[string]struct {
		code int
		args []string
	}{
		"no region":      {exitUsage, []string{"thaw", "--out", d.path("a")}},
		"no out":         {exitUsage, []string{"thaw", "--region", "us"}},
		"too long":       {exitUsage, []string{"thaw", "--region", "us", "--out", d.path("a"), "--for", "25h"}},
		"no time":        {exitUsage, []string{"thaw", "--region", "us", "--out", d.path("a"), "--for", "0s"}},
		"no such act":    {exitFailed, []string{"burn", "--region", "us", "--out", d.path("a")}},
		"how many":       {exitFailed, []string{"change-binding", "--region", "us", "--out", d.path("a")}},
		"twice":          {exitUsage, []string{"thaw", "--region", "us", "--out", d.path("a"), "--set", "a=b", "--set-file", "a=-"}},
		"no such file":   {exitFailed, []string{"thaw", "--region", "us", "--out", d.path("a"), "--set-file", "a=" + d.path("missing")}},
		"text too long":  {exitFailed, []string{"thaw", "--region", "us", "--out", d.path("a"), "--subject", strings.Repeat("x", 5000)}},
		"over a file":    {exitFailed, []string{"thaw", "--region", "us", "--out", key}},
		"into no folder": {exitFailed, []string{"thaw", "--region", "us", "--out", d.path("no/a")}},
	} {
		if got := make(c.args...); got.code != c.code || got.err == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := os.Stat(d.path("a")); err == nil {
		t.Error("an order that was refused was written")
	}
	// Texts that would deceive who reads them on a terminal.
	make("rotate-kek", "--region", "us", "--subject", "fine\x1b[1A", "--set", "kek=p\u0430ypal", "--out", d.path("odd")).ok(t, nil)
	text := offline(t, "", "order", "show", d.path("odd")).ok(t, nil).out
	if !strings.Contains(text, `"fine\x1b[1A"`) || !strings.Contains(text, `p\u0430ypal`) {
		t.Error(text)
	}
	// One byte of an order, in each of its parts.
	raw, err := os.ReadFile(d.path("odd"))
	must(t, err)
	for _, at := range []int{20, 60, 120, len(raw) - 20} {
		edited := []byte(string(raw))
		if edited[at]++; edited[at] > 'z' {
			edited[at] = 'a'
		}
		if got := d.cli("order", "submit", d.file("edited", edited)); got.code != exitFailed {
			t.Errorf("byte %d: %+v", at, got)
		}
	}
	for name, text := range map[string]string{"nothing": "", "no order": "{}", "a diary": "dear diary"} {
		for _, verb := range []string{"show", "submit"} {
			if got := d.cli("order", verb, d.file("none", []byte(text))); got.code != exitFailed {
				t.Errorf("%s %s: %+v", verb, name, got)
			}
		}
	}
}
