package wire_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// walk asks for every act once, and returns the errors by name.
func walk(ctx context.Context, r *client.Remote) map[act.Name]error {
	e := map[act.Name]error{}
	note := func(n act.Name, err error) { e[n] = err }
	_, err := r.ServerCertificate(hostName)
	note(act.HostCertificate, err)
	_, err = r.ClientCertificate(ctx, "acme", "mailbox")
	note(act.TenantCertificate, err)
	_, err = r.SignDKIM(ctx, "acme", "id", act.Mail{Fields: []act.Field{{Name: "From", Value: " a"}}})
	note(act.SignDKIM, err)
	_, err = r.SealARC(ctx, "acme", act.ARC{Validation: "none"})
	note(act.SealARC, err)
	_, err = r.AssertClient(ctx, "acme", "mailbox", "", time.Minute)
	note(act.AssertClient, err)
	_, err = r.ProvePossession(ctx, "acme", "mailbox", "", time.Minute)
	note(act.ProvePossession, err)
	note(act.BindConnection, r.BindConnection(ctx, "acme", "mailbox", act.Binding{Host: "mx.acme.example", Port: 25}))
	note(act.ReleaseConnection, r.ReleaseConnection(ctx, "acme", "mailbox"))
	_, err = r.IssueIdentity(ctx, "acme", "mailbox", "smtp-client", act.Issue{Epoch: 1})
	note(act.IssueIdentity, err)
	_, err = r.MoveIdentity(ctx, act.Identity{ID: "i", Tenant: "acme", Connection: "mailbox", Purpose: "smtp-client"}, act.Staged)
	note(act.MoveIdentity, err)
	_, err = r.Identity(ctx, "1")
	note(act.ListIdentities, err)
	answer, err := r.AcmeChallenge(ctx, "token")
	if err == nil && answer != "token.thumb" {
		err = errors.New("the answer is " + answer)
	}
	note(act.AcmeChallenge, err)
	_, err = r.OpenCredential(ctx, client.Use{Tenant: "acme", Connection: "mailbox", Purpose: "smtp-auth", Trace: "t1"})
	note(act.OpenCredential, err)
	note(act.SetCredential, r.SetCredential(ctx, "acme", "mailbox", client.Credential{User: "u", Password: "p"}))
	note(act.RemoveCredential, r.RemoveCredential(ctx, "acme", "mailbox"))
	_, err = r.ListCredentials(ctx, "acme")
	note(act.ListCredentials, err)
	note(act.ReportSighting, r.ReportSighting(ctx, act.Sighting{Code: "us.c"}))
	_, err = r.Order(ctx, []byte("o"))
	note(act.Order, err)
	note(act.EnterEvents, r.EnterEvents(ctx, []act.Event{{Key: "k", Actor: "token:1", Act: "tenant.add"}}))
	_, err = r.SearchLedger(ctx, "acme", "", act.Search{Act: "tenant.add"})
	note(act.SearchLedger, err)
	_, err = r.ShowEntry(ctx, 7)
	note(act.ShowEntry, err)
	_, err = r.ProveEntry(ctx, 7)
	note(act.ProveEntry, err)
	note(act.ExportLedger, r.ExportLedger(ctx, io.Discard))
	_, err = r.Checkpoint(ctx)
	note(act.Checkpoint, err)
	_, err = r.Status(ctx)
	note(act.Status, err)
	return e
}

func TestEveryAct(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	got := walk(t.Context(), r)
	for n, err := range got {
		if err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
	// The two handshakes are TestHandshakes.
	if len(got) != len(every())-2 || len(d.asked) != len(got) || len(d.refusals()) != 0 {
		t.Errorf("%d asked, %d reached, refused: %v", len(got), len(d.asked), d.refused)
	}
	for i, c := range d.said {
		if c.Region != "us" || c.Purpose == "" || c.Trace == "" {
			t.Errorf("%s said %+v", d.asked[i], c)
		}
		if p := d.peers[i]; !p.Local || p.UID != uint32(os.Getuid()) || p.PID != int32(os.Getpid()) {
			t.Errorf("%s was asked by %s", d.asked[i], p)
		}
	}
	if c := d.said[slices.Index(d.asked, act.OpenCredential)]; c.Trace != "t1" || c.Purpose != "smtp-auth" || c.Tenant != "acme" {
		t.Errorf("%+v", c)
	}
}

// Each secret is of a purpose; those of SMTP have the shorter way.
func TestPurposesOfSecrets(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	ctx, c := t.Context(), client.Credential{User: "u", Password: "p"}
	for _, err := range []error{
		r.SetCredential(ctx, "acme", "mailbox", c), r.RemoveCredential(ctx, "acme", "mailbox"),
		r.SetSecret(ctx, "acme", "mailbox", "m365-admin", c), r.RemoveSecret(ctx, "acme", "mailbox", "m365-admin"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for i, want := range []string{"smtp-auth", "smtp-auth", "m365-admin", "m365-admin"} {
		if got := d.said[i]; got.Purpose != want || got.Tenant != "acme" || got.Connection != "mailbox" {
			t.Errorf("%s said %+v", d.asked[i], got)
		}
	}
	all, err := r.ListSecrets(ctx, "acme")
	if err != nil || len(all) != 2 {
		t.Errorf("%+v: %v", all, err)
	}
	mail, err := r.ListCredentials(ctx, "acme")
	if err != nil || len(mail) != 1 || mail[0].LastOpened == nil {
		t.Errorf("%+v: %v", mail, err)
	}
	if got, err := r.Order(ctx, []byte("o")); err != nil || got.Text != "so be it" {
		t.Errorf("%+v: %v", got, err)
	}
}

// A long answer comes whole, or its reader is told that it did not.
func TestExport(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	var whole bytes.Buffer
	if err := r.ExportLedger(t.Context(), &whole); err != nil || whole.Len() != 3000<<10 {
		t.Errorf("%d bytes: %v", whole.Len(), err)
	}
	if err := r.ExportLedger(client.WithTrace(t.Context(), "break off"), io.Discard); !fault.Is(err, fault.Later) {
		t.Errorf("an export that broke off: %v", err)
	}
}

func TestListPages(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	got, err := r.ListIdentities(t.Context(), "", "")
	if err != nil || len(got) != 2 || got[0].ID != "1" || got[1].ID != "2" {
		t.Errorf("%v: %v", got, err)
	}
}

// TestBeyondTheGrant gives a grant for each act alone: nothing else is done,
// and each refusal is told.
func TestBeyondTheGrant(t *testing.T) {
	for _, only := range every() {
		d := newDesk(t)
		r := remote(t, d.serve(t, me(only)))
		refused := 0
		for n, err := range walk(t.Context(), r) {
			if n == only {
				if err != nil {
					t.Errorf("%s: %v", n, err)
				}
				continue
			}
			refused++
			if !fault.Is(err, fault.Denied) {
				t.Errorf("%s with a grant for %s: %v", n, only, err)
			}
		}
		if told := d.refusals(); len(told) != refused || slices.ContainsFunc(d.asked, func(n act.Name) bool { return n != only }) {
			t.Errorf("%s: %d refused, %d told, done %v", only, refused, len(told), d.asked)
		}
	}
}

// TestRefusedTenant asks for what is not granted in the name of a tenant, and of
// what is none: the tenant is told, and no text of a stranger's choice.
func TestRefusedTenant(t *testing.T) {
	d := newDesk(t)
	socket := d.serve(t, me(act.Status))
	h := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	defer h.CloseIdleConnections()
	said := func(tenant string) string {
		return `{"region":"us","purpose":"p","trace":"t","connection":"c","tenant":` + strconv.Quote(tenant) + `}`
	}
	for _, c := range []struct{ name, body, tenant string }{
		{"a tenant", said("acme-2"), "acme-2"},
		{"the longest", said(strings.Repeat("a", 40)), strings.Repeat("a", 40)},
		{"longer", said(strings.Repeat("a", 41)), ""},
		{"no slug", said("Acme"), ""},
		{"the region's own", said("region:hosts"), ""},
		{"an act of the region's", `{"region":"us","purpose":"p","trace":"t"}`, ""},
		{"another type", `{"tenant":7}`, ""},
		{"no JSON", `hello`, ""},
		{"nothing", ``, ""},
		{"too much before it", `{"purpose":"` + strings.Repeat("a", 20<<10) + `","tenant":"acme"}`, ""},
	} {
		resp, err := h.Post("http://keeper/v1/acts/open-credential", "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		told := d.refusals()
		if resp.StatusCode != http.StatusForbidden || len(told) == 0 || told[len(told)-1].Context != (act.Context{Tenant: c.tenant}) {
			t.Errorf("%s: %d, %+v", c.name, resp.StatusCode, told)
		}
	}
	if len(d.asked) != 0 {
		t.Errorf("done: %v", d.asked)
	}
}

func TestStranger(t *testing.T) {
	d := newDesk(t)
	stranger := me(every()...)
	stranger.UID++
	r := remote(t, d.serve(t, stranger))
	if _, err := r.Status(t.Context()); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	told := d.refusals()
	if len(told) == 0 || told[0].Peer.UID != uint32(os.Getuid()) || len(d.asked) != 0 {
		t.Errorf("told %+v, done %v", told, d.asked)
	}
}

// TestRequests sends what our own client would not.
func TestRequests(t *testing.T) {
	d := newDesk(t)
	socket := d.serve(t, me(every()...))
	h := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	defer h.CloseIdleConnections()
	const said = `"region":"us","purpose":"p","trace":"t"`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		told                     bool
	}{
		{"unknown act", "POST", "/v1/acts/sign-bytes", `{}`, 404, true},
		{"no act", "POST", "/", `{}`, 404, true},
		{"GET", "GET", "/v1/acts/status", ``, 404, true},
		{"another region", "POST", "/v1/acts/status", `{"region":"uk","purpose":"p","trace":"t"}`, 403, true},
		{"no purpose", "POST", "/v1/acts/status", `{"region":"us","trace":"t"}`, 403, true},
		{"no trace", "POST", "/v1/acts/status", `{"region":"us","purpose":"p"}`, 403, true},
		{"no tenant", "POST", "/v1/acts/open-credential", `{` + said + `,"connection":"c"}`, 403, true},
		{"no connection", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"c"}`, 403, true},
		{"a tenant of an act of the region", "POST", "/v1/acts/checkpoint", `{` + said + `,"tenant":"c"}`, 403, true},
		{"unknown member", "POST", "/v1/acts/status", `{` + said + `,"digest":"AA=="}`, 400, true},
		{"bytes to sign", "POST", "/v1/acts/handshake-as-tenant", `{` + said + `,"tenant":"acme","connection":"c","scheme":1027,"message":"AA=="}`, 400, true},
		{"no JSON", "POST", "/v1/acts/status", `hello`, 400, true},
		{"too long", "POST", "/v1/acts/status", `{"purpose":"` + strings.Repeat("a", 20<<10) + `"}`, 400, true},
		{"long name", "POST", "/v1/acts/status", `{"region":"us","purpose":"p","trace":"` + strings.Repeat("a", 300) + `"}`, 400, true},
		{"a line end in a trace", "POST", "/v1/acts/status", `{"region":"us","purpose":"p","trace":"a\nb"}`, 400, true},
		{"an escape in a tenant", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"a\u001b[2J","connection":"c"}`, 400, true},
		{"a C1 control", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"a\u009b","connection":"c"}`, 400, true},
		{"a turned text", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"a\u202eb","connection":"c"}`, 400, true},
		{"what is not seen", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"a\u200bcme","connection":"c"}`, 400, true},
		{"no UTF-8", "POST", "/v1/acts/open-credential", `{` + said + `,"tenant":"a` + "\xff" + `","connection":"c"}`, 400, true},
		{"a NUL in a purpose", "POST", "/v1/acts/status", `{"region":"us","purpose":"p\u0000","trace":"t"}`, 400, true},
		{"a negative epoch", "POST", "/v1/acts/issue-identity", `{` + said + `,"tenant":"acme","connection":"c","epoch":-1}`, 400, true},
		{"an epoch of 2^64", "POST", "/v1/acts/issue-identity", `{` + said + `,"tenant":"acme","connection":"c","epoch":18446744073709551616}`, 400, true},
		{"a scheme that is no scheme", "POST", "/v1/acts/handshake-as-tenant", `{` + said + `,"tenant":"acme","connection":"c","scheme":70000}`, 400, true},
		{"an audience of his own", "POST", "/v1/acts/assert-client", `{` + said + `,"tenant":"acme","connection":"c","life_s":60,"aud":"https://evil.example"}`, 400, true},
		{"an audience of a proof", "POST", "/v1/acts/prove-possession", `{` + said + `,"tenant":"acme","connection":"c","life_s":60,"audience":"x"}`, 400, true},
		{"a selector of his own", "POST", "/v1/acts/sign-dkim", `{` + said + `,"tenant":"acme","identity":"i","selector":"s"}`, 400, true},
		{"a name of his own", "POST", "/v1/acts/issue-identity", `{` + said + `,"tenant":"acme","connection":"c","name":"e1.x.uk.gate.example"}`, 400, true},
		{"two values", "POST", "/v1/acts/status", `{` + said + `} {}`, 400, true},
		{"nothing", "POST", "/v1/acts/status", ``, 400, true},
		{"half of it", "POST", "/v1/acts/status", `{` + said, 400, false},
		{"a MB of nothing", "POST", "/v1/acts/enter-events", `{` + said + `,"events":[` + strings.Repeat("{},", 300_000) + `{}]}`, 400, true},
		{"sets without end", "POST", "/v1/acts/seal-arc", `{` + said + `,"tenant":"acme","previous":[` + strings.Repeat("{},", 300_000) + `{}]}`, 400, true},
		{"deep", "POST", "/v1/acts/order", `{` + said + `,"order":` + strings.Repeat("[", 19_000) + `}`, 400, true},
	} {
		before := len(d.refusals())
		req, err := http.NewRequest(c.method, "http://keeper"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/problem+json" || !bytes.Contains(b, []byte(`"hint"`)) {
			t.Errorf("%s: %d %s, %v", c.name, resp.StatusCode, b, err)
		}
		if told := len(d.refusals()) > before; told != c.told {
			t.Errorf("%s: told %v", c.name, told)
		}
	}
	if len(d.asked) != 0 {
		t.Errorf("done: %v", d.asked)
	}
}

func TestFaultsCross(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	for _, k := range []fault.Kind{fault.Invalid, fault.Denied, fault.Missing, fault.Conflict, fault.Later, fault.Never} {
		d.fail = fault.New(k, "keeper.X", "no such luck").WithHint("Try another day.")
		_, err := r.Status(t.Context())
		if fault.KindOf(err) != k || fault.Sentence(err) != "no such luck" || fault.HintOf(err) != "Try another day." {
			t.Errorf("%s: %v, %q", k, err, fault.HintOf(err))
		}
	}
	d.fail = errors.New("secret is hunter2")
	if _, err := r.Status(t.Context()); !fault.Is(err, fault.Internal) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an internal error: %v", err)
	}
}

// shake makes one TLS connection between two configurations.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	err := c.Handshake()
	if err != nil {
		b.Close()
	}
	return s.ConnectionState(), errors.Join(err, <-done)
}

func TestHandshakes(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	roots := x509.NewCertPool()
	roots.AddCert(d.root.Certificate)
	server := &tls.Config{
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return r.ServerCertificate(h.ServerName) },
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}
	mine, err := r.ClientCertificate(t.Context(), "acme", "mailbox")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, ServerName: hostName, Certificates: []tls.Certificate{*mine}}
	got, err := shake(t, server, config)
	if err != nil || got.Version != tls.VersionTLS13 || got.PeerCertificates[0].Subject.CommonName != "e1.acme.us.gate.example" {
		t.Fatalf("TLS 1.3 both ways: %v", err)
	}
	// A TLS 1.2 client's CertificateVerify covers the whole handshake as
	// bytes: the keeper can't know what it signs, so it is never asked.
	before := len(d.asked)
	config.MaxVersion = tls.VersionTLS12
	if _, err := shake(t, server, config); err == nil || slices.Contains(d.asked[before:], act.HandshakeAsTenant) {
		t.Errorf("TLS 1.2 as a client: %v", err)
	}
	server.ClientAuth = tls.NoClientCert
	if got, err = shake(t, server, config); err != nil || got.Version != tls.VersionTLS12 {
		t.Errorf("TLS 1.2 as a server: %v", err)
	}
	// Without TLS 1.3 offered the server's random has no sentinel.
	server.MaxVersion = tls.VersionTLS12
	if _, err := shake(t, server, config); err == nil {
		t.Error("a server that hides TLS 1.3 was signed for")
	}
}

// TestSignerSignsNothingElse asks the signer itself.
func TestSignerSignsNothingElse(t *testing.T) {
	d := newDesk(t)
	r := remote(t, d.serve(t, me(every()...)))
	tenant, err := r.ClientCertificate(t.Context(), "acme", "mailbox")
	if err != nil {
		t.Fatal(err)
	}
	host, err := r.ServerCertificate(hostName)
	if err != nil {
		t.Fatal(err)
	}
	context13 := func(role string) []byte {
		return append([]byte(strings.Repeat(" ", 64)+"TLS 1.3, "+role+" CertificateVerify\x00"), make([]byte, 32)...)
	}
	for name, c := range map[string]struct {
		cert *tls.Certificate
		msg  []byte
	}{
		"text":                      {tenant, []byte("pay eve")},
		"nothing":                   {host, nil},
		"a server's as the client":  {tenant, context13("server")},
		"a client's as the server":  {host, context13("client")},
		"one byte more":             {tenant, append(context13("client"), 0)},
		"a key exchange, as client": {tenant, append(make([]byte, 64), 3, 0, 29, 1, 9)},
		"a key exchange, cut":       {host, append(make([]byte, 64), 3, 0, 29, 32, 9)},
		"a JWT":                     {host, []byte("eyJhbGciOiJQUzI1NiJ9." + strings.Repeat("A", 200))},
	} {
		if _, err := c.cert.PrivateKey.(crypto.MessageSigner).SignMessage(rand.Reader, c.msg, crypto.SHA256); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := host.PrivateKey.(crypto.Signer).Sign(rand.Reader, make([]byte, 32), crypto.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("a digest: %v", err)
	}
	if _, ok := host.PrivateKey.(*ecdsa.PrivateKey); ok || slices.Contains(d.asked, act.HandshakeAsHost) {
		t.Error("the keeper was asked, or the key is here")
	}
	msg := context13("client")
	sig, err := tenant.PrivateKey.(crypto.MessageSigner).SignMessage(rand.Reader, msg, crypto.SHA256)
	sum := sha256.Sum256(msg)
	if err != nil || !ecdsa.VerifyASN1(tenant.Leaf.PublicKey.(*ecdsa.PublicKey), sum[:], sig) {
		t.Errorf("what it is for: %v", err)
	}
}

func TestServerCertificateIsKeptForAWhile(t *testing.T) {
	d := newDesk(t)
	now := time.Now()
	r, err := client.NewRemote(client.RemoteConfig{Region: "us", Socket: d.serve(t, me(every()...)), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := r.ServerCertificate(hostName); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ServerCertificate("none.example"); !fault.Is(err, fault.Missing) {
			t.Fatal(err)
		}
	}
	if len(d.asked) != 2 {
		t.Errorf("asked %d times", len(d.asked))
	}
	now = now.Add(10 * time.Second)
	d.fail = fault.New(fault.Later, "x", "away")
	for range 2 {
		if _, err := r.ServerCertificate(hostName); !fault.Is(err, fault.Later) {
			t.Error(err)
		}
	}
	if len(d.asked) != 4 {
		t.Errorf("asked %d times: an absence is not to be kept", len(d.asked))
	}
}

func TestMutualTLS(t *testing.T) {
	d := newDesk(t)
	roots := x509.NewCertPool()
	roots.AddCert(d.root.Certificate)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := key(t)
	otherChain := d.issue(t, "other", sign.TLSClient, other)
	allow := []wire.Grant{
		{Certificate: "e1.acme.us.gate.example", Acts: []act.Name{act.Status}},
		me(every()...), // a user of the socket is nobody here
	}
	config := &tls.Config{ClientCAs: roots, Certificates: []tls.Certificate{{Certificate: d.hostChain, PrivateKey: d.host}}}
	d.start(t, allow, func(s *wire.Server) error { return s.ServeTLS(l, config) })
	ask := func(chain [][]byte, k crypto.Signer) *client.Remote {
		c := &tls.Config{RootCAs: roots, ServerName: hostName}
		if chain != nil {
			c.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: k}}
		}
		r, err := client.NewRemote(client.RemoteConfig{Region: "us", Address: l.Addr().String(), TLS: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	gateway := ask(d.tenantChain, d.tenant)
	if _, err := gateway.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := gateway.Checkpoint(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("beyond its grant: %v", err)
	}
	if _, err := ask(otherChain, other).Status(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("another certificate of the same CA: %v", err)
	}
	if _, err := ask(nil, nil).Status(t.Context()); !fault.Is(err, fault.Later) {
		t.Errorf("without a certificate: %v", err)
	}
	if told := d.refusals(); len(told) != 2 || told[1].Peer.Certificate != "e1.other.us.gate.example" || len(d.asked) != 1 {
		t.Errorf("%+v", told)
	}
}

// BenchmarkHandshakes is one tenant's signature over the socket, with both
// ends on this machine.
func BenchmarkHandshakes(b *testing.B) {
	d := newDesk(b)
	r := remote(b, d.serve(b, me(every()...)))
	c, err := r.ClientCertificate(b.Context(), "acme", "mailbox")
	if err != nil {
		b.Fatal(err)
	}
	msg := append([]byte(strings.Repeat(" ", 64)+"TLS 1.3, client CertificateVerify\x00"), make([]byte, 32)...)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.PrivateKey.(crypto.MessageSigner).SignMessage(rand.Reader, msg, crypto.SHA256); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}
