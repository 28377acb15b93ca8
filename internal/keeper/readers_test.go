package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A tenant's readers see that tenant's entries.
func TestReaders(t *testing.T) {
	eachRig(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		first := r.ledger.Size() // of the keeper's own before
		for i := range 250 {
			e := ledger.Entry{Act: "x", Tenant: []string{"acme", "globex"}[i%2], Connection: fmt.Sprint("c", i%4), Trace: fmt.Sprint("t", i)}
			if err := r.enter(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		of := func(tenant, connection string) act.Context {
			return act.Context{Tenant: tenant, Connection: connection}
		}
		for _, c := range []struct {
			q    act.Search
			want int
			next int64
		}{
			{act.Search{}, usualFound, usualFound},
			{act.Search{Limit: 1000, From: first}, 250, 0},
			{act.Search{Limit: 250, From: first}, 250, 0},
			{act.Search{Limit: 249, From: first}, 249, first + 249},
			{act.Search{From: first + 240}, 10, 0},
			{act.Search{Context: of("acme", ""), Limit: 1000}, 125, 0},
			{act.Search{Context: of("acme", ""), Limit: 125}, 125, 0},
			{act.Search{Context: of("acme", ""), Limit: 124}, 124, first + 248},
			{act.Search{Context: of("acme", "c2"), Limit: 1000}, 62, 0},
			{act.Search{Context: of("acme", "c1"), Limit: 1000}, 0, 0},
			{act.Search{Of: "t7"}, 1, 0},
			{act.Search{Of: "t7", Limit: 1}, 1, 0},
			{act.Search{Context: of("acme", ""), Of: "t7"}, 0, 0},
			{act.Search{Act: "y"}, 0, 0},
			{act.Search{Actor: "keeper", Limit: 7}, 7, 7},
			{act.Search{Since: time.Now().Add(time.Hour)}, 0, 0},
			{act.Search{Until: time.Now().Add(-time.Hour)}, 0, 0},
		} {
			got, err := r.SearchLedger(ctx, someone(), c.q)
			if err != nil || got.Entries == nil || len(got.Entries) != c.want || got.Next != c.next {
				t.Errorf("%+v: %d and %d, want %d and %d: %v", c.q, len(got.Entries), got.Next, c.want, c.next, err)
			}
		}
		for _, q := range []act.Search{{Limit: 1001}, {Limit: -1}, {From: -1}} {
			if _, err := r.SearchLedger(ctx, someone(), q); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v: %v", q, err)
			}
		}
		for _, c := range []struct {
			about act.Context
			index int64
			ok    bool
		}{
			{of("", ""), 7, true}, {of("globex", ""), 7, true}, {of("globex", "c3"), 7, true},
			{of("acme", ""), 7, false}, {of("globex", "c1"), 7, false}, {of("", ""), 250, false}, {of("", ""), -1 - first, false},
		} {
			shown, err1 := r.ShowEntry(ctx, someone(), act.Entry{Context: c.about, Index: first + c.index})
			proof, err2 := r.ProveEntry(ctx, someone(), act.Entry{Context: c.about, Index: first + c.index})
			if !c.ok {
				if !fault.Is(err1, fault.Missing) || !fault.Is(err2, fault.Missing) {
					t.Errorf("%+v: %v, %v", c, err1, err2)
				}
				continue
			}
			if err := errors.Join(err1, err2); err != nil || !strings.Contains(string(shown.Document), fmt.Sprintf(`"index":%d,`, first+7)) {
				t.Errorf("%+v: %s, %v", c, shown.Document, err)
			}
			if got, err := audit.VerifyProof(proof.Document, audit.Options{Keys: r.logKeys}); err != nil || !got.OK {
				t.Errorf("%+v: %v", got, err)
			}
		}
		note, err := r.Checkpoint(ctx, someone(), act.Plain{})
		if err != nil || !strings.HasPrefix(note.Note, fmt.Sprintf("sallyport.us.gate.example\n%d\n", first+250)) {
			t.Errorf("%s: %v", note.Note, err)
		}
		if got := r.audit(t); !got.OK || got.Entries != first+251 { // the export's own
			t.Errorf("%+v", got)
		}
	})
}

// A page of long entries is no longer than an answer may be.
func TestLongAnswer(t *testing.T) {
	r := newRig(t)
	s := strings.Repeat("\x01", 1000)
	for i := range 200 {
		if err := r.events(act.Event{Key: fmt.Sprint(i), Actor: "a", Act: "x", Subject: s, Purpose: s, Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for from := int64(0); ; {
		got, err := r.SearchLedger(t.Context(), someone(), act.Search{Act: "x", Limit: 1000, From: from})
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(got)
		if err != nil || len(b) > 1<<20 {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		seen += len(got.Entries)
		if from = got.Next; from == 0 {
			break
		}
	}
	if seen != 200 {
		t.Errorf("%d entries", seen)
	}
}

// elsewhere is a KEK that says it is not on this host.
type elsewhere struct{ seal.KEK }

func (k elsewhere) Describe() seal.Description {
	return seal.Description{Driver: "transit", ID: k.ID()}
}

func TestStatus(t *testing.T) {
	far := func(c *Config) { c.KEKs[0] = elsewhere{c.KEKs[0]} }
	witness := func(c *Config) {
		c.MoreWitnesses = func(origin string, keys []string) ([]ledger.Witness, error) {
			w, err := ledger.NewFileWitness(filepath.Join(c.Dir, "witness"), origin, keys)
			return []ledger.Witness{w}, err
		}
	}
	other := wire.Peer{Local: true, UID: uint32(os.Getuid()) + 1}
	for _, c := range []struct {
		name    string
		set     []func(*Config)
		peer    wire.Peer
		custody string
		why     []string
	}{
		{"a KEK file", []func(*Config){witness}, other, custodyNone, []string{"KEK lies on"}},
		{"the same user", []func(*Config){far, witness}, wire.Peer{Local: true, UID: uint32(os.Getuid())}, custodyNone, []string{"keeper's own user"}},
		{"the roof says so", []func(*Config){far, witness, func(c *Config) { c.SameUser = true }}, other, custodyNone, []string{"keeper's own user"}},
		{"no witness", []func(*Config){far}, other, custodyKept, []string{"no witness"}},
		{"the root's key", []func(*Config){far, witness}, other, custodyKept, []string{"root.key"}},
		{"as it should be", []func(*Config){far, witness}, other, custodyKept, nil},
		{"by certificate", []func(*Config){far, witness}, wire.Peer{Certificate: "gateway"}, custodyKept, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.set...)
			key := filepath.Join(r.dir, rootKeyFile)
			if err := os.Remove(key); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if slices.Contains(c.why, rootKeyFile) {
				if err := os.WriteFile(key, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before, err := r.Status(t.Context(), c.peer, act.Plain{})
			if err != nil {
				t.Fatal(err)
			}
			r.identities(t, "a active", "b staged", "c retiring", "d issued", "e retired", "f compromised")
			s, err := r.Status(t.Context(), c.peer, act.Plain{})
			if err != nil || s.Custody != c.custody || len(s.Why) != len(c.why) {
				t.Fatalf("%+v: %v", s, err)
			}
			for i, why := range c.why {
				if !strings.Contains(s.Why[i], why) {
					t.Errorf("%q, want %q", s.Why[i], why)
				}
			}
			if s.Region != "us" || s.KEK != r.kek.ID() || s.KeyDriver != "software" || s.Breaker != "watching" || s.Identities != before.Identities+3 || s.Frozen != "" || s.Rotation != "" ||
				len(s.LedgerKeys) != 1 || !strings.Contains(string(s.Ledger), `"witnesses":[`) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// With a full disk nothing is done, for nothing can be entered; with room again
// it goes on.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "db")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=16m"); err != nil {
		testpeer.Missing(t, "mount", "the right to mount a tmpfs")
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	r := openRig(t, dir, newKEK(t, "us"), func(c *Config) { c.Limit = 1_000_000 })
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")

	junk := filepath.Join(small, "junk")
	f, err := os.Create(junk)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1 << 20, 4 << 10, 1} {
		for b := make([]byte, n); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	f.Close()
	opened, refusedInARow := 0, 0
	for i := 0; refusedInARow < 20; i++ {
		if i > 20_000 {
			t.Fatal("the disk is never full")
		}
		got, err := r.open("acme/mailbox")
		switch {
		case err == nil:
			opened, refusedInARow = opened+1, 0
		case !fault.Is(err, fault.Later) || got.Password != "" || fault.HintOf(err) == "":
			t.Fatalf("%+v: %v", got, err)
		default:
			refusedInARow++
		}
	}
	_, err = r.SetCredential(t.Context(), someone(), act.NewCredential{Context: about(purposeAuth), User: "u", Password: "changed"})
	if !fault.Is(err, fault.Later) {
		t.Errorf("set on a full disk: %v", err)
	}
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	within(t, "it goes on", func() bool { got, err := r.open("acme/mailbox"); return err == nil && got.Password == "p" })
	r.end()
	r = r.again(t)
	begins := 0
	for from := int64(0); ; {
		found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: string(act.OpenCredential), From: from})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			break
		}
		for _, e := range found {
			if e.Outcome == begun {
				begins++
			}
		}
		from = found[len(found)-1].Index + 1
	}
	if begins < opened+1 {
		t.Errorf("%d openings, %d of them entered", opened+1, begins)
	}
	if got := r.audit(t); !got.OK {
		t.Errorf("%+v", got)
	}
}
