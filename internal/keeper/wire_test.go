package keeper

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// served is a keeper behind a socket, whatever of its acts is there.
type served struct {
	*Keeper
	others
}

type others struct{ wire.Acts }

// granted are the acts that these tests ask for.
func granted() []act.Name {
	return []act.Name{
		act.HandshakeAsTenant, act.HandshakeAsHost, act.TenantCertificate, act.HostCertificate, act.SignDKIM, act.SealARC, act.AssertClient,
		act.ProvePossession, act.BindConnection, act.ReleaseConnection, act.IssueIdentity, act.MoveIdentity, act.ListIdentities,
	}
}

// remote serves the keeper on a Unix socket and gives a gateway's client.
func (r *rig) remote(t testing.TB) *client.Remote {
	t.Helper()
	s, err := wire.New(wire.Config{Region: r.c.Region, Acts: served{r.Keeper, others{}},
		Allow:   []wire.Grant{{Local: true, UID: uint32(os.Getuid()), Acts: granted()}},
		Refused: func(f wire.Refusal) { t.Errorf("the socket refused %+v", f) }})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeUnix(l) }()
	c, err := client.NewRemote(client.RemoteConfig{Region: r.c.Region, Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// meet is one TLS connection between the two, with what the server saw.
func meet(t testing.TB, clientSide, serverSide *tls.Config) (seen *tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := tls.Server(b, serverSide)
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	c := tls.Client(a, clientSide)
	if err := c.Handshake(); err != nil {
		a.Close()
		<-done
		return nil, err
	}
	if err := <-done; err != nil {
		return nil, err
	}
	state := s.ConnectionState()
	return &state, nil
}

// TestMutualTLS: a client whose key is in the keeper and a server whose key is
// there too shake hands over the socket; the server knows the tenant by name.
func TestMutualTLS(t *testing.T) {
	r := newRig(t)
	gate := r.remote(t)
	ctx := client.WithTrace(t.Context(), "01MESSAGE")
	if err := gate.BindConnection(ctx, "acme", "mailbox", aBinding()); err != nil {
		t.Fatal(err)
	}
	one, err := gate.IssueIdentity(ctx, "acme", "mailbox", "smtp-client", act.Issue{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.ClientCertificate(ctx, "acme", "mailbox"); !fault.Is(err, fault.Missing) {
		t.Errorf("before there is an active one: %v", err)
	}
	if one, err = gate.MoveIdentity(ctx, one, act.Active); err != nil || one.State != act.Active {
		t.Fatalf("%+v %v", one, err)
	}
	cert, err := gate.ClientCertificate(ctx, "acme", "mailbox")
	if err != nil {
		t.Fatal(err)
	}
	host, err := gate.ServerCertificate("mx.us.gate.example")
	if err != nil {
		t.Fatal(err)
	}
	roots, hosts := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(r.Root())
	hosts.AddCert(host.Leaf)
	here := &tls.Config{Certificates: []tls.Certificate{*cert}, RootCAs: hosts, ServerName: "mx.us.gate.example"}
	there := &tls.Config{Certificates: []tls.Certificate{*host}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	state, err := meet(t, here, there)
	if err != nil {
		t.Fatal(err)
	}
	if state.Version != tls.VersionTLS13 || len(state.VerifiedChains) != 1 || state.PeerCertificates[0].Subject.CommonName != one.Name {
		t.Errorf("%+v", state)
	}
	for _, name := range []act.Name{act.HandshakeAsTenant, act.HandshakeAsHost, act.TenantCertificate, act.HostCertificate} {
		before, after := r.outcome(t, name)
		if before.Outcome != begun || after.Outcome != carried || !strings.HasPrefix(before.Actor, "uid ") {
			t.Errorf("%s: %+v %+v", name, before, after)
		}
	}
	if before, _ := r.outcome(t, act.TenantCertificate); before.Trace != "01MESSAGE" || before.Subject != one.ID {
		t.Errorf("%+v", before)
	}
	// A sender that speaks TLS 1.2 to us; never we, as a tenant.
	old := here.Clone()
	old.MaxVersion, old.Certificates = tls.VersionTLS12, nil
	open := &tls.Config{Certificates: []tls.Certificate{*host}}
	if state, err := meet(t, old, open); err != nil || state.Version != tls.VersionTLS12 {
		t.Errorf("%+v %v", state, err)
	}
	old.Certificates = []tls.Certificate{*cert}
	if _, err := meet(t, old, there); err == nil {
		t.Error("a tenant signed a TLS 1.2 handshake")
	}
	// What is compromised signs no more, though the certificate is in hand.
	if _, err := gate.MoveIdentity(ctx, one, act.Compromised); err != nil {
		t.Fatal(err)
	}
	if _, err := meet(t, here, there); err == nil || !strings.Contains(err.Error(), "compromised") { // crypto/tls keeps the text alone
		t.Errorf("%v", err)
	}
}

// Both identities of a replacement can be shown, each by its own name.
func TestStagedIsShown(t *testing.T) {
	r := newRig(t)
	gate := r.remote(t)
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", "smtp-client", 0), act.Active)
	two := r.to(t, r.issued(t, "acme", "smtp-client", 2), act.Staged)
	host, err := gate.ServerCertificate("MX.us.gate.example")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.Root())
	there := &tls.Config{Certificates: []tls.Certificate{*host}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	for which, want := range map[string]act.Identity{"": one, one.ID: one, two.ID: two, two.SHA256: two} {
		cert, err := gate.IdentityCertificate(t.Context(), "acme", "mailbox", which)
		if err != nil {
			t.Fatal(err)
		}
		state, err := meet(t, &tls.Config{Certificates: []tls.Certificate{*cert}, InsecureSkipVerify: true}, there)
		if err != nil || state.PeerCertificates[0].Subject.CommonName != want.Name {
			t.Errorf("%q: %+v %v", which, state, err)
		}
	}
	r.to(t, two, act.Active)
	cert, err := gate.ClientCertificate(t.Context(), "acme", "mailbox")
	if err != nil || sumOf(cert.Leaf.Raw) != two.SHA256 {
		t.Errorf("the switch does not count at once: %v", err)
	}
}
