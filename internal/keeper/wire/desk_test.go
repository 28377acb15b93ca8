package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// every is every act there is.
func every() []act.Name { return act.All() }

// desk is a keeper of one tenant and one host name, without a ledger: keys in
// memory, signatures by the room that makes them.
type desk struct {
	root         sign.Authority
	host, tenant *ecdsa.PrivateKey
	hostChain    [][]byte
	tenantChain  [][]byte
	fail         error // what every act answers, when set

	mu      sync.Mutex
	asked   []act.Name
	said    []act.Context
	peers   []wire.Peer
	refused []wire.Refusal
}

const hostName = "e1.mx.us.gate.example"

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{host: key(t), tenant: key(t)}
	rk := sign.Key{Signer: key(t), Use: sign.Issuer}
	root, err := sign.NewRoot(rk, "us", "gate.example", 48*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d.root = sign.Authority{Key: rk, Certificate: root}
	d.hostChain = d.issue(t, "mx", sign.TLSServer, d.host)
	d.tenantChain = d.issue(t, "acme", sign.TLSClient, d.tenant)
	return d
}

func (d *desk) issue(t testing.TB, label string, use sign.Use, k *ecdsa.PrivateKey) [][]byte {
	t.Helper()
	c, err := sign.IssueLeaf(d.root, sign.Leaf{
		Name: sign.Name{Epoch: 1, Label: label, Region: "us", Base: "gate.example"}, Use: use, Public: k.Public(), Life: time.Hour,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{c.Raw}
}

func (d *desk) note(n act.Name, p wire.Peer, c act.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked, d.peers, d.said = append(d.asked, n), append(d.peers, p), append(d.said, c)
	return d.fail
}

func (d *desk) refuse(r wire.Refusal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = append(d.refused, r)
}

func (d *desk) refusals() []wire.Refusal {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.refused)
}

func (d *desk) HandshakeAsTenant(_ context.Context, p wire.Peer, q act.Handshake) (act.Signature, error) {
	if err := d.note(act.HandshakeAsTenant, p, q.Context); err != nil {
		return act.Signature{}, err
	}
	s, err := sign.CertificateVerify(sign.Key{Signer: d.tenant, Use: sign.TLSClient}, sign.Client, tls.SignatureScheme(q.Scheme), q.Transcript)
	return act.Signature{Signature: s}, err
}

func (d *desk) HandshakeAsHost(_ context.Context, p wire.Peer, q act.HostHandshake) (act.Signature, error) {
	if err := d.note(act.HandshakeAsHost, p, q.Context); err != nil {
		return act.Signature{}, err
	}
	k, scheme := sign.Key{Signer: d.host, Use: sign.TLSServer}, tls.SignatureScheme(q.Scheme)
	if q.Exchange == nil {
		s, err := sign.CertificateVerify(k, sign.Server, scheme, q.Transcript)
		return act.Signature{Signature: s}, err
	}
	s, err := sign.SignServerKeyExchange(k, scheme, sign.ServerKeyExchange{
		ClientRandom: [32]byte(q.Exchange.ClientRandom), ServerRandom: [32]byte(q.Exchange.ServerRandom),
		Curve: tls.CurveID(q.Exchange.Curve), Public: q.Exchange.Public,
	})
	return act.Signature{Signature: s}, err
}

func (d *desk) TenantCertificate(_ context.Context, p wire.Peer, q act.Which) (act.Certificate, error) {
	return act.Certificate{Chain: d.tenantChain}, d.note(act.TenantCertificate, p, q.Context)
}

func (d *desk) HostCertificate(_ context.Context, p wire.Peer, q act.Host) (act.Certificate, error) {
	if err := d.note(act.HostCertificate, p, q.Context); err != nil {
		return act.Certificate{}, err
	}
	if q.Host != hostName {
		return act.Certificate{}, fault.New(fault.Missing, "desk", "no such host")
	}
	return act.Certificate{Chain: d.hostChain}, nil
}

func (d *desk) SignDKIM(_ context.Context, p wire.Peer, q act.DKIM) (act.Field, error) {
	return q.Mail.Fields[0], d.note(act.SignDKIM, p, q.Context)
}

func (d *desk) SealARC(_ context.Context, p wire.Peer, q act.ARC) (act.Set, error) {
	return act.Set{Seal: act.Field{Name: "ARC-Seal", Value: q.Validation}}, d.note(act.SealARC, p, q.Context)
}

func (d *desk) AssertClient(_ context.Context, p wire.Peer, q act.Assertion) (act.JWT, error) {
	return act.JWT{Token: "a"}, d.note(act.AssertClient, p, q.Context)
}

func (d *desk) ProvePossession(_ context.Context, p wire.Peer, q act.Assertion) (act.JWT, error) {
	return act.JWT{Token: "p"}, d.note(act.ProvePossession, p, q.Context)
}

func (d *desk) BindConnection(_ context.Context, p wire.Peer, q act.Bind) (act.Done, error) {
	return act.Done{}, d.note(act.BindConnection, p, q.Context)
}

func (d *desk) ReleaseConnection(_ context.Context, p wire.Peer, q act.Plain) (act.Done, error) {
	return act.Done{}, d.note(act.ReleaseConnection, p, q.Context)
}

func (d *desk) IssueIdentity(_ context.Context, p wire.Peer, q act.Issue) (act.Identity, error) {
	return act.Identity{ID: "i", Name: "n"}, d.note(act.IssueIdentity, p, q.Context)
}

func (d *desk) MoveIdentity(_ context.Context, p wire.Peer, q act.Move) (act.Identity, error) {
	return act.Identity{ID: q.Identity, State: q.To}, d.note(act.MoveIdentity, p, q.Context)
}

// ListIdentities has two pages.
func (d *desk) ListIdentities(_ context.Context, p wire.Peer, q act.IdentityQuery) (act.IdentityList, error) {
	got := act.IdentityList{Identities: []act.Identity{{ID: "1"}}, Next: "1"}
	if q.After == "1" {
		got = act.IdentityList{Identities: []act.Identity{{ID: "2"}}}
	}
	return got, d.note(act.ListIdentities, p, q.Context)
}

func (d *desk) AcmeChallenge(_ context.Context, p wire.Peer, q act.Challenge) (act.KeyAuthorization, error) {
	return act.KeyAuthorization{KeyAuthorization: q.Token + ".thumb"}, d.note(act.AcmeChallenge, p, q.Context)
}

func (d *desk) EnterEvents(_ context.Context, p wire.Peer, q act.Events) (act.Done, error) {
	return act.Done{}, d.note(act.EnterEvents, p, q.Context)
}

func (d *desk) SearchLedger(_ context.Context, p wire.Peer, q act.Search) (act.Entries, error) {
	return act.Entries{Entries: []json.RawMessage{[]byte(`{"index":7}`)}}, d.note(act.SearchLedger, p, q.Context)
}

func (d *desk) ShowEntry(_ context.Context, p wire.Peer, q act.Entry) (act.Document, error) {
	return act.Document{Document: []byte(`{"index":7}`)}, d.note(act.ShowEntry, p, q.Context)
}

func (d *desk) ProveEntry(_ context.Context, p wire.Peer, q act.Entry) (act.Document, error) {
	return act.Document{Document: []byte(`{"proof":7}`)}, d.note(act.ProveEntry, p, q.Context)
}

// ExportLedger writes more than an answer may have, and breaks off when the
// trace says so.
func (d *desk) ExportLedger(_ context.Context, p wire.Peer, q act.Plain, w io.Writer) error {
	if err := d.note(act.ExportLedger, p, q.Context); err != nil {
		return err
	}
	for range 3000 {
		if _, err := io.WriteString(w, strings.Repeat("x", 1023)+"\n"); err != nil {
			return err
		}
	}
	if q.Trace == "break off" {
		return errors.New("the disk is gone")
	}
	return nil
}

func (d *desk) OpenCredential(_ context.Context, p wire.Peer, q act.Plain) (act.Credential, error) {
	return act.Credential{User: "u", Password: "p"}, d.note(act.OpenCredential, p, q.Context)
}

func (d *desk) SetCredential(_ context.Context, p wire.Peer, q act.NewCredential) (act.Done, error) {
	return act.Done{}, d.note(act.SetCredential, p, q.Context)
}

func (d *desk) RemoveCredential(_ context.Context, p wire.Peer, q act.Plain) (act.Done, error) {
	return act.Done{}, d.note(act.RemoveCredential, p, q.Context)
}

func (d *desk) ListCredentials(_ context.Context, p wire.Peer, q act.Plain) (act.CredentialList, error) {
	at := time.Unix(1, 0).UTC()
	return act.CredentialList{Credentials: []act.CredentialInfo{
		{Connection: "mailbox", Purpose: "m365-admin", SetAt: at}, {Connection: "mailbox", Purpose: "smtp-auth", SetAt: at, LastOpened: &at},
	}}, d.note(act.ListCredentials, p, q.Context)
}

func (d *desk) Order(_ context.Context, p wire.Peer, q act.SignedOrder) (act.Ordered, error) {
	return act.Ordered{Text: "so be it"}, d.note(act.Order, p, q.Context)
}

func (d *desk) ReportSighting(_ context.Context, p wire.Peer, q act.Sighting) (act.Done, error) {
	return act.Done{}, d.note(act.ReportSighting, p, q.Context)
}

func (d *desk) Checkpoint(_ context.Context, p wire.Peer, q act.Plain) (act.Log, error) {
	return act.Log{Note: "note"}, d.note(act.Checkpoint, p, q.Context)
}

func (d *desk) Status(_ context.Context, p wire.Peer, q act.Plain) (act.State, error) {
	return act.State{Region: "us"}, d.note(act.Status, p, q.Context)
}

// serve starts a server on a socket with the given grants and returns the
// socket's path.
func (d *desk) serve(t testing.TB, allow ...wire.Grant) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d.start(t, allow, func(s *wire.Server) error { return s.ServeUnix(l) })
	return path
}

func (d *desk) start(t testing.TB, allow []wire.Grant, serve func(*wire.Server) error) {
	t.Helper()
	s, err := wire.New(wire.Config{Region: "us", Acts: d, Allow: allow, Refused: d.refuse})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(s) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// me is a grant of this test's own user.
func me(acts ...act.Name) wire.Grant {
	return wire.Grant{Local: true, UID: uint32(os.Getuid()), Acts: acts}
}

func remote(t testing.TB, socket string) *client.Remote {
	t.Helper()
	r, err := client.NewRemote(client.RemoteConfig{Region: "us", Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
