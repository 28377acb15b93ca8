package keeper

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
)

// TestMailIdentity issues a key for messages, publishes it as a domain's owner
// would, and lets a foreign verifier look at what it signs.
func TestMailIdentity(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		c := act.Context{Region: "us", Tenant: "acme", Connection: "acme.example", Purpose: "dkim", Trace: "t"}
		issue := func() act.Identity {
			got, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: c})
			if err != nil || got.State != act.Issued || len(got.Chain) != 0 || len(got.Public) == 0 || got.SHA256 != sumOf(got.Public) {
				t.Fatalf("%+v %v", got, err)
			}
			return got
		}
		first := issue()
		active, err := r.MoveIdentity(t.Context(), someone(), act.Move{Context: c, Identity: first.ID, To: act.Active})
		if err != nil {
			t.Fatal(err)
		}
		body := sha256.Sum256([]byte("hello\r\n"))
		f, err := r.SignDKIM(t.Context(), someone(), act.DKIM{Context: act.Context{Region: "us", Tenant: "acme", Purpose: "dkim", Trace: "t"}, Identity: active.ID,
			Mail: act.Mail{Fields: []act.Field{{Name: "From", Value: " a@acme.example"}}, BodyHash: body[:], Time: time.Now()}})
		if err != nil {
			t.Fatal(err)
		}
		asked := ""
		got, err := dkim.VerifyWithOptions(strings.NewReader(f.Name+":"+f.Value+"\r\nFrom: a@acme.example\r\n\r\nhello\r\n"), &dkim.VerifyOptions{
			LookupTXT: func(name string) ([]string, error) {
				asked = name
				return []string{"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(active.Public)}, nil
			},
		})
		if err != nil || len(got) != 1 || got[0].Err != nil || asked != active.Name {
			t.Errorf("%+v %v, asked for %s, is %s", got, err, asked, active.Name)
		}
		next := issue()
		if next.Epoch != 2 || next.Name == first.Name || !strings.HasSuffix(next.Name, "._domainkey.acme.example") {
			t.Errorf("the next key needs a record of its own: %+v", next)
		}
		// A public key that was put in by hand signs nothing.
		r.sql(t, "UPDATE keeper_identity SET chain = $1, sha256 = $2 WHERE id = $3", pemOf(next.Public), next.SHA256+"00", active.ID)
		r.signers.dropAll()
		if _, err := r.SignDKIM(t.Context(), someone(), act.DKIM{Context: act.Context{Region: "us", Tenant: "acme", Purpose: "dkim", Trace: "t"}, Identity: active.ID,
			Mail: act.Mail{Fields: []act.Field{{Name: "From", Value: " a@acme.example"}}, BodyHash: body[:], Time: time.Now()}}); !fault.Is(err, fault.Denied) {
			t.Errorf("with another public key: %v", err)
		}
	})
}

func pemOf(spki []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
}

// mailer puts in an identity for messages of another key type than is issued.
func (r *rig) mailer(t testing.TB, tenant, purpose string) *identity {
	t.Helper()
	one := &identity{id: "01" + tenant + purpose, tenant: tenant, connection: "acme.example", purpose: purpose, epoch: 1, name: "s1._domainkey.acme.example",
		state: act.Active, issuer: selfIssued, algorithm: string(keys.Ed25519), binding: bindingText(act.Binding{})}
	if public, err := r.makeKey(t.Context(), one, keys.Ed25519, false); err != nil || len(public.(ed25519.PublicKey)) != 32 {
		t.Fatal(err)
	}
	r.sql(t, insertIdentity, one.values()...)
	return one
}

func TestMailSignatures(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme", "other")
	mail := act.Mail{Fields: []act.Field{{Name: "From", Value: " a@acme.example"}}, BodyHash: make([]byte, 32), Time: time.Unix(1, 0)}
	c := act.Context{Region: "us", Tenant: "acme", Purpose: "dkim", Trace: "t"}
	asArc := c
	asArc.Purpose = "arc"
	signed := func(id string, m act.Mail) error {
		f, err := r.SignDKIM(t.Context(), someone(), act.DKIM{Context: c, Identity: id, Mail: m})
		if err == nil && (f.Name != "DKIM-Signature" || !strings.Contains(f.Value, "d=acme.example; s=s1;")) {
			t.Errorf("%+v", f)
		}
		return err
	}
	arc := func(id string, m act.Mail) error {
		s, err := r.SealARC(t.Context(), someone(), act.ARC{Context: asArc, Identity: id, Mail: m, Validation: "none", Results: "mx.example; spf=pass"})
		if err == nil && (s.Seal.Name != "ARC-Seal" || !strings.Contains(s.Seal.Value, "d=acme.example")) {
			t.Errorf("%+v", s)
		}
		return err
	}
	for _, sign := range []func(string, act.Mail) error{signed, arc} {
		if err := sign("01NONE", mail); !fault.Is(err, fault.Missing) {
			t.Errorf("%v", err)
		}
		if err := sign("", mail); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v", err)
		}
	}
	d, a, foreign := r.mailer(t, "acme", "dkim"), r.mailer(t, "acme", "arc"), r.mailer(t, "other", "dkim")
	for name, err := range map[string]error{"dkim": signed(d.id, mail), "arc": arc(a.id, mail)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{"another tenant's": signed(foreign.id, mail), "an arc key": signed(a.id, mail), "a dkim key": arc(d.id, mail)} {
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 31, 33} {
		short := mail
		short.BodyHash = make([]byte, n)
		for _, err := range []error{signed(d.id, short), arc(a.id, short)} {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("a hash of %d bytes: %v", n, err)
			}
		}
	}
	if before, after := r.outcome(t, act.SignDKIM); before.Tenant != "acme" || !strings.HasPrefix(after.Outcome, failed) {
		t.Errorf("%+v %+v", before, after)
	}
}

// A key exchange of the wrong size is refused, not copied.
func TestKeyExchangeSizes(t *testing.T) {
	r := newRig(t)
	sum := sumOf(r.shownBy(t, mx).Raw)
	atHost := act.Context{Region: "us", Purpose: "smtp-server", Trace: "t"}
	for _, n := range []int{0, 31, 33, 64} {
		for _, x := range []act.KeyExchange{{ClientRandom: make([]byte, n), ServerRandom: make([]byte, 32)}, {ClientRandom: make([]byte, 32), ServerRandom: make([]byte, n)}} {
			x.Curve, x.Public = 29, make([]byte, 32)
			_, err := r.HandshakeAsHost(t.Context(), someone(), act.HostHandshake{Context: atHost, Host: mx, Identity: sum, Scheme: 0x0403, Exchange: &x})
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	}
	for _, n := range []int{0, 31, 64} {
		_, err := r.HandshakeAsHost(t.Context(), someone(), act.HostHandshake{Context: atHost, Host: mx, Identity: sum, Scheme: 0x0403, Transcript: make([]byte, n)})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("a transcript of %d bytes: %v", n, err)
		}
	}
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	_, err := r.HandshakeAsHost(t.Context(), someone(), act.HostHandshake{Context: atHost, Host: mx, Identity: one.SHA256, Scheme: 0x0403, Transcript: make([]byte, 32)})
	if !fault.Is(err, fault.Denied) {
		t.Errorf("a tenant's key as a host: %v", err)
	}
}
