package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// verified is what ledger verify prints, by the contract and beyond it.
type verified struct {
	OK       bool
	Verdict  string
	Entries  int64
	Anchored bool
	Tail     *struct {
		Size            int64
		Hash, Signature string
	}
	Checkpoint *struct {
		Size            int64
		Hash, Signature string
	}
	Problems []struct {
		Index int64
		What  string
	}
	Regions []struct {
		Region  string
		OK      bool
		Entries int64
		Error   *string
	}
}

// lineOf is the line of an export that begins with a member.
func lineOf(export, member string) string {
	for line := range strings.Lines(export) {
		if strings.HasPrefix(line, `{"`+member+`"`) {
			return line
		}
	}
	return ""
}

func readVerified(t testing.TB, r ran) (v verified) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("%v: %d %s%s", err, r.code, r.out, r.err)
	}
	return v
}

func TestLedgerSearchVerb(t *testing.T) {
	d := newDesk(t, "us", "uk")
	_, err := d.tenants.Add(t.Context(), "system", tenant.Tenant{Name: "t1", Region: "us"})
	must(t, err)
	d.cells["us"].fill(1300)
	_, err = d.cells["us"].ledger.Append(t.Context(), ledger.Entry{Source: ledger.Asserted, Actor: "token:1", Act: "domain.add", Tenant: "t1", Subject: "\x1b[2Jbad", Outcome: "refused: no"})
	must(t, err)
	d.cells["uk"].fill(1)
	d.token("reader", tenant.Token{Role: tenant.Read, Tenant: "t1"})
	for _, c := range []struct {
		args string
		want int
	}{
		{"", 1301}, {"--limit 1301", 1301}, {"--limit 1200", 1200}, {"--limit 7", 7}, {"--tenant t1", 434}, {"--tenant t0 --limit 3", 3}, {"--act domain.add", 1},
		{"--actor token:1", 1}, {"--trace trace7", 1}, {"--connection mailbox --since 1h", 1300}, {"--until 1h", 0}, {"--region uk", 1},
	} {
		d.cells["us"].short = !d.cells["us"].short // an answer may be short for its length
		var all []map[string]any
		got := d.cli(strings.Fields("ledger search --json " + c.args)...)
		got.ok(t, &all)
		if more := strings.Contains(got.err, "There are more"); more != (strings.Contains(c.args, "--limit") && c.args != "--limit 1301") {
			t.Errorf("%q: told that there are more: %v", c.args, more)
		}
		if len(all) != c.want {
			t.Errorf("%q: %d entries, want %d", c.args, len(all), c.want)
		}
		for i, e := range all {
			if i > 0 && e["index"].(float64) <= all[i-1]["index"].(float64) {
				t.Fatalf("%q: not in order at %d", c.args, i)
			}
			for _, field := range []string{"index", "time", "actor", "act", "tenant", "connection", "subject", "purpose", "trace", "outcome", "hash"} {
				if _, there := e[field]; !there {
					t.Fatalf("%q: an entry without %s: %v", c.args, field, e)
				}
			}
		}
	}
	text := d.cli("ledger", "search", "--act", "domain.add").ok(t, nil).out
	for _, want := range []string{"INDEX", "TENANT/CONNECTION", "1300", "token:1", "domain.add", "t1", `"\x1b[2Jbad"`, "refused: no"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	var own []map[string]any
	d.as("reader", "ledger", "search", "--actor", "token:1", "--json").ok(t, &own)
	if len(own) != 1 {
		t.Errorf("the tenant's own: %v", own)
	}
	if got := d.as("reader", "ledger", "show", "0"); got.code != exitFailed || !strings.Contains(got.err, "there is no entry 0") {
		t.Errorf("another's: %+v", got)
	}
	for _, wrong := range []string{"ledger search --limit -1", "ledger show x", "ledger verify --region us --export f", "ledger verify --export a --proof b"} {
		if got := d.cli(strings.Fields(wrong)...); got.code != exitUsage {
			t.Errorf("%s: %+v", wrong, got)
		}
	}
}

func TestLedgerShowVerb(t *testing.T) {
	d := newDesk(t, "us")
	d.cells["us"].fill(3)
	of := int64(1)
	_, err := d.cells["us"].ledger.Append(t.Context(), ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: "sign-dkim", Of: &of, Count: 4, Outcome: "done"})
	must(t, err)
	text := d.cli("ledger", "show", "3").ok(t, nil).out
	for _, want := range []string{"sign-dkim (witnessed)", "done (of 1)", "count       4", "hash        "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	var e struct{ Index, Of, Count int64 }
	d.cli("ledger", "show", "3", "--json").ok(t, &e)
	if e.Index != 3 || e.Of != 1 || e.Count != 4 {
		t.Errorf("%+v", e)
	}
	status := d.cli("ledger", "status").ok(t, nil).out
	if !strings.Contains(status, "us: 4 entries, no checkpoint yet") || !strings.Contains(status, d.cells["us"].key) || !strings.Contains(status, "witness  none") {
		t.Error(status)
	}
}

func TestLedgerVerifyVerb(t *testing.T) {
	d := newDesk(t, "us", "uk")
	d.cells["us"].fill(700)
	d.cells["uk"].fill(3)
	v := readVerified(t, d.cli("ledger", "verify", "--json").ok(t, nil))
	if !v.OK || v.Entries != 700 || v.Checkpoint.Size != 700 || v.Checkpoint.Hash == "" || v.Checkpoint.Signature == "" || v.Problems == nil || v.Anchored ||
		!strings.HasPrefix(v.Verdict, "consistent, not anchored") || len(v.Regions) != 2 || v.Regions[0].Region != "us" || v.Regions[1].Entries != 3 {
		t.Errorf("%+v", v)
	}
	text := d.cli("ledger", "verify").ok(t, nil).out
	if v.Tail == nil || v.Tail.Size != 700 || v.Tail.Hash != v.Checkpoint.Hash || v.Tail.Signature == "" {
		t.Errorf("%+v", v.Tail)
	}
	for _, want := range []string{"us: consistent, not anchored", "700 entries", "the tail says that these are all", "uk: consistent", "--anchor", "--key"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if v := readVerified(t, d.cli("ledger", "verify", "--region", "uk", "--json").ok(t, nil)); v.Entries != 3 || len(v.Regions) != 1 {
		t.Errorf("%+v", v)
	}
	if got := d.cli("ledger", "verify", "--region", "fr"); got.code != exitFailed || !strings.Contains(got.err, "no ledger of region") {
		t.Errorf("%+v", got)
	}
	d.token("reader", tenant.Token{Role: tenant.Read})
	d.as("reader", "ledger", "verify").ok(t, nil)
}

// What is known from elsewhere: pinned keys, and a checkpoint alone, in a
// proof, or in the file of a witness, whose last line a crash cut off.
func TestLedgerVerifyKnown(t *testing.T) {
	d := newDesk(t, "us", "uk")
	us, uk := d.cells["us"], d.cells["uk"]
	us.fill(300)
	uk.fill(5)
	first, err := us.ledger.Checkpoint(t.Context())
	must(t, err)
	other, err := uk.ledger.Checkpoint(t.Context())
	must(t, err)
	d.file("proof.json", []byte(d.cli("ledger", "prove", "7").ok(t, nil).out))
	us.fill(40)
	second, err := us.ledger.Checkpoint(t.Context())
	must(t, err)
	note := d.file("note", first.Note)
	witness := d.file("witness", []byte(string(first.Note)+"\n-- \n"+string(other.Note)+"\n-- \n"+string(second.Note)+"\n-- \nsallyport.us.gate.example\n9"))
	for _, anchor := range []string{note, d.path("proof.json"), witness} {
		v := readVerified(t, d.cli("ledger", "verify", "--region", "us", "--anchor", anchor, "--key", us.key, "--json"))
		if anchor == witness { // it has uk's too
			v = readVerified(t, d.cli("ledger", "verify", "--anchor", anchor, "--key", us.key, "--key", uk.key, "--json"))
			if len(v.Regions) != 2 || !v.Regions[1].OK {
				t.Errorf("%+v", v)
			}
		}
		if !v.OK || v.Verdict != "consistent and anchored" || !v.Anchored {
			t.Errorf("%s: %+v", anchor, v)
		}
	}
	stranger := newCell(t, "us")
	stranger.fill(10)
	strange, err := stranger.ledger.Checkpoint(t.Context())
	must(t, err)
	for name, args := range map[string][]string{
		"another's key":             {"--key", stranger.key},
		"another's anchor":          {"--key", us.key, "--anchor", d.file("strange", strange.Note)},
		"a key of no region here":   {"--region", "uk", "--key", us.key},
		"an anchor of no region":    {"--region", "uk", "--anchor", note},
		"an anchor that is none":    {"--anchor", d.file("diary", []byte("dear diary"))},
		"an anchor that is missing": {"--anchor", d.path("missing")},
	} {
		if got := d.cli(append([]string{"ledger", "verify"}, args...)...); got.code == exitDone {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A keeper that says that its ledger is an old copy is believed: the ledger
// itself does not show it. What is said before the regions is of the one that is
// not well.
func TestLedgerVerifyFrozen(t *testing.T) {
	d := newDesk(t, "us", "uk")
	d.cells["us"].fill(3)
	d.cells["uk"].fill(5)
	d.cells["uk"].frozen = "its ledger had 9 entries: the database is an old copy"
	got := d.cli("ledger", "verify", "--json")
	v := readVerified(t, got)
	if got.code != exitFailed || v.OK || v.Entries != 5 || len(v.Problems) != 1 || v.Problems[0].Index != ofNoEntry || !strings.Contains(v.Problems[0].What, "old copy") ||
		!v.Regions[0].OK || v.Regions[1].OK {
		t.Errorf("%+v", v)
	}
	if got := d.cli("ledger", "verify", "--region", "uk"); got.code != exitFailed || !strings.Contains(got.out, "\n  the keeper is frozen: its ledger had 9 entries") || strings.Contains(got.out, "entry 5") {
		t.Errorf("%+v", got)
	}
	d.cli("ledger", "verify", "--region", "us").ok(t, nil)
	if got := d.cli("ledger", "status").ok(t, nil); !strings.Contains(got.out, "old copy") || strings.Contains(got.out, "for good") {
		t.Errorf("%+v", got)
	}
	d.cells["uk"].forGood = true
	if got := d.cli("ledger", "status").ok(t, nil); !strings.Contains(got.out, "uk: does not open; its database has 5 entries, the last checkpoint of 5 signed") || !strings.Contains(got.out, "no order thaws this") {
		t.Errorf("%+v", got)
	}
	unread := ledgerView{Region: "uk", ForGood: true}
	if got := unread.lines()[0]; got != "uk: does not open, and its database is not readable" {
		t.Error(got)
	}
}

// A region whose keeper is away is not verified, and that is not well.
func TestLedgerVerifyAway(t *testing.T) {
	d := newDesk(t, "us", "uk")
	d.cells["us"].fill(3)
	d.cells["uk"].socket = d.path("nothing")
	got := d.cli("ledger", "verify", "--json")
	v := readVerified(t, got)
	if got.code != exitFailed || v.OK || !v.Regions[0].OK || v.Regions[1].OK || v.Regions[1].Error == nil || v.Entries != 3 {
		t.Errorf("%+v", v)
	}
	if got := d.cli("ledger", "verify", "--region", "uk"); got.code != exitFailed || !strings.Contains(got.err, "keeper") {
		t.Errorf("%+v", got)
	}
	// One that gives another region's ledger for its own.
	d.cells["uk"].socket = d.path("us-again")
	must(t, os.Symlink(d.cells["us"].socket, d.path("us-again")))
	if got := d.cli("ledger", "verify", "--region", "uk"); got.code != exitFailed {
		t.Errorf("%+v", got)
	}
	_, _, err := verifyExport(strings.NewReader(""), "uk", known{}.of("uk"))
	if !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	var export bytes.Buffer
	must(t, d.cells["us"].ledger.Export(t.Context(), &export))
	r, region, err := verifyExport(&export, "uk", known{}.of("uk"))
	if err != nil || r.OK || region != "us" || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, `not of region "uk"`) {
		t.Errorf("%+v %v", r, err)
	}
}

func TestLedgerExportVerb(t *testing.T) {
	d := newDesk(t, "us", "uk")
	d.cells["us"].fill(600)
	d.cells["uk"].fill(2)
	var done struct {
		File  string
		Bytes int64
	}
	path := d.file("ledger.jsonl", []byte("an older one"))
	d.cli("ledger", "export", path, "--json").ok(t, &done)
	info, err := os.Stat(path)
	must(t, err)
	if done.File != path || done.Bytes != info.Size() || info.Mode().Perm() != 0o600 {
		t.Errorf("%+v %v", done, info)
	}
	v := readVerified(t, offline(t, "", "ledger", "verify", "--export", path, "--key", d.cells["us"].key, "--json").ok(t, nil))
	if !v.OK || v.Entries != 600 || v.Regions[0].Region != "us" {
		t.Errorf("%+v", v)
	}
	stdout := d.cli("ledger", "export", "--region", "uk", "-").ok(t, nil).out
	if v := readVerified(t, offline(t, stdout, "ledger", "verify", "--export", "-", "--json").ok(t, nil)); v.Entries != 2 || v.Regions[0].Region != "uk" {
		t.Errorf("%+v", v)
	}
	// One that fails leaves what was there, and nothing beside it.
	before, err := os.ReadFile(path)
	must(t, err)
	d.cells["us"].socket = d.path("nothing")
	if got := d.cli("ledger", "export", path); got.code != exitFailed {
		t.Errorf("%+v", got)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("the older export is gone", err)
	}
	if left, _ := filepath.Glob(d.path(".ledger*")); len(left) > 0 {
		t.Error("left behind:", left)
	}
	if got := d.cli("ledger", "export", filepath.Join(d.path("no"), "folder")); got.code != exitFailed || !strings.Contains(got.err, "folder that you can write to") {
		t.Errorf("%+v", got)
	}
}

// An export that somebody edited is refused, and what was done is named.
func TestLedgerTampered(t *testing.T) {
	d := newDesk(t, "us")
	us := d.cells["us"]
	us.fill(600)
	old := d.file("old", []byte(d.cli("ledger", "export", "-").ok(t, nil).out))
	us.fill(50)
	newest, err := us.ledger.Checkpoint(t.Context())
	must(t, err)
	whole := []byte(d.cli("ledger", "export", "-").ok(t, nil).out)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	at := func(index int) int { // the line of an entry
		for i, l := range lines {
			if bytes.HasPrefix(l, fmt.Appendf(nil, `{"index":%d,`, index)) {
				return i
			}
		}
		t.Fatal(index)
		return 0
	}
	tail := len(lines) - 3 // the end follows, and nothing
	oldText, err := os.ReadFile(old)
	must(t, err)
	stranger := newCell(t, "us")
	stranger.fill(650)
	edit := func(f func(l [][]byte) [][]byte) []byte {
		l := make([][]byte, len(lines))
		for i := range lines {
			l[i] = bytes.Clone(lines[i])
		}
		return bytes.Join(f(l), nil)
	}
	for name, c := range map[string]struct {
		text  []byte
		index int64
		what  string
	}{
		"whole":           {whole, -1, ""},
		"one byte":        {edit(func(l [][]byte) [][]byte { l[at(7)][len(l[at(7)])-4] ^= 1; return l }), 7, "the entry was changed"},
		"a row deleted":   {edit(func(l [][]byte) [][]byte { return append(l[:at(300)], l[at(300)+1:]...) }), 300, "its row was deleted"},
		"the tail cut":    {edit(func(l [][]byte) [][]byte { return l[:at(640)] }), 640, "breaks off"},
		"two rows":        {edit(func(l [][]byte) [][]byte { l[at(20)], l[at(21)] = l[at(21)], l[at(20)]; return l }), 20, "rows were swapped"},
		"a row twice":     {edit(func(l [][]byte) [][]byte { l[at(20)] = append(l[at(20)], l[at(20)]...); return l }), 0, "an entry too many"},
		"the last line":   {bytes.Join(lines[:len(lines)-2], nil), 650, "breaks off"},
		"the tail":        {edit(func(l [][]byte) [][]byte { return append(l[:tail], l[tail+1:]...) }), 650, "the tail is missing"},
		"two tails":       {edit(func(l [][]byte) [][]byte { l[tail] = append(l[tail], l[tail]...); return l }), 650, "more than one tail"},
		"the tail edited": {edit(func(l [][]byte) [][]byte { l[tail] = bytes.Replace(l[tail], []byte("650"), []byte("640"), 1); return l }), 650, "the tail does not count"},
		"another's tail":  {edit(func(l [][]byte) [][]byte { l[tail] = []byte(lineOf(stranger.exported(), "tail")); return l }), 650, "the tail does not count"},
		"an older tail":   {edit(func(l [][]byte) [][]byte { l[tail] = []byte(lineOf(string(oldText), "tail")); return l }), 600, "were put behind it"},
		"entries, cut so that all but the tail fits": {[]byte(strings.Replace(string(oldText), lineOf(string(oldText), "tail"), string(lines[tail]), 1)), 600, "had 650 entries by its tail"},
		"the old format's head and no tail": {edit(func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte("ledger-2"), []byte("ledger-1"), 1)
			return append(l[:tail], l[tail+1:]...)
		}), 650, "a checkpoint says that there is one"},
		"more at the end": {append(bytes.Clone(whole), "{}\n"...), 650, "behind the end"},
	} {
		path := d.file("tampered", c.text)
		got := offline(t, "", "ledger", "verify", "--export", path, "--key", us.key, "--json")
		v := readVerified(t, got)
		if c.index < 0 {
			if got.code != exitDone || !v.OK {
				t.Errorf("%s: %+v", name, v)
			}
			continue
		}
		if got.code != exitFailed || v.OK || len(v.Problems) == 0 || v.Problems[0].Index != c.index || !strings.Contains(v.Problems[0].What, c.what) {
			t.Errorf("%s: exit %d %+v", name, got.code, v)
		}
		if text := offline(t, "", "ledger", "verify", "--export", path); text.code != exitFailed || !strings.Contains(text.out, c.what) || !strings.Contains(text.out, "Next: keep this file") {
			t.Errorf("%s: %+v", name, text)
		}
	}
	// An old copy is whole; only what is known from elsewhere tells.
	if got := offline(t, "", "ledger", "verify", "--export", old, "--key", us.key); got.code != exitDone || !strings.Contains(got.out, "not anchored") {
		t.Errorf("%+v", got)
	}
	got := offline(t, "", "ledger", "verify", "--export", old, "--key", us.key, "--anchor", d.file("newest", newest.Note), "--json")
	if v := readVerified(t, got); got.code != exitFailed || v.OK || !strings.Contains(v.Problems[0].What, "old copy") {
		t.Errorf("%+v", v)
	}
	for name, text := range map[string]string{"nothing": "", "a diary": "dear diary\n", "another format": `{"format":"x","size":1}` + "\n"} {
		if got := offline(t, text, "ledger", "verify", "--export", "-", "--json"); got.code != exitFailed || !strings.Contains(got.err, `"detail"`) || got.out != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// An export from before there were tails is verified, and what is said of it is
// less: for people and for programs.
func TestLedgerVerifyUntailed(t *testing.T) {
	key, export := untailed(t)
	path := filepath.Join(t.TempDir(), "old.jsonl")
	must(t, os.WriteFile(path, []byte(export), 0o600))
	v := readVerified(t, offline(t, "", "ledger", "verify", "--export", path, "--key", key, "--json").ok(t, nil))
	if !v.OK || v.Tail != nil || v.Entries != 1 || !strings.Contains(v.Verdict, "no tail says that these are all") {
		t.Errorf("%+v", v)
	}
	text := offline(t, "", "ledger", "verify", "--export", path, "--key", key).ok(t, nil).out
	if !strings.Contains(text, "no tail says that these are all") || !strings.Contains(text, "may have been cut off. Make another") || strings.Contains(text, "Next:") {
		t.Error(text)
	}
}

// untailed is an export of one entry as it was before there were tails, and its
// key.
func untailed(t testing.TB) (key, export string) {
	t.Helper()
	const origin = "sallyport.us.gate.example"
	secret, key, err := note.GenerateKey(nil, origin)
	must(t, err)
	signer, err := note.NewSigner(secret)
	must(t, err)
	leaf := `{"index":0,"time":"2026-03-01T12:00:00Z","source":"witnessed","actor":"keeper","act":"x"}`
	h := sha256.Sum256([]byte("\x00" + leaf)) // of one leaf it is the root
	signed, err := note.Sign(&note.Note{Text: origin + "\n1\n" + base64.StdEncoding.EncodeToString(h[:]) + "\ntime 2026-03-01T12:00:00Z\n"}, signer)
	must(t, err)
	var b strings.Builder
	for _, line := range []any{
		map[string]any{"format": "sallyport-ledger-1", "region": "us", "origin": origin, "keys": []string{key}, "size": 1}, json.RawMessage(leaf),
		map[string]any{"hashes": h[:], "from": 0}, map[string]any{"checkpoint": string(signed)}, map[string]any{"end": true, "entries": 1},
	} {
		b.Write(marshal(t, line))
		b.WriteByte('\n')
	}
	return key, b.String()
}

// A database that somebody edits while all runs is named by verify too.
func TestLedgerTamperedDatabase(t *testing.T) {
	d := newDesk(t, "us")
	us := d.cells["us"]
	us.fill(600)
	_, err := us.ledger.Checkpoint(t.Context())
	must(t, err)
	change := func(statements ...string) {
		must(t, us.db.Keeper().Change(t.Context(), func(tx store.KeeperTx) error {
			for _, s := range statements {
				if _, err := tx.Exec(store.KeeperSQL(s)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	change("UPDATE ledger_entry SET payload = replace(payload, 'subject 7', 'subject 8') WHERE idx = 7", "DELETE FROM ledger_entry WHERE idx = 400")
	got := d.cli("ledger", "verify", "--json")
	v := readVerified(t, got)
	if got.code != exitFailed || v.OK || len(v.Problems) != 2 || v.Problems[0].Index != 7 || v.Problems[1].Index != 400 {
		t.Errorf("%+v", v)
	}
	if text := d.cli("ledger", "verify"); !strings.Contains(text.out, "Next: change nothing") {
		t.Error(text.out)
	}
	for _, verb := range []string{"show", "prove"} {
		if got := d.cli("ledger", verb, "7"); got.code != exitFailed {
			t.Errorf("%s: %+v", verb, got)
		}
	}
}

// A proof is checked with nothing but itself, and one that was edited is
// refused, wherever it was.
func TestLedgerProofVerb(t *testing.T) {
	d := newDesk(t, "us")
	us := d.cells["us"]
	us.fill(300)
	proof := d.cli("ledger", "prove", "7").ok(t, nil).out
	path := d.file("proof.json", []byte(proof))
	var v struct {
		OK             bool
		Index, Entries int64
		Checkpoint     struct{ Size int64 }
		Problems       []any
	}
	offline(t, "", "ledger", "verify", "--proof", path, "--json").ok(t, &v)
	if !v.OK || v.Index != 7 || v.Entries != 300 || v.Checkpoint.Size != 300 || v.Problems == nil {
		t.Errorf("%+v", v)
	}
	text := offline(t, "", "ledger", "verify", "--proof", path, "--key", us.key).ok(t, nil).out
	if !strings.Contains(text, "entry 7: the entry stands in the log of 300 entries") || !strings.Contains(text, "subject 7") || strings.Contains(text, "--key") {
		t.Error(text)
	}
	var p map[string]any
	must(t, json.Unmarshal([]byte(proof), &p))
	for field, value := range map[string]any{
		"index": 8, "entry": strings.Replace(p["entry"].(string), "subject 7", "subject 8", 1), "hashes": p["hashes"].([]any)[1:],
		"checkpoint": strings.Replace(p["checkpoint"].(string), "\n300\n", "\n301\n", 1), "format": "x", "keys": []string{newCell(t, "us").key},
	} {
		edited := map[string]any{}
		for k, v := range p {
			edited[k] = v
		}
		edited[field] = value
		if got := offline(t, string(marshal(t, edited)), "ledger", "verify", "--proof", "-", "--json"); got.code != exitFailed {
			t.Errorf("%s: %+v", field, got)
		}
	}
	stranger := newCell(t, "us")
	if got := offline(t, "", "ledger", "verify", "--proof", path, "--key", stranger.key); got.code != exitFailed || !strings.Contains(got.out, "does not count") {
		t.Errorf("%+v", got)
	}
}
