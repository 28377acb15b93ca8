package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// recipientsFile is a file of that text in a folder of its own.
func recipientsFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recipients.txt")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// The API itself refuses the addresses here, and the line that is named is the
// file's, comments and empty lines counted.
func TestImportNamesTheLine(t *testing.T) {
	d := newDesk(t, "us")
	_, err := d.tenants.Add(t.Context(), "system", tenant.Tenant{Name: "acme", Region: "us"})
	must(t, err)
	file := recipientsFile(t, "# who there is\n\nann@acme.test\nnot an address\n\nbob@acme.test\n@\n")
	r := d.cli("directory", "import", "acme", file, "--json")
	p := problemOf(t, r.err)
	var places []string
	for _, flaw := range p.Errors {
		places = append(places, flaw.Location)
	}
	if got, want := strings.Join(places, " "), file+":4 "+file+":7"; got != want || r.code != exitFailed || p.Status != 400 {
		t.Errorf("%d %d %s, want %s", r.code, p.Status, got, want)
	}
	if text := d.cli("directory", "import", "acme", file).err; !strings.Contains(text, file+":4: ") {
		t.Errorf("%s", text)
	}
}

// So it is behind the first request of several.
func TestImportNamesTheLineOfALaterRequest(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Addresses []string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		for i, a := range in.Addresses {
			if a == "wrong" {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"type":"t","title":"Bad Request","status":400,"detail":"d","errors":[{"location":"body.addresses[%d]","message":"no address"},{"location":"body.addresses[9999]","message":"of nothing"}]}`, i)
				return
			}
		}
		fmt.Fprintf(w, `{"added":%d}`, len(in.Addresses))
	}))
	defer s.Close()
	var text strings.Builder
	for i := range importBatch + 10 {
		fmt.Fprintf(&text, "user%d@acme.test\n", i)
	}
	file := recipientsFile(t, text.String()+"wrong\n")
	code, _, bad := typed(t, s.URL, "directory", "import", "acme", file, "--json")
	p := problemOf(t, bad)
	if code != exitFailed || len(p.Errors) != 2 || p.Errors[0].Location != fmt.Sprintf("%s:%d", file, importBatch+11) || p.Errors[1].Location != "body.addresses[9999]" {
		t.Errorf("%d %s", code, bad)
	}
}
