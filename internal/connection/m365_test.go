package connection_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// cloud is a house beside a simulated Microsoft 365 whose first tenant is
// acme's.
type cloud struct {
	*house
	sim    *sim.Sim
	keeper *custodian.Keeper
	one    sim.Listed
	admin  *admin.Client
	graph  *graph.Client
}

func newCloud(t testing.TB, change func(*connection.Config)) *cloud {
	t.Helper()
	return newCloudOn(t, openSQLite(t), change)
}

func newCloudOn(t testing.TB, db *store.Store, change func(*connection.Config)) *cloud {
	t.Helper()
	c := &cloud{keeper: custodian.New(t)}
	s, err := sim.Open(sim.Config{Tenants: 2})
	must(t, err)
	must(t, s.Serve(listen(t), listen(t)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Log(err)
		}
		if unknown := s.Unknown(); len(unknown) > 0 {
			t.Errorf("the simulator did not know %v", unknown)
		}
	})
	c.sim, c.one = s, s.List()[0]
	c.house = newHouse(t, db, func(config *connection.Config) {
		config.Now, config.Signers = time.Now, c.keeper
		config.Keepers = func(string) (connection.Keeper, error) { return c.keeper, nil }
		if change != nil {
			change(config)
		}
	})
	for _, d := range []string{"acme.test", "acme.example"} {
		must(t, c.tenants.RemoveDomain(t.Context(), "system", "acme", d))
	}
	_, err = c.tenants.AddDomain(t.Context(), "system", tenant.Domain{Name: c.one.Domain, Tenant: "acme"})
	must(t, err)
	give := func(context.Context) (string, error) { return c.one.AdminToken, nil }
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Pool()}, DisableKeepAlives: true}}
	c.admin = admin.New(admin.Config{Base: c.one.Graph, Tenant: c.one.EntraTenant, Token: give, HTTP: web, Now: time.Now})
	c.graph = graph.New(graph.Config{Base: c.one.Graph, Token: give, HTTP: web, Now: time.Now})
	return c
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

// mailbox is the walkthrough's connection.
func (c *cloud) mailbox(t testing.TB) connection.Connection {
	host, port := hostPort(t, c.one.SMTP)
	return connection.Connection{Tenant: "acme", Name: "mailbox", Kind: "m365", Host: host, Port: port, Graph: c.one.Graph,
		CA: string(c.sim.CA()), EntraTenant: c.one.EntraTenant}
}

func (c *cloud) connect(t testing.TB) {
	t.Helper()
	_, setup, err := c.AddGranted(t.Context(), "token:1", c.mailbox(t), connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	if !setup.OK {
		t.Fatalf("setup: %+v", setup.Steps)
	}
}

func (c *cloud) identities(t testing.TB) map[string]connection.Identity {
	t.Helper()
	all, err := c.Identities(t.Context(), "acme")
	must(t, err)
	byPurpose := map[string]connection.Identity{}
	for _, i := range all {
		if i.State == "active" {
			byPurpose[i.Purpose] = i
		}
	}
	return byPurpose
}

func (c *cloud) names(t testing.TB) []string {
	t.Helper()
	all, err := c.admin.Inbounds(t.Context())
	must(t, err)
	var names []string
	for _, i := range all {
		if i.Enabled {
			names = append(names, i.TlsSenderCertificateName)
		}
	}
	return names
}

func (c *cloud) keys(t testing.TB) int {
	t.Helper()
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	return len(app.Keys)
}

// test is connection test, which must find nothing wrong.
func (c *cloud) test(t testing.TB) {
	t.Helper()
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	if !report.OK {
		t.Errorf("the test found %+v", report.Steps)
	}
}

// finish runs the registry until the change of acme's mailbox is over.
func (c *cloud) finish(t testing.TB) connection.Replacement {
	t.Helper()
	said := ""
	for end := time.Now().Add(20 * time.Second); ; {
		p, err := c.Replacement(t.Context(), "acme", "mailbox")
		must(t, err)
		if s := p.State; s == connection.Done || s == connection.Undone || s == connection.Failed {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("still %s: %s", p.State, p.Waiting)
		}
		if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err != nil {
			if what := fmt.Sprintf("%s: %.120v", p.State, err); what != said {
				t.Log(what)
				said = what
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// deliverAs sends one message with a stolen certificate.
func (c *cloud) deliverAs(t testing.TB, h *custodian.Held) error {
	t.Helper()
	config := &tls.Config{RootCAs: c.sim.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{{Certificate: h.Chain, PrivateKey: h.Key}}}
	peer, err := gosmtp.DialStartTLS(c.one.SMTP, config)
	must(t, err)
	defer peer.Close()
	if err := peer.Mail("thief@elsewhere.test", nil); err != nil {
		return err
	}
	if err := peer.Rcpt("ann@"+c.one.Domain, nil); err != nil {
		return err
	}
	w, err := peer.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "Subject: x\r\n\r\nx\r\n"); err != nil {
		return err
	}
	return w.Close()
}

func TestM365Connection(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	ids := c.identities(t)
	if len(ids) != 2 || ids["smtp-client"].Epoch != 1 || ids["entra-app"].Epoch != 1 || ids["smtp-client"].SHA256 == "" {
		t.Errorf("identities %+v", ids)
	}
	if names := c.names(t); len(names) != 1 || names[0] != ids["smtp-client"].Name {
		t.Errorf("connectors name %v, not %s", names, ids["smtp-client"].Name)
	}
	if n := c.keys(t); n != 1 {
		t.Errorf("%d keys are registered", n)
	}
	c.test(t)
	if n := len(c.sim.Arrivals(c.one.EntraTenant)); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
	got, _ := c.Get("acme", "mailbox")
	if got.TLS != "mutual" || got.AppID != c.one.AppID || got.Login != c.one.Graph || got.Health.OK == nil || !*got.Health.OK {
		t.Errorf("the connection is %+v", got)
	}
	raw, err := json.Marshal(got)
	must(t, err)
	if strings.Contains(string(raw), c.one.AdminToken) {
		t.Error("the administrator's token is shown")
	}
	if !connection.Identical(c.mailbox(t), got) {
		t.Error("what was asked for is not identical to what is there")
	}
	must(t, c.Remove(t.Context(), "token:1", "acme", "mailbox"))
	if left := c.identities(t); len(left) != 0 {
		t.Errorf("identities of a removed connection: %+v", left)
	}
}

func TestM365Refusals(t *testing.T) {
	c := newCloud(t, nil)
	for what, change := range map[string]func(*connection.Connection){
		"no tenant":   func(m *connection.Connection) { m.EntraTenant = "" },
		"not an id":   func(m *connection.Connection) { m.EntraTenant = "acme" },
		"clear graph": func(m *connection.Connection) { m.Graph = "http://127.0.0.1" },
		"graph path":  func(m *connection.Connection) { m.Graph = "https://127.0.0.1/x" },
		"tls":         func(m *connection.Connection) { m.TLS = "verified" },
		"mx":          func(m *connection.Connection) { m.MX, m.Host = true, "" },
		"connector":   func(m *connection.Connection) { m.Connector = "a/b" },
		"smtp":        func(m *connection.Connection) { m.Kind = "smtp" },
	} {
		m := c.mailbox(t)
		change(&m)
		if _, err := c.Add(t.Context(), "token:1", m); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A keeper that is away leaves nothing behind of a connection that could not
// be made, and mail of one that was made waits.
func TestKeeperAway(t *testing.T) {
	c := newCloud(t, nil)
	c.keeper.SetAway(true)
	if _, err := c.Add(t.Context(), "token:1", c.mailbox(t)); !fault.Is(err, fault.Later) {
		t.Errorf("%v", err)
	}
	if n := len(c.List("acme")); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	c.keeper.SetAway(false)
	c.connect(t)
	c.keeper.SetAway(true)
	candidates, err := c.Candidates(t.Context(), "acme", "t:acme:mailbox", c.one.Domain, "mx.us.gate.example", netip.Addr{})
	must(t, err)
	if _, err := c.Dial(t.Context(), candidates[0], ""); err == nil {
		t.Error("a connection without a keeper")
	}
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	for _, s := range report.Steps {
		if s.Name == "tls" && (s.OK || !strings.Contains(s.Fix, "keeper")) {
			t.Errorf("the server is blamed for the keeper: %+v", s)
		}
	}
	if err := c.Remove(t.Context(), "token:1", "acme", "mailbox"); !fault.Is(err, fault.Later) {
		t.Errorf("removed although its identities are left: %v", err)
	}
	c.keeper.SetAway(false)
	must(t, c.Remove(t.Context(), "token:1", "acme", "mailbox"))
	if left := c.identities(t); len(left) != 0 {
		t.Errorf("identities of a removed connection: %+v", left)
	}
}

// Nothing is done at the customer's without a grant, and the words for his
// administrator are there.
func TestSetUpByHand(t *testing.T) {
	c := newCloud(t, nil)
	m := c.mailbox(t)
	m.AppID = c.one.AppID
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	m.AppObject = app.ID
	before := c.names(t)
	_, setup, err := c.AddGranted(t.Context(), "token:1", m, connection.Grant{Hold: true})
	must(t, err)
	name := c.identities(t)["smtp-client"].Name
	for _, want := range []string{"Connect-ExchangeOnline", "New-InboundConnector", "-TlsSenderCertificateName '" + name + "'", "-RestrictDomainsToCertificate $true"} {
		if !strings.Contains(setup.Script, want) {
			t.Errorf("the script has no %s:\n%s", want, setup.Script)
		}
	}
	if !strings.Contains(setup.Consent, c.one.EntraTenant+"/adminconsent?client_id="+c.one.AppID) || !strings.Contains(setup.App, "BEGIN CERTIFICATE") {
		t.Errorf("consent %q, app %q", setup.Consent, setup.App)
	}
	if after := c.names(t); !slices.Equal(before, after) || c.keys(t) != 0 {
		t.Errorf("something was changed: %v, before %v", after, before)
	}
	got, _ := c.Get("acme", "mailbox")
	if got.Health.Reason == nil || !strings.Contains(*got.Health.Reason, "waiting for the customer") {
		t.Errorf("health %+v", got.Health)
	}
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	if report.OK {
		t.Error("the test finds nothing wrong")
	}
	s, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{AdminToken: c.one.AdminToken, Once: true})
	must(t, err)
	if !s.OK {
		t.Errorf("%+v", s.Steps)
	}
	c.test(t)
	if _, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{Hold: true}); err != nil {
		t.Error(err)
	}
	if got, _ := c.Get("acme", "mailbox"); got.Health.OK == nil || !*got.Health.OK {
		t.Errorf("looking at the set-up made it %+v", got.Health)
	}
	if c.keeper.Secrets() != 0 {
		t.Error("a token for once was kept")
	}
}

func TestRenewal(t *testing.T) {
	c := newCloud(t, nil)
	c.keeper.Life = 3 * time.Second // two thirds are soon over
	c.connect(t)
	old := c.identities(t)
	c.keeper.Life = 30 * 24 * time.Hour
	must(t, c.Care(t.Context()))
	if late := c.Late(); len(late) != 2 || !strings.Contains(late[0], "mailbox of acme (smtp-client) ends") {
		t.Errorf("late: %v", late)
	}
	if _, err := c.Replacement(t.Context(), "acme", "mailbox"); err != nil {
		t.Fatalf("no renewal was begun: %v", err)
	}
	done := c.finish(t)
	now := c.identities(t)
	if done.Kind != connection.KindRenew || now["smtp-client"].Name != old["smtp-client"].Name || now["smtp-client"].ID == old["smtp-client"].ID || now["entra-app"].ID == old["entra-app"].ID {
		t.Errorf("renewed %+v: %+v", done, now)
	}
	c.holds(t, old["smtp-client"].Name, 1)
	must(t, c.Care(t.Context()))
	if p, _ := c.Replacement(t.Context(), "acme", "mailbox"); p.ID != done.ID {
		t.Error("renewed again at once")
	}
	// After a replacement that was undone the newest name is none in use: the
	// one that is stays.
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	for range 3 {
		_, _, err = c.Step(t.Context(), "acme", "mailbox")
		must(t, err)
	}
	_, err = c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	c.finish(t)
	_, err = c.Rotate(t.Context(), "token:1", "acme", now["smtp-client"].ID, false)
	must(t, err)
	again := c.finish(t)
	if again.State != connection.Done {
		t.Errorf("%+v", again)
	}
	c.holds(t, old["smtp-client"].Name, 1)
	must(t, c.Care(t.Context()))
	if late := c.Late(); len(late) != 0 {
		t.Errorf("late: %v", late)
	}
}

// The test says in the customer's words what is wrong at his side.
func TestWrongConnector(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	name := c.identities(t)["smtp-client"].Name
	other := "e9.other.us.gate.example"
	_, err := c.admin.SetInbound(t.Context(), c.one.ConnectorName, admin.InboundChange{TlsSenderCertificateName: &other})
	must(t, err)
	app, err := c.graph.Application(t.Context(), c.one.AppID)
	must(t, err)
	stranger, err := c.keeper.Make("stranger", "entra-app")
	must(t, err)
	must(t, c.graph.SetKeys(t.Context(), app.ID, []graph.Key{{KeyID: app.Keys[0].KeyID, Type: app.Keys[0].Type, Usage: app.Keys[0].Usage}, {Type: "AsymmetricX509Cert", Usage: "Verify", Key: stranger.Chain[0]}}))
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	text := ""
	for _, s := range report.Steps {
		text += s.Name + ": " + s.Detail + "\n" + s.Fix + "\n"
		if s.OK != (s.Fix == "") {
			t.Errorf("%+v", s)
		}
	}
	for _, want := range []string{"still names " + other + ", expected " + name, "5.7.51", "stranger"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	s, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{})
	must(t, err)
	if !s.OK {
		t.Errorf("%+v", s.Steps)
	}
	c.test(t)
}
