package keeper

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
)

// TestRegionsApart takes everything that one region has to another: keys, data
// keys, certificates, the CA, the ledger. Nothing of it is worth anything there.
func TestRegionsApart(t *testing.T) {
	us := newRig(t)
	uk := openRig(t, t.TempDir(), newKEK(t, "uk"), func(c *Config) { c.Region, c.Hosts = "uk", []string{"mx.uk.gate.example"} })
	for _, r := range []*rig{us, uk} {
		r.boundAll(t, "acme")
	}
	ours := us.to(t, us.issued(t, "acme", ofClient, 0), act.Active)
	theirs := uk.to(t, uk.issued(t, "acme", ofClient, 0), act.Active)
	for r, i := range map[*rig]act.Identity{us: ours, uk: theirs} {
		if err := r.shake(t, of("acme", ofClient), i.SHA256); err != nil {
			t.Fatalf("in its own region: %v", err)
		}
	}

	// A certificate of the other region is none here.
	if err := uk.shake(t, of("acme", ofClient), ours.SHA256); !fault.Is(err, fault.Missing) {
		t.Errorf("a certificate of another region: %v", err)
	}
	// The row that holds the sealed key, put in the place of one that is here.
	carry(t, us, uk, ours.ID, theirs.ID)
	if err := uk.shake(t, of("acme", ofClient), ours.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("a sealed key of another region: %v", err)
	}
	// And its data key with it: it is under a KEK that is not had here.
	var kek string
	var blob []byte
	if err := us.door.QueryRow(t.Context(), selectDataKey, "acme").Scan(&kek, &blob); err != nil {
		t.Fatal(err)
	}
	uk.sql(t, "UPDATE keeper_datakey SET kek = $1, blob = $2 WHERE tenant = 'acme'", kek, blob)
	uk.forget()
	if err := uk.shake(t, of("acme", ofClient), ours.SHA256); err == nil {
		t.Error("a data key of another region opened")
	}
	// Also not where somebody has got the other region's KEK: the region is in
	// every seal.
	uk.c.KEKs = append(uk.c.KEKs, us.kek)
	uk.forget()
	if err := uk.shake(t, of("acme", ofClient), ours.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("with the other region's KEK: %v", err)
	}

	verifies(t, us, ours, us, true)
	verifies(t, us, ours, uk, false)
	namesHeld(t, us)

	// A ledger is signed by its own region's key alone.
	var export bytes.Buffer
	if err := us.ledger.Export(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	for r, want := range map[*rig]bool{us: true, uk: false} {
		if got, err := audit.Verify(bytes.NewReader(export.Bytes()), audit.Options{Keys: r.logKeys}); (err == nil && got.OK) != want {
			t.Errorf("the ledger of us by the key of %s: %+v, %v", r.c.Region, got, err)
		}
	}
}

// carry copies what is sealed and shown of an identity into another region's
// row.
func carry(t *testing.T, from, to *rig, id, into string) {
	t.Helper()
	r, err := from.row(t.Context(), selectByID, id)
	if err != nil {
		t.Fatal(err)
	}
	to.sql(t, "UPDATE keeper_identity SET handle = $1, marker = $2, chain = $3, sha256 = $4, name = $5 WHERE id = $6",
		r.handle, r.marker, r.chain, r.sha256, r.name, into)
	to.forget()
}

// forget forgets what was opened, as a start does.
func (r *rig) forget() {
	r.signers.dropAll()
	r.seals.mu.Lock()
	defer r.seals.mu.Unlock()
	clear(r.seals.open)
}

// verifies holds a certificate against a region's root.
func verifies(t *testing.T, of *rig, i act.Identity, by *rig, want bool) {
	t.Helper()
	var certs []*x509.Certificate
	for _, der := range i.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(by.Root())
	between.AddCert(certs[1])
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if (err == nil) != want {
		t.Errorf("a certificate of %s under the root of %s: %v", of.c.Region, by.c.Region, err)
	}
}

// namesHeld has a region's issuer, in wrong hands, certify a name of another
// region: nobody who knows its root takes it.
func namesHeld(t *testing.T, r *rig) {
	t.Helper()
	r.authority.mu.RLock()
	issuer := r.authority.online
	r.authority.mu.RUnlock()
	leaf, err := sign.IssueLeaf(issuer, sign.Leaf{Name: sign.Name{Epoch: 1, Label: "acme", Region: "uk", Base: "gate.example"}, Use: sign.TLSClient,
		Public: issuer.Key.Signer.Public(), Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verifies(t, r, act.Identity{Chain: [][]byte{leaf.Raw, issuer.Certificate.Raw}}, r, false)
}
