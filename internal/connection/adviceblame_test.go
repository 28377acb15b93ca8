package connection_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// halfAway is a keeper that lists identities and then shows none: it died in
// between, or is frozen.
type halfAway struct {
	*custodian.Keeper
	away   atomic.Bool
	frozen atomic.Bool
}

func (k *halfAway) IdentityCertificate(ctx context.Context, tenant, name, id string) (*tls.Certificate, error) {
	if k.away.Load() {
		return nil, fault.New(fault.Later, "keeper", "the keeper of region us does not answer: EOF").WithHint("Check that the keeper runs.")
	}
	return k.Keeper.IdentityCertificate(ctx, tenant, name, id)
}

// MoveIdentity is of connection.Keeper.
func (k *halfAway) MoveIdentity(ctx context.Context, of act.Identity, to act.IdentityState) (act.Identity, error) {
	if k.frozen.Load() {
		return act.Identity{}, fault.New(fault.Later, "keeper", "the keeper is frozen: it is an old copy").WithHint("Put the newest database back.")
	}
	return k.Keeper.MoveIdentity(ctx, of, to)
}

// guest is a house with a partner that knows certificates by fingerprint, or
// says that it does not.
type guest struct {
	*house
	keeper *halfAway
	door   net.Listener // before its server
	knows  atomic.Bool
	silent atomic.Bool // it greets nobody
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{keeper: &halfAway{Keeper: custodian.New(t)}}
	g.knows.Store(true)
	ca := testpeer.NewCA(t, "Acme CA")
	sink := testpeer.StartSink(t, testpeer.SinkRules{
		TLS: &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "mail.acme.test").TLS}, ClientAuth: tls.RequireAnyClientCert},
		Connect: func(int) *mail.Reply {
			if g.silent.Load() {
				return &mail.Reply{Code: 421, Enhanced: "4.3.2", Text: "shutting down"}
			}
			return nil
		},
		Rcpt: func(mail.Recipient) *mail.Reply {
			if g.knows.Load() {
				return nil
			}
			return &mail.Reply{Code: 554, Enhanced: "5.7.1", Text: "Client host rejected: Access denied"}
		}})
	g.house = newHouse(t, openSQLite(t), func(c *connection.Config) {
		c.Now, c.Signers = time.Now, g.keeper
		c.Keepers = func(string) (connection.Keeper, error) { return g.keeper, nil }
	})
	g.door = forward(t, sink.Addr)
	host, port := hostPort(t, g.door.Addr().String())
	g.add(t, connection.Connection{Tenant: "acme", Name: "mailbox", Host: host, Port: port, TLS: "mutual", CA: string(ca.PEM), ServerName: "mail.acme.test"})
	return g
}

// forward listens before an address, so that it can go away.
func forward(t *testing.T, address string) net.Listener {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	return l
}

// stuck steps a change until it waits.
func (h *house) stuck(t *testing.T) connection.Replacement {
	t.Helper()
	for range 5 {
		_, _, _ = h.Step(t.Context(), "acme", "mailbox")
	}
	p, err := h.Replacement(t.Context(), "acme", "mailbox")
	must(t, err)
	return p
}

// TestWhoIsToAct: what a change waits for is said of whoever has to act: the
// partner is asked for something when he has refused, and not for what is ours
// or the network's.
func TestWhoIsToAct(t *testing.T) {
	for _, kind := range []string{connection.KindReplace, connection.KindCompromise} {
		t.Run(kind, func(t *testing.T) {
			g := newGuest(t)
			g.knows.Store(false)
			first := g.only(t, "active")
			g.keeper.away.Store(true)
			if kind == connection.KindCompromise {
				_, err := g.Compromise(t.Context(), "token:1", "acme", first.ID)
				must(t, err)
			} else {
				_, err := g.StartReplacement(t.Context(), "token:1", "acme", "mailbox", kind)
				must(t, err)
			}
			says := func(waiting string, fix ...string) {
				t.Helper()
				p := g.stuck(t)
				if !strings.HasPrefix(p.Waiting, waiting) {
					t.Errorf("waits %q, want %q", p.Waiting, waiting)
				}
				for _, f := range fix {
					if !strings.Contains(p.Fix, f) {
						t.Errorf("fix %q, want %q", p.Fix, f)
					}
				}
				if len(fix) == 1 && strings.Contains(p.Fix, "SHA-256") {
					t.Errorf("the partner is to act: %q", p.Fix)
				}
			}
			says("waiting for us: ", "Check that the keeper runs")
			g.keeper.away.Store(false)
			next := g.only(t, "staged")
			line := "\n" + connection.Fingerprint(next.SHA256) + " " + next.Name
			says("waiting for the partner to accept the new certificate: ", "SHA-256 "+connection.Fingerprint(next.SHA256), line)
			g.silent.Store(true)
			says("waiting for the partner's server", "refuses us before any mail")
			must(t, g.door.Close())
			says("waiting for the network", "Nothing listens on "+g.door.Addr().String())
		})
	}
}

// TestNobodyIsToActTwice: the customer's connector names the new certificate,
// and his mail front has something else to say.
func TestNobodyIsToActTwice(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	throttle := func(code string) {
		must(t, c.sim.Switch(c.one.EntraTenant, func(s *sim.Switches) { s.Throttle = code }))
	}
	throttle("4.7.500")
	p, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID)
	must(t, err)
	if !strings.Contains(p.Waiting, "4.7.500") || !strings.Contains(p.Fix, "the connector "+c.one.ConnectorName+" names the new certificate") || strings.Contains(p.Fix, "administrator") {
		t.Errorf("waits %q, fix %q", p.Waiting, p.Fix)
	}
	throttle("")
	if done := c.finish(t); done.State != connection.Done {
		t.Errorf("%+v", done)
	}
}

// TestProofWhileCompromiseWaits: a test says that the connection has no identity
// because a compromise waits, and where that says for what; no undo is offered
// as if it were a replacement.
func TestProofWhileCompromiseWaits(t *testing.T) {
	g := newGuest(t)
	g.knows.Store(false)
	_, err := g.Compromise(t.Context(), "token:1", "acme", g.only(t, "active").ID)
	must(t, err)
	report, err := g.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	if got := steps(report); got != "resolve connect tls! certificate!" {
		t.Errorf("%s: %+v", got, report.Steps)
	}
	for _, s := range report.Steps[2:] {
		if !strings.Contains(s.Fix, "A compromise waits") || !strings.Contains(s.Fix, "sallyport connection replace acme mailbox --status") {
			t.Errorf("%s: %s", s.Name, s.Fix)
		}
	}
	_, err = g.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "answers a compromise") || !strings.Contains(fault.HintOf(err), "replace acme mailbox --status") {
		t.Errorf("undone: %v, %s", err, fault.HintOf(err))
	}
	g.knows.Store(true)
	if p := g.stuck(t); p.State != connection.Done {
		t.Errorf("%+v", p)
	}
	must(t, g.keeper.ReleaseConnection(t.Context(), "acme", "mailbox"))
	report, err = g.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	if last := report.Steps[len(report.Steps)-1]; last.OK || strings.Contains(last.Fix, "setup") {
		t.Errorf("a connection of kind smtp is to be set up: %+v", last)
	}
}

// TestCompromiseAtFrozenKeeper: what is to be done is what the keeper says, and
// the compromise waits for that.
func TestCompromiseAtFrozenKeeper(t *testing.T) {
	g := newGuest(t)
	first := g.only(t, "active")
	g.keeper.frozen.Store(true)
	_, err := g.Compromise(t.Context(), "token:1", "acme", first.ID)
	if hint := fault.HintOf(err); !fault.Is(err, fault.Later) || !strings.HasPrefix(hint, "Put the newest database back. ") || !strings.Contains(hint, "by itself") {
		t.Errorf("%v, %q", err, hint)
	}
	g.keeper.frozen.Store(false)
	if p := g.stuck(t); p.State != connection.Done || p.Identities[0].From != first.ID {
		t.Errorf("%+v", p)
	}
}
