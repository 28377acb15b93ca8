package keeper

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// farWitness is an HTTP witness that takes whatever continues by the size that
// is stated, and may be made to lie.
type farWitness struct {
	key  ed25519.PrivateKey
	lie  string // the size that it claims to have, "" for the truth
	mute bool   // it shows no checkpoint

	mu   sync.Mutex
	size string
	note []byte
}

const farName = "witness.example.test"

func (w *farWitness) public() []byte {
	return append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
}

func (w *farWitness) id() []byte {
	sum := sha256.Sum256(append([]byte(farName+"\n"), w.public()...))
	return sum[:4]
}

func (w *farWitness) set(lie string, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lie, w.mute = lie, mute
}

func (w *farWitness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Method == http.MethodGet {
		if w.mute {
			http.NotFound(out, r)
			return
		}
		out.Write(w.note)
		return
	}
	raw, _ := io.ReadAll(r.Body)
	head, checkpoint, _ := strings.Cut(string(raw), "\n\n")
	old, _, _ := strings.Cut(head, "\n")
	text, _, _ := strings.Cut(checkpoint, "\n\n")
	have := w.size
	if w.lie != "" {
		have = w.lie
	}
	if old != "old "+have {
		out.WriteHeader(http.StatusConflict)
		fmt.Fprintln(out, have)
		return
	}
	w.size, w.note = strings.Split(text, "\n")[1], []byte(checkpoint)
	sig := binary.BigEndian.AppendUint64(nil, 1)
	sig = append(sig, ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime 1\n%s\n", text))...)
	fmt.Fprintf(out, "— %s %s\n", farName, base64.StdEncoding.EncodeToString(append(w.id(), sig...)))
}

// A witness that only says that the log was longer is an alarm and stops
// nothing; one that shows it, by a checkpoint of the log's own, freezes it.
func TestWitnessOverTheNetwork(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &farWitness{key: key, size: "0"}
	server := httptest.NewServer(w)
	defer server.Close()
	vkey := fmt.Sprintf("%s+%x+%s", farName, w.id(), base64.StdEncoding.EncodeToString(w.public()))
	r := newRig(t, func(c *Config) {
		far, err := ledger.NewHTTPWitness(server.URL, vkey, server.Client())
		if err != nil {
			t.Fatal(err)
		}
		c.Witnesses = []ledger.Witness{far}
	})
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")
	sign := func() ledger.Checkpoint {
		t.Helper()
		c, err := r.ledger.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	agreed := func(c ledger.Checkpoint) {
		t.Helper()
		within(t, "the witness agrees", func() bool { return r.ledger.Status().Witnesses[0].Size >= c.Size })
	}
	agreed(sign())

	for _, mute := range []bool{true, false} { // it shows none, or one that is here
		w.set("99999", mute)
		r.end()
		r = r.again(t)
		if err := r.enter(t.Context(), ledger.Entry{Act: "x"}); err != nil {
			t.Fatal(err)
		}
		sign()
		within(t, "the alarm", func() bool { return r.hasAlarm(alarmWitness) })
		within(t, "it acts", func() bool { _, err := r.open("acme/mailbox"); return err == nil })
		if why := r.frozen.reason(); why != "" {
			t.Errorf("frozen by the word of a witness: %s", why)
		}
		if found := r.alarms.recent(); !strings.Contains(found[0].Text, "99999") || !strings.Contains(found[0].Text, "its word alone") {
			t.Errorf("%+v", found)
		}
	}
	w.set("", false)
	agreed(sign())
	r.end()
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, r.dir, old)
	r = r.again(t)
	if _, err := r.open("acme/mailbox"); err != nil && !fault.Is(err, fault.Later) { // later: the witness is asked first
		t.Fatal(err)
	}
	agreed(sign())
	r.end()

	copyTree(t, old, r.dir)
	r = r.again(t)
	within(t, "it is frozen", func() bool { return r.frozen.reason() != "" })
	r.atRest(t, "rolled back")
	r.end()
}
