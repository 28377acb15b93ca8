package seal

import (
	"encoding/json"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// quick is the least that a file may ask for, so that the tests are.
func quick() Cost { return Cost{Passes: 1, MemoryKB: minMemoryKB, Lanes: 1} }

func phrase(s string) Secret { return NewSecret([]byte(s)) }

func newFile(t testing.TB) []byte {
	t.Helper()
	file, err := NewKEKFile("us", phrase("correct horse battery"), quick())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKEKFile(t *testing.T) {
	file := newFile(t)
	kek, err := OpenKEKFile("us", file, phrase("correct horse battery"))
	if err != nil {
		t.Fatal(err)
	}
	if d := kek.Describe(); !d.OnHost || d.ID != kek.ID() || d.Driver != "file" {
		t.Errorf("%+v", d)
	}
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil {
		t.Fatal(err)
	}
	next, err := ChangePassphrase(file, phrase("correct horse battery"), phrase("another passphrase"), quick())
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKEKFile("us", next, phrase("another passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataKey(t.Context(), again, "us", "acme", w); err != nil {
		t.Errorf("after a new passphrase: %v", err)
	}
	for name, err := range map[string]error{
		"wrong passphrase": kekErr(OpenKEKFile("us", file, phrase("correct horse staple"))),
		"old passphrase":   kekErr(OpenKEKFile("us", next, phrase("correct horse battery"))),
		"another region":   kekErr(OpenKEKFile("uk", file, phrase("correct horse battery"))),
	} {
		if !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewKEKFile("us", phrase("short"), quick()); !fault.Is(err, fault.Invalid) {
		t.Errorf("short passphrase: %v", err)
	}
}

func kekErr(_ KEK, err error) error { return err }

// TestKEKFileOfAStranger changes each field: none may be believed, and none
// may make the process spend what its owner did not allow.
func TestKEKFileOfAStranger(t *testing.T) {
	file := newFile(t)
	for field, value := range map[string]any{
		"format": "other", "id": "other", "region": "uk", "kdf": "scrypt", "passes": 2, "memory_kb": minMemoryKB + 8, "lanes": 2,
		"cipher": "none", "salt": make([]byte, saltBytes), "nonce": make([]byte, 24), "sealed": make([]byte, 48), "more": 1,
	} {
		var m map[string]any
		if err := json.Unmarshal(file, &m); err != nil {
			t.Fatal(err)
		}
		m[field] = value
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := kekErr(OpenKEKFile("us", b, phrase("correct horse battery"))); err == nil {
			t.Errorf("opened with another %s", field)
		}
	}
	for _, greedy := range []string{`"memory_kb":4194304`, `"passes":4000000`, `"lanes":200`} {
		var f map[string]any
		if err := json.Unmarshal(file, &f); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte("{"+greedy+"}"), &f); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := kekErr(OpenKEKFile("us", b, phrase("correct horse battery"))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", greedy, err)
		}
	}
}

func FuzzKEKFile(f *testing.F) {
	f.Add(newFile(f))
	f.Add([]byte(`{"format":"sallyport kek 1"}`))
	f.Add([]byte("{}{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKEK(b)
		if err == nil && (k.MemoryKB > maxMemoryKB || k.Passes > maxPasses || len(k.Salt) != saltBytes || k.ID == "") {
			t.Errorf("took %+v", k)
		}
	})
}
