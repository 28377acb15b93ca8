package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// onlooker is a witness as c2sp.org/tlog-witness describes it: a real server.
type onlooker struct {
	t    testing.TB
	name string
	key  ed25519.PrivateKey
	logs note.Verifiers

	mu     sync.Mutex
	away   bool
	answer int // a status to answer whatever is asked
	size   int64
	hash   tlog.Hash
	asked  atomic.Int64

	note   []byte // the newest checkpoint, shown to whoever asks
	silent bool   // it shows none
}

func newOnlooker(t testing.TB, logKey string) (*onlooker, *HTTPWitness) {
	t.Helper()
	v, err := note.NewVerifier(logKey)
	if err != nil {
		t.Fatal(err)
	}
	o := &onlooker{t: t, name: "witness.example.test", key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), logs: note.VerifierList(v)}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	w, err := NewHTTPWitness(s.URL+"/", o.vkey(), s.Client())
	if err != nil {
		t.Fatal(err)
	}
	return o, w
}

func (o *onlooker) public() []byte {
	return append([]byte{cosignatureType}, o.key.Public().(ed25519.PublicKey)...)
}

func (o *onlooker) id() []byte {
	sum := sha256.Sum256(append([]byte(o.name+"\n"), o.public()...))
	return sum[:4]
}

func (o *onlooker) vkey() string {
	return o.name + "+" + hex.EncodeToString(o.id()) + "+" + base64.StdEncoding.EncodeToString(o.public())
}

func (o *onlooker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.Method == http.MethodGet {
		o.show(w, r)
		return
	}
	o.asked.Add(1)
	if o.answer != 0 || o.away {
		w.WriteHeader(max(o.answer, 500))
		return
	}
	raw, _ := io.ReadAll(r.Body)
	head, checkpoint, ok := strings.Cut(string(raw), "\n\n")
	lines := strings.Split(head, "\n")
	var old int64
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil || !ok || r.URL.Path != "/add-checkpoint" || r.Method != http.MethodPost {
		http.Error(w, "not a submission", http.StatusBadRequest)
		return
	}
	n, err := note.Open([]byte(checkpoint), o.logs)
	if err != nil {
		http.Error(w, "not a log I know", http.StatusForbidden)
		return
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		o.t.Error(err)
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != 32 {
			o.t.Errorf("a proof line %q", line)
			continue
		}
		proof = append(proof, tlog.Hash(h))
	}
	switch {
	case old != o.size || old == c.Size && o.hash != c.Hash:
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, o.size)
		return
	case old > 0 && old != c.Size && tlog.CheckTree(proof, c.Size, c.Hash, old, o.hash) != nil:
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	o.size, o.hash, o.note = c.Size, c.Hash, []byte(checkpoint)
	o.cosign(w, n.Text)
}

// show answers with the newest checkpoint.
func (o *onlooker) show(w http.ResponseWriter, r *http.Request) {
	const origin = "sallyport.us.example.test"
	if o.silent || r.URL.Path != fmt.Sprintf("/%x/checkpoint", sha256.Sum256([]byte(origin))) {
		http.NotFound(w, r)
		return
	}
	w.Write(o.note)
}

func (o *onlooker) cosign(w io.Writer, text string) {
	sig := binary.BigEndian.AppendUint64(nil, uint64(start().Unix()))
	sig = append(sig, ed25519.Sign(o.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", start().Unix(), text))...)
	fmt.Fprintf(w, "— %s %s\n", o.name, base64.StdEncoding.EncodeToString(append(o.id(), sig...)))
}

func (d *desk) submit() (WitnessStatus, error) {
	err := d.l.submit(d.Context(), d.l.watch[0])
	return d.l.Status().Witnesses[0], err
}

// A witness cosigns what continues what it has seen, from where it is; what it
// signs stands below the checkpoint from then on, and an old copy is told.
func TestHTTPWitness(t *testing.T) {
	each(t, func(d *desk) {
		o, w := newOnlooker(d, d.key)
		with := func(c *Config) { c.Witnesses = []Witness{w} }
		d.open(with)
		if s, err := d.submit(); err != nil || s.Size != 0 || o.asked.Load() != 0 {
			d.Errorf("of an empty log: %+v %v", s, err)
		}
		for _, n := range []int{5, 300, 1} {
			d.fill(n)
			c := d.sign()
			if s, err := d.submit(); err != nil || s.Size != c.Size || s.Error != "" || s.RolledBack || s.Time == nil {
				d.Errorf("%+v %v", s, err)
			}
		}
		export := string(d.export())
		if n := strings.Count(export, "— witness.example.test "); n != 3 {
			d.Errorf("%d cosignatures are exported", n)
		}
		if r := d.verify([]byte(export)); !r.OK {
			d.Errorf("%+v", r)
		}
		p, err := d.l.Prove(d.Context(), 2)
		if err != nil || !strings.Contains(p.Checkpoint, "— witness.example.test ") {
			d.Error(p.Checkpoint, err)
		}
		// Opened anew it knows where the witness is.
		d.open(with)
		asked := o.asked.Load()
		d.fill(1)
		d.sign()
		if s, err := d.submit(); err != nil || s.Size != 307 || o.asked.Load() != asked+1 {
			d.Errorf("%+v %v, asked %d times", s, err, o.asked.Load()-asked)
		}
		d.fill(1)
		last := d.sign()
		if _, err := d.submit(); err != nil {
			d.Fatal(err)
		}
		d.fill(1)
		d.sign()
		stranger, _ := makeKey(d, d.l.Origin())
		elsewhere, _ := makeKey(d, "sallyport.us.elsewhere.test")
		other := tlog.Hash{1}
		for _, c := range []struct {
			name   string
			size   int64
			hash   tlog.Hash
			note   []byte // nil: it shows none
			proven bool
			text   string
		}{
			{"more, and shows it", 5000, other, d.signed(d.signer, d.l.Origin(), 5000, other), true, "rolled back"},
			{"more, by its word", 5000, other, nil, false, "answers 404"},
			{"more, and shows what is here", 5000, other, last.Note, false, "those are here"},
			{"more, signed by a stranger", 5000, other, d.signed(stranger, d.l.Origin(), 5000, other), false, "none that this ledger has signed"},
			{"more, of another log", 5000, other, d.signed(elsewhere, "sallyport.us.elsewhere.test", 5000, other), false, "none that this ledger has signed"},
			{"more, of our key under another name", 5000, other, d.signed(d.signer, "another", 5000, other), false, "none that this ledger has signed"},
			{"more, by its own cosignature", 5000, other, o.cosigned(d.signed(stranger, d.l.Origin(), 5000, other)), false, "none that this ledger has signed"},
			{"more, and shows no note", 5000, other, []byte("5000\n"), false, "none that this ledger has signed"},
			{"more, without end", 5000, other, bytes.Repeat([]byte("a"), maxAnswer+2), false, "does not end"},
			{"another log, and shows it", 300, other, d.signed(d.signer, d.l.Origin(), 300, other), true, "another ledger"},
			{"another log, by its word", 300, other, nil, false, "another ledger"},
			{"another log, and shows ours", 300, other, last.Note, false, "those are here"},
			{"another of this size, and shows it", last.Size + 1, other, d.signed(d.signer, d.l.Origin(), last.Size+1, other), true, "another ledger"},
			{"another of this size, by its word", last.Size + 1, other, nil, false, "another ledger"},
		} {
			o.mu.Lock()
			o.size, o.hash, o.note, o.silent = c.size, c.hash, c.note, c.note == nil
			o.mu.Unlock()
			s, err := d.submit()
			if err == nil || s.RolledBack != c.proven || s.Unproven == c.proven || fault.Is(err, fault.Conflict) != c.proven ||
				!strings.Contains(s.Error, c.text) || fault.HintOf(err) == "" {
				d.Errorf("%s: %+v %v", c.name, s, err)
			}
		}
		// It agrees again, and nothing is claimed any more.
		o.mu.Lock()
		o.size, o.hash, o.note, o.silent = last.Size, last.Hash, last.Note, false
		o.mu.Unlock()
		if s, err := d.submit(); err != nil || s.RolledBack || s.Unproven || s.Error != "" {
			d.Errorf("%+v %v", s, err)
		}
	})
}

// signed is a checkpoint of some log.
func (d *desk) signed(by note.Signer, origin string, size int64, hash tlog.Hash) []byte {
	d.Helper()
	c := Checkpoint{Origin: origin, Size: size, Hash: hash, Time: start()}
	raw, err := note.Sign(&note.Note{Text: c.text()}, by)
	if err != nil {
		d.Fatal(err)
	}
	return raw
}

// cosigned is a checkpoint with the witness's own line below it.
func (o *onlooker) cosigned(raw []byte) []byte {
	text, _, _ := strings.Cut(string(raw), "\n\n")
	var b bytes.Buffer
	b.Write(raw)
	o.cosign(&b, text+"\n")
	return b.Bytes()
}

// Whatever a witness answers that is no cosignature has its reason in the
// status, and is tried again.
func TestWitnessAnswers(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	o, w := newOnlooker(t, d.key)
	d.open(func(c *Config) { c.Witnesses = []Witness{w} })
	d.fill(3)
	c := d.sign()
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 403: fault.Denied, 404: fault.Denied, 422: fault.Conflict, 500: fault.Later, 429: fault.Later, 301: fault.Later} {
		r := &http.Response{StatusCode: status}
		if _, err := w.answer(r, "", c); !fault.Is(err, kind) {
			t.Error(status, err)
		}
	}
	if _, err := w.answer(&http.Response{StatusCode: 409}, "many", c); !fault.Is(err, fault.Later) {
		t.Error(err)
	}
	var at *Elsewhere
	if _, err := w.answer(&http.Response{StatusCode: 409}, "12\n", c); !errors.As(err, &at) || at.Size != 12 {
		t.Error(err)
	}
	for _, lines := range []string{"", "junk", "— witness.example.test AAAA\n"} {
		if _, err := w.answer(&http.Response{StatusCode: 200}, lines, c); !fault.Is(err, fault.Invalid) {
			t.Error(lines, err)
		}
	}
	// A cosignature of another checkpoint is none of this.
	var other bytes.Buffer
	o.cosign(&other, strings.Replace(c.text(), "\n3\n", "\n4\n", 1))
	if _, err := w.answer(&http.Response{StatusCode: 200}, other.String(), c); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	o.away = true
	if s, err := d.submit(); err == nil || s.Error == "" || s.RolledBack {
		t.Errorf("%+v %v", s, err)
	}
	o.away = false
	if s, err := d.submit(); err != nil || s.Error != "" || s.Size != 3 {
		t.Errorf("%+v %v", s, err)
	}
	for _, key := range []string{"", "a+b+c", d.key, strings.Replace(o.vkey(), "witness", "another", 1)} {
		if _, err := NewHTTPWitness("http://127.0.0.1", key, nil); !fault.Is(err, fault.Invalid) {
			t.Error(key, err)
		}
	}
}

// slow never answers until its caller gives up.
type slow struct{}

func (slow) Name() string { return "slow" }
func (slow) Add(ctx context.Context, _ Submission) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// A witness that is away delays neither entries nor checkpoints nor the other
// witness; Run ends with its context all the same.
func TestWitnessAway(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	o, w := newOnlooker(t, d.key)
	d.open(func(c *Config) { c.Witnesses = []Witness{slow{}, w} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.l.Run(ctx) }()
	began := time.Now()
	d.fill(2000)
	for d.l.Status().Witnesses[1].Size == 0 {
		if time.Since(began) > 5*time.Second {
			t.Fatal("the other witness was not shown anything")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Error("it took", took)
	}
	if o.asked.Load() == 0 || d.l.Status().Checkpoint.Size != 2000 {
		t.Errorf("%+v", d.l.Status())
	}
}

// The file has every checkpoint that was shown; each of them is an anchor.
func TestFileWitness(t *testing.T) {
	each(t, func(d *desk) {
		path := filepath.Join(d.TempDir(), "witness")
		w, err := NewFileWitness(path, d.l.Origin(), []string{d.key})
		if err != nil {
			d.Fatal(err)
		}
		with := func(c *Config) { c.Witnesses = []Witness{w} }
		for _, n := range []int{5, 300} {
			d.open(with) // each time it has to ask where the file is
			d.fill(n)
			c := d.sign()
			for range 2 {
				if s, err := d.submit(); err != nil || s.Size != c.Size {
					d.Errorf("%+v %v", s, err)
				}
			}
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			d.Fatal(err)
		}
		records := bytes.Split(raw, []byte(recordEnd))
		if len(records) != 3 || len(records[2]) != 0 {
			d.Fatalf("%q", raw)
		}
		if r := d.verify(d.export(), records[0]...); !r.OK || !r.Anchored {
			d.Errorf("%+v", r)
		}
		tail := d.storedTail()
		// A crash left a part of a record: what follows counts all the same.
		appendTo(d, path, "sallyport.us.example.test\n9999\nAAAA")
		d.fill(1)
		d.sign()
		for range 2 {
			if s, err := d.submit(); err != nil || s.Size != 306 {
				d.Errorf("%+v %v", s, err)
			}
			d.open(with)
		}
		// The log is an old copy.
		d.sql("DELETE FROM ledger_entry WHERE idx >= 305", "DELETE FROM ledger_checkpoint WHERE size > 305")
		d.run("UPDATE ledger_tail SET note = $1", tail)
		d.open(with)
		d.sign()
		if s, err := d.submit(); !fault.Is(err, fault.Conflict) || !s.RolledBack {
			d.Errorf("%+v %v", s, err)
		}
		// And grows another way.
		d.now = func() time.Time { return start().Add(time.Hour) }
		d.fill(50)
		d.sign()
		if s, err := d.submit(); !fault.Is(err, fault.Conflict) || !s.RolledBack {
			d.Errorf("%+v %v", s, err)
		}
	})
}

// A witness is shown what was signed last before the process ends: what was done
// in its last minute can be missed then.
func TestWitnessSeesTheEnd(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	path := filepath.Join(d.TempDir(), "witness")
	w, err := NewFileWitness(path, d.l.Origin(), []string{d.key})
	if err != nil {
		d.Fatal(err)
	}
	d.open(func(c *Config) { c.Witnesses = []Witness{w} })
	d.fill(7)
	ctx, stop := context.WithCancel(d.Context())
	ended := make(chan error)
	go func() { ended <- d.l.Run(ctx) }()
	stop()
	if err := <-ended; err != nil {
		d.Fatal(err)
	}
	if s := d.l.Status(); s.Checkpoint.Size != 7 || s.Witnesses[0].Size != 7 {
		d.Errorf("%+v", s)
	}
	if raw, err := os.ReadFile(path); err != nil || !strings.Contains(string(raw), d.l.Origin()+"\n7\n") {
		d.Errorf("%q %v", raw, err)
	}
}

func appendTo(d *desk, path, text string) {
	d.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		d.Fatal(err)
	}
}

// A crash in the very first record leaves a file that can be gone on with, and
// a file of something else is refused.
func TestFileWitnessBegins(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{{"", true}, {"sallyport.us.exa", true}, {"sallyport.us.example.test\n3\n", true}, {"my diary\n", false}, {"my diary" + recordEnd, false}} {
		d := newDesk(t, store.Config{Dir: t.TempDir()})
		path := filepath.Join(t.TempDir(), "witness")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := NewFileWitness(path, d.l.Origin(), []string{d.key})
		if err != nil {
			t.Fatal(err)
		}
		d.open(func(c *Config) { c.Witnesses = []Witness{w} })
		d.fill(3)
		d.sign()
		if _, err := d.submit(); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.text, err)
		}
		if _, err := d.submit(); (err == nil) != c.ok {
			t.Errorf("%q, again: %v", c.text, err)
		}
	}
}
