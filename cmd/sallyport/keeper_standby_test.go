package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// createKEK runs keeper create-kek on a keeper's folder.
func createKEK(t testing.TB, dir string, more ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	args := append([]string{"keeper", "create-kek", "--data", dir}, more...)
	code := run(context.WithoutCancel(t.Context()), args, strings.NewReader(""), &out, &errs)
	return ran{code, out.String(), errs.String()}
}

// TestKeeperStandby starts a keeper by a keeper.toml with two KEK files, and
// takes the second away.
func TestKeeperStandby(t *testing.T) {
	dir, apart := filepath.Join(t.TempDir(), "us"), t.TempDir()
	must(t, writeKeeperFolder(dir, newKeeperConfig("us", "gw.test", nil, nil)))
	if got := createKEK(t, dir, "--standby"); got.code != exitFailed || !strings.Contains(got.err, "[kek_standby]") {
		t.Errorf("%+v", got)
	}
	if got := createKEK(t, dir); got.code != exitFailed || !strings.Contains(got.err, "not of pkcs11") {
		t.Errorf("%+v", got)
	}
	f, err := os.OpenFile(filepath.Join(dir, keeperConfigName), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("\n[kek_standby]\ndriver = \"file\"\nfile = \"" + apart + "/kek.json\"\npassphrase_file = \"" + apart + "/word\"\n")
	must(t, err)
	must(t, f.Close())
	createKEK(t, dir, "--standby").ok(t, nil)
	for _, name := range []string{"kek.json", "word"} {
		info, err := os.Stat(filepath.Join(apart, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}

	cfg, err := loadKeeperConfig(dir)
	must(t, err)
	c, err := cfg.keeper(dir, slog.New(slog.DiscardHandler), &pkcs11.Modules{})
	must(t, err)
	c.DB, err = store.OpenKeeper(t.Context(), store.Config{Dir: dir})
	must(t, err)
	defer c.DB.Close()
	c.Pool = -1
	k, err := keeper.New(t.Context(), c)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- k.Run(ctx) }()
	defer func() { cancel(); <-over }()

	about := act.Context{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: "smtp-client", Trace: "t"}
	_, err = k.BindConnection(ctx, wire.Peer{Local: true}, act.Bind{Context: about, Binding: act.Binding{Host: "mx.acme.test", Port: 25}})
	must(t, err)
	next, err := k.IssueIdentity(ctx, wire.Peer{Local: true}, act.Issue{Context: about, Standby: true})
	if err != nil || !next.Apart {
		t.Fatalf("%v %v", next.Apart, err)
	}
	must(t, os.Rename(apart+"/word", apart+"/word.away"))
	if _, err := k.MoveIdentity(ctx, wire.Peer{Local: true}, act.Move{Context: about, Identity: next.ID, To: act.Active}); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("without its passphrase: %v", err)
	}
	ordinary, err := k.IssueIdentity(ctx, wire.Peer{Local: true}, act.Issue{Context: about, Epoch: 2})
	must(t, err)
	if _, err := k.MoveIdentity(ctx, wire.Peer{Local: true}, act.Move{Context: about, Identity: ordinary.ID, To: act.Active}); err != nil || ordinary.Apart {
		t.Errorf("an ordinary one: %v", err)
	}
}
