package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// shelf is real ledgers on SQLite, one a region, and the verifier of orders
// that a keeper has.
type shelf struct {
	order   []string
	ledgers map[string]*ledger.Ledger
	keys    map[string]string
	verify  map[string]*operator.Verifier
	away    map[string]bool // regions whose keeper does not answer
	seen    []api.Sighting
	frozen  map[string]string
	forGood map[string]bool
	cut     int       // an export breaks off after so many bytes, 0 for not
	begun   chan bool // an export says that it has begun, and waits until
	resume  chan bool // this is closed; nil for neither
}

func newShelf(t testing.TB, regions ...string) *shelf {
	t.Helper()
	s := &shelf{order: regions, ledgers: map[string]*ledger.Ledger{}, keys: map[string]string{}, verify: map[string]*operator.Verifier{}, away: map[string]bool{}}
	for _, r := range regions {
		secret, key, err := note.GenerateKey(nil, "sallyport."+r+".example.test")
		must(t, err)
		signer, err := note.NewSigner(secret)
		must(t, err)
		db, err := store.OpenKeeper(t.Context(), store.Config{Dir: t.TempDir()})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		s.ledgers[r], err = ledger.Open(t.Context(), ledger.Config{DB: db, Region: r, Signer: signer, Keys: []string{key}})
		must(t, err)
		s.keys[r] = key
	}
	return s
}

func (s *shelf) enter(t testing.TB, region string, e ...ledger.Entry) int64 {
	t.Helper()
	index, err := s.ledgers[region].Append(t.Context(), e...)
	must(t, err)
	return index
}

func of(tenant string) ledger.Entry {
	return ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: "open-credential", Tenant: tenant, Connection: tenant + "-mailbox",
		Subject: "for " + tenant, Purpose: "smtp-auth", Trace: "trace-" + tenant, Outcome: "done"}
}

func (s *shelf) find(region string) (*ledger.Ledger, error) {
	if s.away[region] {
		return nil, fault.New(fault.Later, "keeper.x", "the keeper does not answer")
	}
	return s.ledgers[region], nil
}

func (s *shelf) Regions() []string { return s.order }

func (s *shelf) Search(ctx context.Context, region string, q api.BookQuery) (all []json.RawMessage, next int64, err error) {
	l, err := s.find(region)
	if err != nil {
		return nil, 0, err
	}
	found, err := l.Search(ctx, ledger.Filter{Tenant: q.Tenant, Actor: q.Actor, Act: q.Act, Connection: q.Connection, Trace: q.Trace,
		Since: q.Since, Until: q.Until, From: q.From, Limit: q.Limit + 1})
	for _, e := range found {
		if len(all) == q.Limit {
			return all, e.Index, nil
		}
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, raw)
	}
	return all, 0, err
}

func (s *shelf) Entry(ctx context.Context, region string, index int64) (json.RawMessage, error) {
	l, err := s.find(region)
	if err != nil {
		return nil, err
	}
	e, err := l.Show(ctx, index)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

func (s *shelf) Proof(ctx context.Context, region string, index int64) (json.RawMessage, error) {
	l, err := s.find(region)
	if err != nil {
		return nil, err
	}
	p, err := l.Prove(ctx, index)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func (s *shelf) Export(ctx context.Context, region string, w io.Writer) error {
	l, err := s.find(region)
	if err != nil {
		return err
	}
	if s.begun != nil {
		s.begun <- true
		<-s.resume
	}
	if s.cut > 0 {
		w = &cutter{w, s.cut}
	}
	return l.Export(ctx, w)
}

// cutter fails after some bytes, as a disk or a keeper that goes.
type cutter struct {
	io.Writer
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) <= c.left {
		c.left -= len(b)
		return c.Writer.Write(b)
	}
	n, _ := c.Writer.Write(b[:c.left])
	c.left = 0
	return n, errors.New("the keeper has gone")
}

func (s *shelf) Status(_ context.Context, region string) (api.BookStatus, error) {
	l, err := s.find(region)
	if err != nil {
		return api.BookStatus{}, err
	}
	raw, err := json.Marshal(l.Status())
	return api.BookStatus{State: raw, Keys: []string{s.keys[region]}, Frozen: s.frozen[region], ForGood: s.forGood[region]}, err
}

func (s *shelf) Order(ctx context.Context, region string, order []byte) (api.Ordered, error) {
	v, err := s.verify[region].Verify(ctx, order)
	if err != nil {
		return api.Ordered{}, err
	}
	text := fmt.Sprint(v.Order().Act, " by ", v.Signers())
	return api.Ordered{Text: &text, Secret: new("once")}, nil
}

// ReportSighting knows one code.
func (s *shelf) ReportSighting(_ context.Context, region string, q api.Sighting) error {
	if q.Code != region+".good" {
		return fault.New(fault.Missing, "shelf", "no decoy has this report code").WithHint("Use it whole.")
	}
	s.seen = append(s.seen, q)
	return nil
}

// nonces spends each once, in memory.
type nonces map[[16]byte]bool

func (n nonces) Spend(_ context.Context, nonce [16]byte, _ time.Time) error {
	if n[nonce] {
		return fault.New(fault.Conflict, "nonces", "the order was carried out already").WithHint("Make another.")
	}
	n[nonce] = true
	return nil
}

func newBooksRig(t *testing.T, regions ...string) (*rig, *shelf) {
	t.Helper()
	s := newShelf(t, regions...)
	r := newRig(t, func(c *api.Config) { c.Books = s })
	r.tenant("acme")
	r.tenant("bolt")
	return r, s
}

type entryPage struct {
	Items []api.LedgerEntry
	Next  string
}

func (r *rig) indexes(query, token string) string {
	r.t.Helper()
	var got []string
	for after := ""; ; {
		var p entryPage
		r.ok("GET", "/v1/ledger/entries"+query+after, token, nil).into(r.t, &p)
		for _, e := range p.Items {
			got = append(got, fmt.Sprint(e.Index))
		}
		if p.Next == "" {
			return strings.Join(got, " ")
		}
		after = "&after=" + p.Next
	}
}

func TestLedgerSearch(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	early := of("acme")
	early.Time = time.Now().Add(-48 * time.Hour) // of an acme before this one
	intent := s.enter(t, "us", early, of("acme"), of("bolt"), ledger.Entry{Source: ledger.Asserted, Actor: "token:1", Act: "tenant.add", Tenant: "acme"}, of("")) + 1
	after := of("acme")
	after.Of, after.Trace = &intent, "another"
	s.enter(t, "us", after)
	s.enter(t, "uk", of("uk-only"))
	acme, bolt := r.token(tenant.Read, "acme"), r.token(tenant.Admin, "bolt")
	for _, c := range []struct{ query, token, want string }{
		{"?limit=100", r.operator, "0 1 2 3 4 5"},
		{"?limit=1", r.operator, "0 1 2 3 4 5"},
		{"?limit=2&tenant=acme", r.operator, "0 1 3 5"},
		{"?limit=2&tenant=acme", acme, "1 3 5"},
		{"?limit=2", acme, "1 3 5"},
		{"?limit=3", bolt, "2"},
		{"?act=tenant.add", acme, "3"},
		{"?actor=token%3A1", r.operator, "3"},
		{"?trace=another", r.operator, "5"},
		{"?connection=bolt-mailbox", r.operator, "2"},
		{"?connection=bolt-mailbox", acme, ""},
		{"?since=24h", r.operator, "1 2 3 4 5"},
		{"?since=72h", acme, "1 3 5"},
		{"?until=24h", r.operator, "0"},
		{"?until=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339), acme, "1 3 5"},
		{"?region=uk", r.operator, "0"},
		{"?region=uk", acme, ""},
		{"?tenant=nobody", r.operator, ""},
	} {
		if got := r.indexes(c.query, c.token); got != c.want {
			t.Errorf("%s: %q, want %q", c.query, got, c.want)
		}
	}
	for query, status := range map[string]int{
		"?region=fr": 404, "?after=x": 400, "?after=-1": 400, "?since=soon": 400, "?until=later": 400, "?limit=0": 400, "?wrong=1": 400,
	} {
		if a := r.call("GET", "/v1/ledger/entries"+query, r.operator, nil); a.status != status || a.problem(t).Hint == "" {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// Left out, the region is that of the tenant that is named or asks; one that
// there is no more has none.
func TestLedgerRegion(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	_, err := r.tenants.Add(t.Context(), "system", tenant.Tenant{Name: "crown", Region: "uk"})
	must(t, err)
	s.enter(t, "us", of("left"), of("crown"), of("crown"))
	s.enter(t, "uk", of("crown"))
	token := r.token(tenant.Admin, "crown")
	for _, c := range []struct{ query, token, want string }{
		{"?tenant=crown", r.operator, "0"}, {"?limit=9", token, "0"}, {"?region=us", token, "1 2"}, {"?tenant=left", r.operator, "0"},
		{"?tenant=left&region=uk", r.operator, ""}, {"?limit=9", r.operator, "0 1 2"},
	} {
		if got := r.indexes(c.query, c.token); got != c.want {
			t.Errorf("%s: %q, want %q", c.query, got, c.want)
		}
	}
	for path, status := range map[string]int{"0": 200, "1": 404, "1?region=us": 200, "0?region=us": 404, "0/proof": 200, "0/proof?region=us": 404} {
		if a := r.call("GET", "/v1/ledger/entries/"+path, token, nil); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// The fields of the contract, null when absent.
func TestLedgerEntry(t *testing.T) {
	r, s := newBooksRig(t, "us")
	at := time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)
	s.enter(t, "us", ledger.Entry{Source: ledger.Asserted, Actor: "system", Act: "x", Time: at, Subject: "<a&b>"})
	got := strings.TrimSpace(string(r.ok("GET", "/v1/ledger/entries/0", r.operator, nil).body))
	e, err := s.ledgers["us"].Show(t.Context(), 0)
	must(t, err)
	want := `{"index":0,"time":"` + e.Time.Format(time.RFC3339Nano) + `","source":"asserted","actor":"system","act":"x","tenant":null,"connection":null,` +
		`"subject":"<a&b>","purpose":null,"trace":null,"outcome":null,"of":null,"count":null,"key":null,"hash":"` + e.Hash + `","removed":false}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, path := range []string{"/v1/ledger/entries/1", "/v1/ledger/entries/1/proof", "/v1/ledger/entries/0?region=fr"} {
		if a := r.call("GET", path, r.operator, nil); a.status != 404 || a.problem(t).Hint == "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, index := range []string{"-1", "x", "99999999999999999999"} {
		if a := r.call("GET", "/v1/ledger/entries/"+index, r.operator, nil); a.status != 400 {
			t.Errorf("%s: %d %s", index, a.status, a.body)
		}
	}
}

// A tenant's own entries are his to show and to prove; those of another, of
// nobody, and of one who had his name before, are missing.
func TestLedgerOfATenant(t *testing.T) {
	r, s := newBooksRig(t, "us")
	former := of("acme")
	former.Time = time.Now().Add(-time.Hour)
	s.enter(t, "us", of("acme"), of("bolt"), of(""), former)
	token := r.token(tenant.Read, "acme")
	for index := range 6 {
		for _, tail := range []string{"", "/proof"} {
			path := fmt.Sprintf("/v1/ledger/entries/%d%s", index, tail)
			a := r.call("GET", path, token, nil)
			if index == 0 {
				if a.status != 200 {
					t.Errorf("%s: %d %s", path, a.status, a.body)
				}
				continue
			}
			if p := a.problem(t); a.status != 404 || p.Detail != fmt.Sprintf("there is no entry %d", index) {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
	}
}

func TestLedgerProof(t *testing.T) {
	r, s := newBooksRig(t, "us")
	s.enter(t, "us", of("acme"), of("bolt"), of("acme"))
	raw := r.ok("GET", "/v1/ledger/entries/2/proof", r.operator, nil).body
	report, err := audit.VerifyProof(raw, audit.Options{Keys: []string{s.keys["us"]}})
	if err != nil || !report.OK || report.Index != 2 {
		t.Errorf("%+v %v", report, err)
	}
}

func TestLedgerExport(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	for range 600 {
		s.enter(t, "us", of("acme"))
	}
	s.enter(t, "uk", of("bolt"))
	for region, entries := range map[string]int64{"": 600, "?region=uk": 1} {
		a := r.ok("GET", "/v1/ledger/export"+region, r.operator, nil)
		report, err := audit.Verify(bytes.NewReader(a.body), audit.Options{})
		if err != nil || !report.OK || report.Entries != entries || a.header.Get("Content-Type") != "application/jsonl" {
			t.Errorf("%q: %+v %v %v", region, report, err, a.header)
		}
	}
	s.away["us"] = true
	if a := r.call("GET", "/v1/ledger/export", r.operator, nil); a.status != 503 || a.problem(t).Detail != "the keeper does not answer" {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.away["us"], s.cut = false, 100_000
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/v1/ledger/export", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+r.operator)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || len(body) > s.cut {
		t.Errorf("an export that broke off looks whole: %d bytes", len(body))
	}
}

// So many exports at a time, and no more: each holds a keeper's connection.
func TestLedgerExportsAtOnce(t *testing.T) {
	r, s := newBooksRig(t, "us")
	s.enter(t, "us", of("acme"))
	const most = 4
	s.begun, s.resume = make(chan bool), make(chan bool)
	answers := make(chan answer)
	for range most {
		go func() { answers <- r.call("GET", "/v1/ledger/export", r.operator, nil) }()
	}
	for range most {
		<-s.begun
	}
	if a := r.call("GET", "/v1/ledger/export", r.operator, nil); a.status != 503 || a.problem(t).Hint == "" {
		t.Errorf("one more: %d %s", a.status, a.body)
	}
	close(s.resume)
	for range most {
		if a := <-answers; a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestLedgerStatus(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	s.enter(t, "us", of("acme"))
	c, err := s.ledgers["us"].Checkpoint(t.Context())
	must(t, err)
	s.away["uk"] = true
	var got api.Ledgers
	r.ok("GET", "/v1/ledger", r.operator, nil).into(t, &got)
	if len(got.Regions) != 2 {
		t.Fatalf("%+v", got)
	}
	if f := got.Regions[0].Frozen; f != nil {
		t.Errorf("frozen: %s", *f)
	}
	s.frozen = map[string]string{"us": "an old copy"}
	r.ok("GET", "/v1/ledger", r.operator, nil).into(t, &got)
	us, uk := got.Regions[0], got.Regions[1]
	if us.Frozen == nil || *us.Frozen != "an old copy" || us.ForGood {
		t.Errorf("frozen: %+v", us)
	}
	s.forGood = map[string]bool{"us": true}
	if raw := r.ok("GET", "/v1/ledger", r.operator, nil); !strings.Contains(string(raw.body), `"frozen_for_good":true`) {
		t.Error(string(raw.body))
	}
	if us.Region != "us" || *us.Size != 1 || us.Checkpoint.Size != 1 || us.Checkpoint.Hash != fmt.Sprintf("%x", c.Hash[:]) ||
		us.Keys[0] != s.keys["us"] || us.Error != nil || us.Witnesses == nil {
		t.Errorf("%+v", us)
	}
	if uk.Region != "uk" || uk.Size != nil || uk.Error == nil || *uk.Error != "the keeper does not answer" {
		t.Errorf("%+v", uk)
	}
}

// Where there is no keeper each route says so, and says it is not for ever.
func TestNoKeeper(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/v1/ledger", "/v1/ledger/entries", "/v1/ledger/entries/0", "/v1/ledger/entries/0/proof", "/v1/ledger/export"} {
		if a := r.call("GET", path, r.operator, nil); a.status != 503 || !strings.Contains(a.problem(t).Detail, "no keeper") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := r.call("POST", "/v1/orders", r.operator, object{"region": "us", "order": object{}}); a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestOrders(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	dir := t.TempDir()
	ann, err := operator.NewKey(dir+"/ann", "ann")
	must(t, err)
	bob, err := operator.NewKey(dir+"/bob", "bob")
	must(t, err)
	for _, region := range s.order {
		s.verify[region], err = operator.NewVerifier(operator.Config{Region: region, Operators: []operator.Public{ann.Public(), bob.Public()}, Nonces: nonces{}})
		must(t, err)
	}
	one, err := operator.Sign(operator.New(operator.Thaw, "us", "us", nil, time.Now().Add(time.Hour)), ann)
	must(t, err)
	two, err := operator.Cosign(one, bob, func(operator.Order) bool { return true })
	must(t, err)
	for _, c := range []struct {
		name   string
		body   any
		status int
	}{
		{"no region", object{"order": json.RawMessage(two)}, 400},
		{"no order", object{"region": "us"}, 400},
		{"no order of ours", object{"region": "us", "order": object{"a": 1}}, 400},
		{"another region's", object{"region": "uk", "order": json.RawMessage(two)}, 403},
		{"no such region", object{"region": "fr", "order": json.RawMessage(two)}, 404},
		{"one person", object{"region": "us", "order": json.RawMessage(one)}, 403},
		{"two people", object{"region": "us", "order": json.RawMessage(two)}, 200},
		{"again", object{"region": "us", "order": json.RawMessage(two)}, 409},
	} {
		a := r.call("POST", "/v1/orders", r.operator, c.body)
		if a.status != c.status {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		if a.status != 200 && c.status != 400 && a.problem(t).Hint == "" {
			t.Errorf("%s: no hint: %s", c.name, a.body)
		}
		if got := strings.TrimSpace(string(a.body)); a.status == 200 && got != `{"text":"thaw by [ann bob]","secret":"once","report":null}` {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// A partner's hook needs no token: the code is the proof. Strangers learn
// nothing, and nothing of theirs is kept.
func TestSightings(t *testing.T) {
	r, s := newBooksRig(t, "us", "uk")
	for _, c := range []struct {
		name   string
		body   any
		status int
	}{
		{"no code", object{}, 400},
		{"too long", object{"code": "us." + strings.Repeat("A", 2000)}, 400},
		{"no time", object{"code": "us.good", "at": "yesterday"}, 400},
		{"no region", object{"code": ".good"}, 404},
		{"another region", object{"code": "fr.good"}, 404},
		{"no such code", object{"code": "us.bad"}, 404},
		{"seen", object{"code": "uk.good", "at": "2026-03-01T12:00:00Z", "from": "192.0.2.7", "note": "imap"}, 200},
		{"seen now", object{"code": "us.good"}, 200},
	} {
		a := r.call("POST", "/v1/sightings", "", c.body)
		if a.status != c.status {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		if a.status == 404 && (a.problem(t).Detail != "no decoy has this report code" || strings.Contains(string(a.body), "uk")) {
			t.Errorf("%s: %s", c.name, a.body)
		}
	}
	if len(s.seen) != 2 || s.seen[0].From != "192.0.2.7" || s.seen[0].At.Year() != 2026 || s.seen[1].At == nil {
		t.Errorf("%+v", s.seen)
	}
}
