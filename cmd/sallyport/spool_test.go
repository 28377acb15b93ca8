package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// listing serves pages of messages, of which the one numbered bad, from 0, is a
// problem; -1 is none.
func listing(t *testing.T, pages, bad int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("after"))
		if page == bad {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"type":"urn:sallyport:problem:later","title":"Service Unavailable","status":503,"detail":"the disk is busy"}`)
			return
		}
		next := strconv.Itoa(page + 1)
		if page == pages-1 {
			next = ""
		}
		fmt.Fprint(w, `{"items":[`)
		for i := range listed {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"id":"%d","subject":%q}`, page*listed+i, strings.Repeat("x", 400))
		}
		fmt.Fprintf(w, `],"next":%q}`, next)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const listed = 1000 // items of a page, some 400 KB

// An array is whole or not there, whether it waits in memory or in a file.
func TestListIsWholeOrNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, pages := range []int{2, 10} {
		code, out, bad := typed(t, listing(t, pages, -1), "message", "list", "--json")
		var all []messageView
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitDone || bad != "" || len(all) != pages*listed {
			t.Fatalf("%d pages: %d, %d items, %v %q", pages, code, len(all), err, bad)
		}
		for i, m := range all {
			if m.ID != strconv.Itoa(i) {
				t.Fatalf("item %d is %s", i, m.ID)
			}
		}
		code, out, bad = typed(t, listing(t, pages, pages-1), "message", "list", "--json")
		if p := problemOf(t, bad); code != exitFailed || out != "" || p.Status != 503 || p.Detail != "the disk is busy" {
			t.Errorf("the last of %d pages fails: %d, %d bytes, %q", pages, code, len(out), bad)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// Without a place for it a long listing is a problem, and a short one is not.
func TestListWithoutTemporaryFiles(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	if code, _, bad := typed(t, listing(t, 1, -1), "message", "list", "--json"); code != exitDone {
		t.Errorf("one page: %d %q", code, bad)
	}
	code, out, bad := typed(t, listing(t, 10, -1), "message", "list", "--json")
	if p := problemOf(t, bad); code != exitFailed || out != "" || !strings.Contains(p.Hint, "TMPDIR") {
		t.Errorf("ten pages: %d, %d bytes, %q", code, len(out), bad)
	}
}

// A listing of 40 MB does not lie in memory.
func TestListMemory(t *testing.T) {
	const bound, pages = 12 << 20, 100
	api := listing(t, pages, -1)
	t.Setenv("SALLYPORT_API", api)
	t.Setenv("SALLYPORT_TOKEN", "token")
	var out counted
	most := peak(func() {
		if code := run(t.Context(), []string{"message", "list", "--json"}, strings.NewReader(""), &out, io.Discard); code != exitDone {
			t.Errorf("exit code %d", code)
		}
	})
	t.Logf("a listing of %.1f MiB: at most %.1f MiB on the heap", float64(out)/(1<<20), float64(most)/(1<<20))
	if out < 3*bound || most > bound {
		t.Errorf("%d bytes on the heap at once for %d printed", most, out)
	}
}

// counted is a writer that only counts.
type counted int64

func (c *counted) Write(b []byte) (int, error) {
	*c += counted(len(b))
	return len(b), nil
}
