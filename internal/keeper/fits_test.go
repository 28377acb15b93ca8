package keeper

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// TestWrongFits: what does not fit is refused, entered and alarmed.
func TestWrongFits(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme", "other")
	if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: act.Context{Region: "us", Tenant: "acme", Connection: "second", Purpose: "binding", Trace: "t"}, Binding: aBinding()}); err != nil {
		t.Fatal(err)
	}
	active := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	if err := r.shake(t, of("acme", ofClient), active.SHA256); err != nil {
		t.Fatal(err)
	}
	decoy, err := r.issue(t.Context(), wish{id: "01DECOY", seat: seat{"other", "mailbox", ofClient}, decoy: true}, &r.authority)
	if err != nil {
		t.Fatal(err)
	}
	r.to(t, decoy.told(), act.Active)
	compromised := r.to(t, r.issued(t, "acme", ofClient, 0), act.Staged)
	if err := r.shake(t, of("acme", ofClient), compromised.SHA256); err != nil {
		t.Fatal(err)
	}
	r.to(t, compromised, act.Compromised)
	host, err := r.HostCertificate(t.Context(), someone(), act.Host{Context: about(""), Host: "mx.us.gate.example"})
	if err != nil {
		t.Fatal(err)
	}
	second := of("acme", ofClient)
	second.Connection = "second"
	entra := r.to(t, r.issued(t, "acme", app, 0), act.Active)
	for name, c := range map[string]struct {
		about act.Context
		sum   string
	}{
		"another tenant's":     {of("other", ofClient), active.SHA256},
		"another connection's": {second, active.SHA256},
		"another purpose":      {of("acme", ofClient), entra.SHA256},
		"a host's":             {of("acme", ofClient), sumOf(host.Chain[0])},
		"retired":              {of("acme", ofClient), r.to(t, r.issued(t, "acme", ofClient, 2), act.Retired).SHA256},
		"compromised":          {of("acme", ofClient), compromised.SHA256},
		"only issued":          {of("acme", ofClient), r.issued(t, "acme", ofClient, 0).SHA256},
		"a decoy":              {of("other", ofClient), decoy.sha256},
		"a stated purpose":     {of("acme", "newsletter"), active.SHA256},
		"that of a host":       {of("acme", "smtp-server"), active.SHA256},
	} {
		r.alarms.mu.Lock()
		r.alarms.told = nil
		r.alarms.mu.Unlock()
		if err := r.shake(t, c.about, c.sum); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if before, after := r.outcome(t, act.HandshakeAsTenant); before.Outcome != begun || !strings.HasPrefix(after.Outcome, refused) || before.Tenant != c.about.Tenant {
			t.Errorf("%s: %+v %+v", name, before, after)
		}
		r.alarmed(t, alarmRefused, c.about.Tenant)
		if _, err := r.TenantCertificate(t.Context(), someone(), act.Which{Context: c.about, Identity: c.sum}); !fault.Is(err, fault.Denied) {
			t.Errorf("the certificate of %s: %v", name, err)
		}
	}
	r.alarmed(t, alarmDecoy, "other")
	if err := r.shake(t, of("acme", ofClient), strings.Repeat("0", 64)); !fault.Is(err, fault.Missing) {
		t.Errorf("unknown: %v", err)
	}
	if err := r.shake(t, of("acme", ofClient), active.ID); !fault.Is(err, fault.Invalid) {
		t.Errorf("an id: %v", err)
	}
}

// TestSwappedRows: what was sealed for one place opens at no other, whatever
// else of the row was edited to match.
func TestSwappedIdentities(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme", "other")
	a := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	b := r.to(t, r.issued(t, "other", ofClient, 0), act.Active)
	second := r.to(t, r.issued(t, "acme", ofClient, 0), act.Staged)
	for name, c := range map[string]struct {
		q    store.KeeperSQL
		args []any
		mend store.KeeperSQL
	}{
		"a handle of another tenant": {"UPDATE keeper_identity SET handle = (SELECT handle FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{b.ID, a.ID}, ""},
		"a handle of the same place": {"UPDATE keeper_identity SET handle = (SELECT handle FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{second.ID, a.ID}, ""},
		"an epoch":                   {"UPDATE keeper_identity SET epoch = 7 WHERE id = $1", []any{a.ID}, ""},
		"a binding":                  {"UPDATE keeper_identity SET binding = $1 WHERE id = $2", []any{bindingText(act.Binding{Host: "evil.example", Port: 25}), a.ID}, ""},
		"a marker of another tenant": {"UPDATE keeper_identity SET marker = (SELECT marker FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{b.ID, a.ID}, ""},
		"a chain":                    {"UPDATE keeper_identity SET chain = (SELECT chain FROM keeper_identity WHERE id = $1) WHERE id = $2", []any{second.ID, a.ID}, ""},
		"a row of another tenant":    {"UPDATE keeper_identity SET tenant = 'other' WHERE id = $1", []any{a.ID}, ""},
		"a row of another purpose":   {"UPDATE keeper_identity SET purpose = 'entra-app' WHERE id = $1", []any{a.ID}, ""},
	} {
		was, err := r.row(t.Context(), selectByID, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		r.sql(t, c.q, c.args...)
		r.signers.drop("acme", "mailbox")
		now, err := r.row(t.Context(), selectByID, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		err = r.shake(t, act.Context{Region: "us", Tenant: now.tenant, Connection: now.connection, Purpose: now.purpose, Trace: "t"}, a.SHA256)
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		r.sql(t, "DELETE FROM keeper_identity WHERE id = $1", a.ID)
		r.sql(t, insertIdentity, was.values()...)
		r.signers.drop("acme", "mailbox")
		r.signers.drop("other", "mailbox")
		if err := r.shake(t, of("acme", ofClient), a.SHA256); err != nil {
			t.Fatalf("mended after %s: %v", name, err)
		}
	}
	// The connection's binding edited alone.
	r.sql(t, "UPDATE keeper_binding SET binding = $1 WHERE tenant = 'acme'", bindingText(act.Binding{Host: "evil.example", Port: 25}))
	r.signers.drop("acme", "mailbox")
	if err := r.shake(t, of("acme", ofClient), a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("an edited binding: %v", err)
	}
}

// A row of one region opens in no other, even under the same KEK.
func TestAnotherRegion(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	a := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	row, err := r.row(t.Context(), selectByID, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := r.seals.row(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	uk := openRig(t, t.TempDir(), r.kek, func(c *Config) { c.Region, c.Hosts = "uk", nil })
	uk.sql(t, insertIdentity, row.values()...)
	uk.sql(t, insertDataKey, "acme", wrapped.KEK, wrapped.Blob)
	uk.sql(t, insertBinding, "acme", "mailbox", row.binding, int64(1))
	c := of("acme", ofClient)
	c.Region = "uk"
	if err := uk.shake(t, c, a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	// With a data key of its own neither.
	uk.sql(t, "DELETE FROM keeper_datakey WHERE tenant = 'acme'")
	if err := uk.shake(t, c, a.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
}

func TestMarker(t *testing.T) {
	r := newRig(t)
	dk, err := r.seals.key(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	place := seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: ofClient}
	size := 0
	for range 50 {
		for _, decoy := range []bool{true, false} {
			b, err := markerOf(dk, place, decoy)
			if err != nil {
				t.Fatal(err)
			}
			if size == 0 {
				size = len(b)
			}
			if got, err := readMarker(dk, place, b); got != decoy || err != nil || len(b) != size {
				t.Errorf("%v %v, %d bytes", got, err, len(b))
			}
		}
	}
	short, err := dk.Seal(seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: ofClient, Kind: seal.Marker}, seal.NewSecret([]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readMarker(dk, place, short); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
}
