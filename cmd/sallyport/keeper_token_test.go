package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestKeeperOnToken keeps everything under a KEK and keys that never leave a
// token, by the settings of keeper.toml; the token goes away and comes back.
func TestKeeperOnToken(t *testing.T) {
	hsm := testpeer.StartSoftHSM(t)
	var modules pkcs11.Modules
	t.Cleanup(modules.Close)
	cfg := newKeeperConfig("us", "gw.test", nil, nil)
	cfg.KEK = kekConfig{Driver: "pkcs11", Module: hsm.Module, Token: hsm.Label, PINFile: hsm.PINFile}
	cfg.KEKStandby = &kekConfig{Driver: "pkcs11", Module: hsm.Module, Token: hsm.Label, PINFile: hsm.PINFile}
	cfg.Keys = keysConfig{Driver: "pkcs11", Module: hsm.Module, Token: hsm.Label, PINFile: hsm.PINFile}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	err := modules.CreateKEK(t.Context(), "us", cfg.KEK.token())
	if fault.Is(err, fault.Invalid) && strings.Contains(err.Error(), "built without") {
		t.Skip("a test binary without cgo speaks no PKCS#11: CGO_ENABLED=1")
	}
	if err != nil {
		t.Fatal(err)
	}
	must(t, modules.CreateKEK(t.Context(), "us", cfg.KEKStandby.ofStandbys("us").token()))
	dir := t.TempDir()
	c, err := cfg.keeper(dir, slog.New(slog.DiscardHandler), &modules)
	if err != nil {
		t.Fatal(err)
	}
	if c.DB, err = store.OpenKeeper(t.Context(), store.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer c.DB.Close()
	c.Pool = -1
	k, err := keeper.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- k.Run(ctx) }()
	defer func() { cancel(); <-over }()

	peer := wire.Peer{Local: true}
	about := func(purpose string) act.Context {
		return act.Context{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: purpose, Trace: "t"}
	}
	if _, err := k.BindConnection(ctx, peer, act.Bind{Context: about("binding"), Binding: act.Binding{Host: "mx.acme.test", Port: 25}}); err != nil {
		t.Fatal(err)
	}
	id, err := k.IssueIdentity(ctx, peer, act.Issue{Context: about("smtp-client")})
	if err != nil || id.Driver != "pkcs11" {
		t.Fatalf("%+v, %v", id, err)
	}
	if _, err := k.MoveIdentity(ctx, peer, act.Move{Context: about("smtp-client"), Identity: id.ID, To: act.Active}); err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(id.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte("a transcript"))
	shake := func() error {
		got, err := k.HandshakeAsTenant(ctx, peer, act.Handshake{Context: about("smtp-client"), Identity: id.SHA256,
			Scheme: uint16(tls.ECDSAWithP256AndSHA256), Transcript: hash[:]})
		if err != nil {
			return err
		}
		signed := sha256.Sum256([]byte(strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + string(hash[:])))
		if !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), signed[:], got.Signature) {
			t.Error("the signature is not of the certificate's key")
		}
		return nil
	}
	if err := shake(); err != nil {
		t.Fatal(err)
	}
	s, err := k.Status(ctx, peer, act.Plain{Context: act.Context{Region: "us", Purpose: "status", Trace: "t"}})
	if err != nil || s.KEKDriver != "pkcs11" || s.KeyDriver != "pkcs11" || s.Custody != "none" { // SoftHSM's keys are files of the host
		t.Errorf("%+v, %v", s, err)
	}

	next, err := k.IssueIdentity(ctx, peer, act.Issue{Context: about("smtp-client"), Epoch: 2, Standby: true})
	if err != nil || !next.Apart || s.StandbyKEK == s.KEK || s.StandbyDriver != "pkcs11" {
		t.Fatalf("%v, %+v, %v", next.Apart, s, err)
	}

	hsm.Away(t)
	modules.Close() // a module that is loaded knows its files by heart
	if err := shake(); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("without its token: %v", err)
	}
	hsm.Back(t)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = shake(); err == nil {
			break
		}
		if !fault.Is(err, fault.Later) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	move := act.Move{Context: about("smtp-client"), Identity: next.ID, To: act.Staged}
	if next, err = k.MoveIdentity(ctx, peer, move); err != nil || next.Apart {
		t.Errorf("the standby: %v, %v", next.Apart, err)
	}
}
