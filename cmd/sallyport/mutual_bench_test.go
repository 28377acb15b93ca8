package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestBenchMutual compares a relay with mutual TLS whose key is in a keeper, a
// process of its own, with the same relay whose key is in its own memory: in
// one run, in alternating pairs. It prints the row of docs/benchmarks.md.
func TestBenchMutual(t *testing.T) {
	if os.Getenv("SALLYPORT_BENCH") == "" {
		t.Skip("comparisons take minutes: `make bench`")
	}
	const pairs, messages = 5, 3000
	sink := newMutualSink(t)
	socket := benchKeeper(t)
	kept, own := benchGateway(t, sink, socket, nil), benchGateway(t, sink, socket, inMemory(t))
	run := func(g *gateway) float64 { return relayRate(t, g, sink, messages) }
	run(kept) // each is warmed up once
	run(own)
	var a, b, ratio []float64
	for range pairs {
		x, y := run(kept), run(own)
		a, b, ratio = append(a, x), append(b, y), append(ratio, x/y)
	}
	for _, list := range [][]float64{a, b, ratio} {
		slices.Sort(list)
	}
	fmt.Printf("mutual TLS, 10 KB, %d cores: key in the keeper %.0f/s (%.0f to %.0f), in process %.0f/s (%.0f to %.0f), ratio %.2f (%.2f to %.2f); %.1f messages a connection\n",
		runtime.NumCPU(), a[pairs/2], a[0], a[pairs-1], b[pairs/2], b[0], b[pairs-1], ratio[pairs/2], ratio[0], ratio[pairs-1],
		float64(sink.messages.Load())/float64(sink.sessions.Load()))
	if ratio[pairs/2] < 0.85 {
		t.Errorf("the keeper costs %.0f %%", 100-100*ratio[pairs/2])
	}
}

// benchKeeper runs a keeper as a process of its own, and returns its socket.
func benchKeeper(t *testing.T) string {
	t.Helper()
	program, dir := filepath.Join(t.TempDir(), "sallyport"), filepath.Join(t.TempDir(), "us")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(program, "--data", dir, "keeper", "init", "--region", "us", "--base-domain", "gw.test").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program, "--data", dir, "keeper", "--log-level", "error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	socket := filepath.Join(dir, socketName)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatal("the keeper does not answer")
		}
	}
}

// memory is a client identity in the gateway's own memory: what the keeper is
// compared with.
type memory struct {
	client.Signers
	cert *tls.Certificate
}

func (m memory) ClientCertificate(context.Context, string, string) (*tls.Certificate, error) {
	return m.cert, nil
}

func inMemory(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "in.memory"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// benchGateway runs a gateway in this process, with its tenant's connection to
// the sink; own is the identity that it has itself, nil for the keeper's.
func benchGateway(t *testing.T, sink *mutualSink, socket string, own *tls.Certificate) *gateway {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	cfg := (&initCmd{BaseDomain: "gw.test", SMTP: freeAddress(t), Submission: freeAddress(t), Store: "sqlite", Regions: "us"}).config(freeAddress(t))
	cfg.Keepers = []keeperAt{{Region: "us", Socket: socket}}
	cfg.Limits = limitsConfig{ConnectionsPerIP: 5000, ConnectionsPerNetwork: 5000, ConnectsPerIPMinute: 1e7, MessagesPerIPMinute: 1e7, RecipientsPerIPMinute: 1e7}
	if err := writeFolder(dir, cfg); err != nil {
		t.Fatal(err)
	}
	g := &gateway{dir: dir, cfg: cfg, log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}
	swap := func(context.Context) error {
		if own != nil {
			g.signers = memory{g.custody, own}
		}
		return nil
	}
	for _, step := range []func(context.Context) error{
		g.openStore, g.openTenants, g.openCustody, swap, g.openConnections, g.openRoad, g.openEdge, g.openOutbox, g.openAlarm, g.openAPI, g.listen,
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g.run()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		g.stop(ctx)
	})
	provisionBench(t, g, sink)
	return g
}

func provisionBench(t *testing.T, g *gateway, sink *mutualSink) {
	t.Helper()
	ctx, who := t.Context(), tenant.Actor("system")
	name := "t" + strings.ToLower(rand.Text()[:8]) // the two gateways share a keeper
	if _, err := g.tenants.Add(ctx, who, tenant.Tenant{Name: name, Region: "us"}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.tenants.AddDomain(ctx, who, tenant.Domain{Name: "acme.test", Tenant: name, Recipients: "none"}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.connections.Add(ctx, who, connection.Connection{Tenant: name, Name: "mailbox", Kind: "smtp", Direction: "inbound",
		Hosts: []connection.Host{{Host: "127.0.0.1", Port: sink.port}}, TLS: connection.TLSMutual, CA: sink.ca, ServerName: "sink.test"}); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// relayRate sends messages through a gateway and returns how many a second came
// out, from the first sent to the last arrived.
func relayRate(t *testing.T, g *gateway, sink *mutualSink, messages int64) float64 {
	t.Helper()
	want := sink.messages.Load() + messages
	begin := time.Now()
	testpeer.RunSource(t, g.cfg.Listeners[0].Address, testpeer.Load{Senders: 20, Messages: int(messages), Size: 10_000, From: "a@example.org", To: "user@acme.test"})
	for end := time.Now().Add(time.Minute); sink.messages.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d arrived", sink.messages.Load()-want+messages, messages)
		}
	}
	return float64(messages) / time.Since(begin).Seconds()
}

// mutualSink is a mailbox that wants a client certificate of anybody.
type mutualSink struct {
	port               int
	ca                 string
	sessions, messages atomic.Int64
}

func newMutualSink(t *testing.T) *mutualSink {
	t.Helper()
	ca := testpeer.NewCA(t, "sink's CA")
	cert := ca.Issue(t, nil, "sink.test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mutualSink{port: l.Addr().(*net.TCPAddr).Port, ca: string(ca.PEM)}
	server := &smtp.Server{Backend: s, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	go server.Serve(l, smtp.Listener{Name: "sink", Hostname: func(*smtp.Conn) string { return "sink.test" }, MaxSize: 1 << 20, MaxRcpt: 100, MaxConns: 1000,
		TLS: &tls.Config{Certificates: []tls.Certificate{cert.TLS}, ClientAuth: tls.RequireAnyClientCert}})
	t.Cleanup(func() { l.Close() })
	return s
}

// Connect is of smtp.Backend.
func (s *mutualSink) Connect(context.Context, *smtp.Conn) (smtp.Session, *mail.Reply) {
	s.sessions.Add(1)
	return taker{s}, nil
}

type taker struct{ sink *mutualSink }

func (taker) Hello(context.Context) *mail.Reply                               { return nil }
func (taker) Mail(context.Context, mail.Address, mail.FromParams) *mail.Reply { return nil }
func (taker) Rcpt(context.Context, mail.Recipient) *mail.Reply                { return nil }
func (taker) Reset()                                                          {}
func (taker) Refused(string, mail.Reply)                                      {}
func (taker) Close()                                                          {}

func (k taker) Data(_ context.Context, r io.Reader) mail.Reply {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "not read"}
	}
	k.sink.messages.Add(1)
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "kept"}
}
