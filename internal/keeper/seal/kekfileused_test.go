package seal

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// A KEK file that is read for each use opens nothing while it, or its passphrase,
// is away; another file in its place is not taken for it.
func TestUsedKEKFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	word, wordErr := "correct horse battery", error(nil)
	kek, err := NewUsedKEKFile("us", path, func() (Secret, error) { return phrase(word), wordErr })
	if err != nil {
		t.Fatal(err)
	}
	put := func(file []byte) {
		t.Helper()
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	try := func(w Wrapped) error {
		_, err := OpenDataKey(t.Context(), kek, "us", "acme", w)
		return err
	}
	later := func(when string, err error, words string) {
		t.Helper()
		if !fault.Is(err, fault.Later) || fault.HintOf(err) == "" || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", when, err)
		}
	}
	_, _, err = NewDataKey(t.Context(), kek, "us", "acme")
	later("before the file is there", err, "not there")
	if d := kek.Describe(); kek.ID() != "" || d.Driver != "file" || !d.OnHost || d.ID != "" {
		t.Errorf("%q, %+v", kek.ID(), d)
	}

	file := newFile(t)
	put(file)
	id := kek.ID()
	if same, err := OpenKEKFile("us", file, phrase(word)); err != nil || id == "" || id != same.ID() {
		t.Errorf("%q of %v: %v", id, same, err)
	}
	_, w, err := NewDataKey(t.Context(), kek, "us", "acme")
	if err != nil || try(w) != nil {
		t.Fatal(err, try(w))
	}
	wordErr = fault.New(fault.Missing, "", "there is no passphrase").WithHint("Give one.")
	later("without the passphrase", try(w), "no passphrase")
	word, wordErr = "a wrong passphrase", nil
	if err := try(w); !fault.Is(err, fault.Denied) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	word = "correct horse battery"
	put(newFile(t))
	later("another file", try(w), id)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	later("taken away", try(w), "not there")
	if kek.ID() != id {
		t.Errorf("it is called %q now", kek.ID())
	}
	put(file)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := try(w); err != nil || kek.ID() != id {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := NewUsedKEKFile("us", path, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("without a passphrase: %v", err)
	}
}
