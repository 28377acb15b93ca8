package connection_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// guarded is a Postfix that takes mail from the clients on its list of
// fingerprints alone.
type guarded struct {
	*testpeer.Postfix
	list string
}

func startGuarded(t *testing.T, k *custodian.Keeper, server *testpeer.CA) *guarded {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	root := filepath.Join(dir, "sallyport.pem")
	must(t, os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Root.Raw}), 0o644))
	g := &guarded{list: filepath.Join(dir, "clients")}
	must(t, os.WriteFile(g.list, nil, 0o644))
	g.Postfix = testpeer.StartPostfix(t, testpeer.PostfixConfig{Hostname: "mail.acme.test", Domains: []string{"acme.test", "acme.example"}, Cert: server.Issue(t, nil, "mail.acme.test"),
		Main: map[string]string{
			"smtpd_tls_security_level": "encrypt", "smtpd_tls_req_ccert": "yes", "smtpd_tls_CAfile": root, "smtpd_tls_fingerprint_digest": "sha256",
			"relay_clientcerts": "texthash:" + g.list, "smtpd_client_restrictions": "permit_tls_clientcerts, reject", "mynetworks": "192.0.2.1/32",
		}})
	return g
}

// accept puts fingerprints on its list, as identity list shows them.
func (g *guarded) accept(t *testing.T, sums ...string) {
	t.Helper()
	var b strings.Builder
	for _, s := range sums {
		for i := 0; i < len(s); i += 2 {
			b.WriteString(strings.ToUpper(s[i : i+2]))
			if i+2 < len(s) {
				b.WriteByte(':')
			}
		}
		b.WriteString(" sallyport\n")
	}
	must(t, os.WriteFile(g.list, []byte(b.String()), 0o644))
	g.Command(t, "postfix", "reload")
}

// waitFor looks at acme's replacement until it is as wanted.
func (h *house) waitFor(t *testing.T, what string, as func(connection.Replacement) bool) connection.Replacement {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p, err := h.Replacement(t.Context(), "acme", "mailbox")
		must(t, err)
		if as(p) {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("%s: it is %s, waiting %q", what, p.State, p.Waiting)
		}
	}
}

// TestReplaceAtPostfix: a partner that knows our certificate by its fingerprint
// is waited for, and the old identity stays in use until it knows the new one.
func TestReplaceAtPostfix(t *testing.T) {
	keeper, ca := custodian.New(t), testpeer.NewCA(t, "Acme CA")
	postfix := startGuarded(t, keeper, ca)
	h := newHouse(t, openSQLite(t), func(c *connection.Config) {
		c.Now, c.Signers = time.Now, keeper
		c.Keepers = func(string) (connection.Keeper, error) { return keeper, nil }
	})
	host, port := hostPort(t, postfix.Addr)
	h.add(t, connection.Connection{Tenant: "acme", Name: "mailbox", Host: host, Port: port, TLS: "mutual", CA: string(ca.PEM), ServerName: "mail.acme.test"})
	first := h.only(t, "active")
	report, err := h.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	if report.OK {
		t.Fatalf("accepted before its fingerprint was there: %+v", report.Steps)
	}
	if text := fmt.Sprint(report.Steps); !strings.Contains(text, "accept the SHA-256 that the step certificate names") {
		t.Errorf("nobody is told to accept the certificate: %s", text)
	}
	postfix.accept(t, first.SHA256)
	passed := h.passes(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = h.Run(ctx) }()
	defer func() { stop(); <-ended }()

	_, err = h.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	p := h.waitFor(t, "waiting for the partner", func(p connection.Replacement) bool { return p.Waiting != "" })
	next := h.only(t, "staged")
	if p.State != connection.Offered || !strings.Contains(p.Waiting, "waiting for the partner") || !strings.Contains(p.Fix, strings.ToUpper(next.SHA256[:2])+":") || next.Epoch != 2 {
		t.Errorf("%+v", p)
	}
	if now := h.only(t, "active"); now.ID != first.ID {
		t.Error("switched before the partner knows the new one")
	}
	postfix.accept(t, first.SHA256, next.SHA256)
	h.Hurry("acme", "mailbox")
	done := h.waitFor(t, "done", connectionDone)
	if now := h.only(t, "active"); now.ID != next.ID || len(done.Notes) != 1 || !strings.Contains(done.Notes[0], "take the old certificate off") {
		t.Errorf("%+v", done)
	}
	postfix.accept(t, next.SHA256)
	passed += h.passes(t)
	postfix.Wait(t, passed, 10*time.Second)

	// A renewal is a new certificate under the same name: the partner has to
	// know it too.
	_, err = h.Rotate(t.Context(), "token:1", "acme", next.ID, false)
	must(t, err)
	h.waitFor(t, "renewal waits", func(p connection.Replacement) bool { return p.Kind == connection.KindRenew && p.Waiting != "" })
	if renewed := h.only(t, "staged"); renewed.Name != next.Name || renewed.SHA256 == next.SHA256 {
		t.Errorf("renewed %+v", renewed)
	}
	if words, err := h.Pending(t.Context()); err != nil || len(words) != 1 {
		t.Errorf("pending: %v, %v", words, err)
	}
	_, err = h.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	h.Hurry("acme", "mailbox")
	h.waitFor(t, "undone", func(p connection.Replacement) bool { return p.State == connection.Undone })
	if now := h.only(t, "active"); now.ID != next.ID {
		t.Errorf("active is %+v", now)
	}
}

// passes tests acme's mailbox until it is in order: a Postfix that was told to
// read its list anew takes a moment. It says how many messages it has taken.
func (h *house) passes(t *testing.T) int {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		report, err := h.Test(t.Context(), "acme", "mailbox", mail.Address{})
		must(t, err)
		if report.OK {
			return 1
		}
		if time.Now().After(end) {
			t.Fatalf("not accepted: %+v", report.Steps)
		}
	}
}

func connectionDone(p connection.Replacement) bool { return p.State == connection.Done }

// only is acme's one identity in a state.
func (h *house) only(t *testing.T, state string) connection.Identity {
	t.Helper()
	all, err := h.Identities(t.Context(), "acme")
	must(t, err)
	var found []connection.Identity
	for _, i := range all {
		if i.State == state {
			found = append(found, i)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d identities are %s: %+v", len(found), state, all)
	}
	return found[0]
}
