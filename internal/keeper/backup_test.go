package keeper

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A backup holds no secret in clear; what is restored from it is frozen until
// it is thawed, on either database, and then opens what it opened.
func TestBackup(t *testing.T) {
	const secret, other = "a password to be looked for", "a second one of them"
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r.bindTo(t, "mx.acme.example", "acme/mailbox", "globex/mailbox")
		r.set(t, "acme/mailbox", "some user", secret)
		r.set(t, "globex/mailbox", "some user", other)
		planted, err := r.order(t, signOrder(t, operator.PlantDecoy, "", plant("acme/journal"), s.anna))
		if err != nil {
			t.Fatal(err)
		}
		r.identities(t, "a active", "b retired")
		var b bytes.Buffer
		if err := backup(t.Context(), r.db, &b); err != nil {
			t.Fatal(err)
		}
		for _, clear := range []string{secret, other, "some user", planted.Secret, "PRIVATE KEY", "a decoy.", "genuine."} {
			if bytes.Contains(b.Bytes(), []byte(clear)) {
				t.Errorf("the backup holds %q", clear)
			}
		}
		if !bytes.Contains(b.Bytes(), []byte("mx.acme.example")) {
			t.Error("nor anything else")
		}
		if why := r.frozen.reason(); why != "" {
			t.Error("the keeper that made it is frozen: " + why)
		}
		if there, err := r.recall(t.Context(), rememberRestored, new(any)); there || err != nil {
			t.Errorf("the mark is in the database in use: %v", err)
		}
		testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
			dir := t.TempDir()
			c.Dir = filepath.Join(dir, "db")
			if err := Restore(t.Context(), bytes.NewReader(b.Bytes()), c); err != nil {
				t.Fatal(err)
			}
			if err := Restore(t.Context(), bytes.NewReader(b.Bytes()), c); !fault.Is(err, fault.Conflict) {
				t.Errorf("over one that is there: %v", err)
			}
			n := openRigAt(t, dir, c, r.kek, r.with...)
			n.atRest(t, "backup of")
			n.soundStill(t)
			n.end()
			n = n.again(t)
			n.atRest(t, "backup of")
			if _, err := n.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); err != nil {
				t.Fatal(err)
			}
			if got := n.states(t); got != "a retired, b retired" {
				t.Error(got)
			}
			if got, err := n.open("acme/mailbox"); err != nil || got != (act.Credential{User: "some user", Password: secret}) {
				t.Errorf("%+v: %v", got, err)
			}
			n.end()
			n = n.again(t)
			if why := n.frozen.reason(); why != "" {
				t.Error(why)
			}
		})
	}, s.known)
}

// backup copies a database that the test has open, as BackupBeside does.
func backup(ctx context.Context, db *store.KeeperDB, w io.Writer) error {
	at, err := backupMark()
	if err != nil {
		return err
	}
	return db.Backup(ctx, w, upsertState, rememberRestored, at)
}

// A backup that is cut short, or of the gateway, restores nothing.
func TestBackupThatIsNone(t *testing.T) {
	r := newRig(t)
	var b bytes.Buffer
	if err := backup(t.Context(), r.db, &b); err != nil {
		t.Fatal(err)
	}
	gateway, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	file := filepath.Join(t.TempDir(), "backup")
	if err := gateway.Backup(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"cut": b.Bytes()[:b.Len()/2], "nothing": nil, "the gateway's": theirs} {
		c := store.Config{Dir: filepath.Join(t.TempDir(), "db")}
		if err := Restore(t.Context(), bytes.NewReader(raw), c); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		db, err := store.OpenKeeper(t.Context(), c)
		if err != nil {
			t.Errorf("%s: the place is not empty any more: %v", name, err)
			continue
		}
		db.Close()
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if err := os.WriteFile(whole, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := store.Restore(t.Context(), whole, store.Config{Dir: t.TempDir()}, nil); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "other process") {
		t.Errorf("the keeper's as a gateway's: %v", err)
	}
}
