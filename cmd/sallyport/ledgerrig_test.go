package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cell is a region's keeper as far as its ledger and orders go: a real ledger
// and a real verifier of orders behind the keeper's own socket. What else a
// keeper does is not asked here, and would be a nil method.
type cell struct {
	wire.Acts
	t        testing.TB
	region   string
	db       *store.KeeperDB
	ledger   *ledger.Ledger
	key      string
	socket   string
	verifier *operator.Verifier
	spent    map[[16]byte]bool
	frozen   string
	forGood  bool
	short    bool // its answers have fewer entries than are asked for
}

func newCell(t testing.TB, region string) *cell { t.Helper(); return newCellOf(t, region, nil) }

// newCellOf is one whose ledger key is made out of a seed, when there is one.
func newCellOf(t testing.TB, region string, seed io.Reader) *cell {
	t.Helper()
	c := &cell{t: t, region: region, spent: map[[16]byte]bool{}, socket: filepath.Join(t.TempDir(), "k")}
	secret, key, err := note.GenerateKey(seed, "sallyport."+region+".gate.example")
	must(t, err)
	signer, err := note.NewSigner(secret)
	must(t, err)
	c.key = key
	c.db, err = store.OpenKeeper(t.Context(), store.Config{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { c.db.Close() })
	c.ledger, err = ledger.Open(t.Context(), ledger.Config{DB: c.db, Region: region, Signer: signer, Keys: []string{key}})
	must(t, err)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.socket, Net: "unix"})
	must(t, err)
	s, err := wire.New(wire.Config{Region: region, Acts: c, Refused: func(wire.Refusal) {}, Allow: []wire.Grant{{
		Local: true, UID: uint32(os.Getuid()), Acts: []act.Name{act.SearchLedger, act.ShowEntry, act.ProveEntry, act.ExportLedger, act.Status, act.Order, act.ReportSighting, act.ReportSighting},
	}}})
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.ServeUnix(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cell) SearchLedger(ctx context.Context, _ wire.Peer, q act.Search) (act.Entries, error) {
	found, err := c.ledger.Search(ctx, ledger.Filter{Tenant: q.Tenant, Connection: q.Connection, Act: q.Act, Actor: q.Actor, Trace: q.Of,
		Since: q.Since, Until: q.Until, From: q.From, Limit: q.Limit + 1})
	var all act.Entries
	most := q.Limit
	if c.short {
		most = (min(len(found), most) + 1) / 2
	}
	if len(found) > most {
		all.Next, found = found[most].Index, found[:most]
	}
	for _, e := range found {
		all.Entries = append(all.Entries, marshal(c.t, e))
	}
	return all, err
}

func (c *cell) ShowEntry(ctx context.Context, _ wire.Peer, q act.Entry) (act.Document, error) {
	e, err := c.ledger.Show(ctx, q.Index)
	return act.Document{Document: marshal(c.t, e)}, err
}

func (c *cell) ProveEntry(ctx context.Context, _ wire.Peer, q act.Entry) (act.Document, error) {
	p, err := c.ledger.Prove(ctx, q.Index)
	return act.Document{Document: marshal(c.t, p)}, err
}

func (c *cell) ExportLedger(ctx context.Context, _ wire.Peer, _ act.Plain, w io.Writer) error {
	return c.ledger.Export(ctx, w)
}

// exported is the ledger's export.
func (c *cell) exported() string {
	c.t.Helper()
	var b strings.Builder
	must(c.t, c.ledger.Export(c.t.Context(), &b))
	return b.String()
}

func (c *cell) Status(context.Context, wire.Peer, act.Plain) (act.State, error) {
	return act.State{Region: c.region, Frozen: c.frozen, ForGood: c.forGood, Ledger: marshal(c.t, c.ledger.Status()), LedgerKeys: []string{c.key}}, nil
}

func (c *cell) Order(ctx context.Context, p wire.Peer, q act.SignedOrder) (act.Ordered, error) {
	v, err := c.verifier.Verify(ctx, q.Order)
	if err != nil {
		return act.Ordered{}, err
	}
	_, err = c.ledger.Append(ctx, ledger.Entry{Source: ledger.Witnessed, Actor: strings.Join(v.Signers(), "+"), Act: v.Order().Act,
		Subject: v.Order().Subject, Outcome: "done", Purpose: p.String()})
	return act.Ordered{Text: "done"}, err
}

// Spend is of operator.Nonces.
func (c *cell) Spend(_ context.Context, nonce [16]byte, _ time.Time) error {
	if c.spent[nonce] {
		return fault.New(fault.Conflict, "cell.Spend", "the order was carried out already").WithHint("Make another.")
	}
	c.spent[nonce] = true
	return nil
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return raw
}

// fill enters n entries of three tenants.
func (c *cell) fill(n int) {
	c.t.Helper()
	for done := 0; done < n; {
		some := make([]ledger.Entry, min(n-done, 1000))
		for i := range some {
			k := done + i
			some[i] = ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: "open-credential", Tenant: fmt.Sprint("t", k%3),
				Connection: "mailbox", Subject: fmt.Sprint("subject ", k), Purpose: "smtp-auth", Trace: fmt.Sprint("trace", k), Outcome: "done"}
		}
		_, err := c.ledger.Append(c.t.Context(), some...)
		must(c.t, err)
		done += len(some)
	}
}

// desk is a gateway's API in this process, over its keepers' sockets.
type desk struct {
	t       testing.TB
	cells   map[string]*cell
	order   []string
	tenants *tenant.Registry
	url     string
	dir     string // of the test's own files
}

func newDesk(t testing.TB, regions ...string) *desk {
	t.Helper()
	d := &desk{t: t, cells: map[string]*cell{}, order: regions, dir: t.TempDir()}
	for _, r := range regions {
		d.cells[r] = newCell(t, r)
	}
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	log := slog.New(slog.DiscardHandler)
	d.tenants, err = tenant.New(t.Context(), tenant.Config{DB: db.Control, Regions: regions, Log: log, Now: time.Now})
	must(t, err)
	d.token("operator", tenant.Token{Role: tenant.Operator})
	server := httptest.NewServer(api.New(api.Config{Tenants: d.tenants, Books: booksOf(d, regions), Log: log, Now: time.Now}))
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// Region is of keepers.
func (d *desk) Region(region string) (*client.Remote, error) {
	r, err := client.NewRemote(client.RemoteConfig{Region: region, Socket: d.cells[region].socket})
	if err == nil {
		d.t.Cleanup(r.Close)
	}
	return r, err
}

// Regions is of keepers, in no order that means anything.
func (d *desk) Regions() []string {
	var all []string
	for r := range d.cells {
		all = append(all, r)
	}
	return all
}

// token puts a token into a file of that name.
func (d *desk) token(name string, of tenant.Token) {
	d.t.Helper()
	_, secret, err := d.tenants.AddToken(d.t.Context(), "system", of)
	must(d.t, err)
	must(d.t, os.WriteFile(d.path(name), []byte(secret+"\n"), 0o600))
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) file(name string, text []byte) string {
	d.t.Helper()
	must(d.t, os.WriteFile(d.path(name), text, 0o600))
	return d.path(name)
}

type ran struct {
	code     int
	out, err string
}

// cli runs a verb as the operator, or as the hand whose token is named.
func (d *desk) cli(args ...string) ran { d.t.Helper(); return d.as("operator", args...) }

func (d *desk) as(hand string, args ...string) ran {
	d.t.Helper()
	return offline(d.t, "", append([]string{"--api", d.url, "--token-file", d.path(hand)}, args...)...)
}

// offline runs a verb with neither gateway nor folder.
func offline(t testing.TB, stdin string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--data", filepath.Join(t.TempDir(), "none"))
	code := run(context.WithoutCancel(t.Context()), args, strings.NewReader(stdin), &out, &errs)
	return ran{code, out.String(), errs.String()}
}

// ok demands success and reads what was printed, when into is not nil.
func (r ran) ok(t testing.TB, into any) ran {
	t.Helper()
	if r.code != exitDone {
		t.Fatalf("exit %d: %s%s", r.code, r.out, r.err)
	}
	if into != nil {
		must(t, json.Unmarshal([]byte(r.out), into))
	}
	return r
}
