package seal

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// bao is a Transit engine as its documentation describes it: a token in
// X-Vault-Token, base64 both ways, ciphertexts that begin with vault:v1:.
type bao struct {
	kek     *local
	answers []int  // status codes to give before the true ones
	said    string // the error's text then
	asked   int
	huge    bool
	deaf    bool // associated_data is not heeded, as before Vault 1.9
}

func (b *bao) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.asked++
	if len(b.answers) > 0 {
		code := b.answers[0]
		b.answers = b.answers[1:]
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string][]string{"errors": {b.said}})
		return
	}
	if b.huge {
		w.Write(make([]byte, maxTransit+10))
		return
	}
	if r.Header.Get("X-Vault-Token") != "s.token" {
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`{"errors":["permission denied"]}`))
		return
	}
	var in map[string]string
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	ad, _ := base64.StdEncoding.DecodeString(in["associated_data"])
	if b.deaf {
		ad = nil
	}
	out := map[string]string{}
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/transit/encrypt/us":
		plain, _ := base64.StdEncoding.DecodeString(in["plaintext"])
		blob, _ := b.kek.Wrap(r.Context(), NewSecret(plain), ad)
		out["ciphertext"] = "vault:v1:" + base64.StdEncoding.EncodeToString(blob)
	case "POST /v1/transit/decrypt/us":
		blob, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(in["ciphertext"], "vault:v1:"))
		plain, err := b.kek.Unwrap(r.Context(), blob, ad)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			w.Write([]byte(`{"errors":["cipher: message authentication failed"]}`))
			return
		}
		out["plaintext"] = base64.StdEncoding.EncodeToString(plain.Bytes())
	default:
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"errors":["no handler for route"]}`))
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"data": out})
}

func newBao(t *testing.T, key string) (*bao, KEK, string) {
	t.Helper()
	b := &bao{kek: memory(t, "bao").(fileKEK).local}
	server := httptest.NewTLSServer(b)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, data := range map[string][]byte{ca: cert, token: []byte("s.token\n")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kek, err := NewTransit(TransitConfig{Address: server.URL, Key: key, TokenFile: token, CAFile: ca, Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return b, kek, token
}

func TestTransit(t *testing.T) {
	b, kek, token := newBao(t, "us")
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	b.answers = []int{503, 429}
	if _, err := OpenDataKey(t.Context(), kek, "us", "acme", w); err != nil || b.asked != 4 {
		t.Errorf("over a sealed moment: %v, asked %d times", err, b.asked)
	}
	swapped := w
	swapped.Tenant = "other"
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "other", swapped)); !fault.Is(err, fault.Denied) {
		t.Errorf("another tenant's: %v", err)
	}
	b.answers = []int{503, 503, 503, 503}
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("sealed: %v", err)
	}
	b.answers, b.huge = nil, true
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); !fault.Is(err, fault.Later) {
		t.Errorf("too long an answer: %v", err)
	}
	b.huge = false
	if err := os.WriteFile(token, []byte("s.other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), "token") {
		t.Errorf("another token: %v", err)
	}
	if d := kek.Describe(); d.OnHost || d.Driver != "transit" || d.ID != "transit-transit/us" {
		t.Errorf("%+v", d)
	}
}

// What the engine of Vault 1.1.2 and later says of its own, in its words: only
// a blob that was edited is an edited row, the rest is for an operator to mend.
func TestTransitInItsWords(t *testing.T) {
	b, kek, _ := newBao(t, "us")
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	for said, kind := range map[string]fault.Kind{
		"invalid ciphertext: unable to decrypt":                             fault.Denied,
		"invalid ciphertext: no prefix":                                     fault.Denied,
		"encryption key not found":                                          fault.Later,
		"ciphertext or signature version is disallowed by policy (too old)": fault.Later,
	} {
		b.said, b.answers = said, []int{400, 400, 400}
		if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); !fault.Is(err, kind) || !strings.Contains(err.Error(), said) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", said, err)
		}
	}
	b.said, b.answers = "unsupported key type", []int{400, 400, 400}
	if _, _, err := NewDataKey(t.Context(), kek, "us", "acme"); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), "AEAD") {
		t.Errorf("a key of another type: %v", err)
	}
}

// A server that does not heed associated_data opens no row of another place.
func TestTransitThatIgnoresPlaces(t *testing.T) {
	b, kek, _ := newBao(t, "us")
	b.deaf = true
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); err != nil {
		t.Errorf("its own: %v", err)
	}
	w.Tenant = "other"
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "other", w)); !fault.Is(err, fault.Denied) {
		t.Errorf("another tenant's: %v", err)
	}
	// What the service opens may be anything.
	short, err := b.kek.Wrap(t.Context(), NewSecret([]byte("short")), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Tenant, w.Blob = "acme", []byte("vault:v1:"+base64.StdEncoding.EncodeToString(short))
	if err := errOf(OpenDataKey(t.Context(), kek, "us", "acme", w)); !fault.Is(err, fault.Denied) {
		t.Errorf("no data key: %v", err)
	}
}

func TestTransitRefuses(t *testing.T) {
	_, none, _ := newBao(t, "absent")
	if _, _, err := NewDataKey(t.Context(), none, "us", "acme"); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), "mount") {
		t.Errorf("a key that is not there: %v", err)
	}
	for name, c := range map[string]TransitConfig{
		"http":     {Address: "http://127.0.0.1:8200", Key: "us", TokenFile: "t"},
		"no key":   {Address: "https://127.0.0.1:8200", TokenFile: "t"},
		"no token": {Address: "https://127.0.0.1:8200", Key: "us"},
		"no CA":    {Address: "https://127.0.0.1:8200", Key: "us", TokenFile: "t", CAFile: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := NewTransit(c); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzTransitAnswer(f *testing.F) {
	f.Add(200, []byte(`{"data":{"plaintext":"aGk=","ciphertext":"vault:v1:x"}}`))
	f.Add(503, []byte(`{"errors":["sealed"]}`))
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		if _, err := transitAnswer("fuzz", decrypt, status, b); err == nil && (status != 200 || len(b) > maxTransit) {
			t.Errorf("took a %d", status)
		}
	})
}
