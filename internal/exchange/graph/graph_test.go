package graph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func client(t *testing.T, f http.HandlerFunc) (*Client, string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return New(Config{Base: s.URL, HTTP: s.Client(), Now: time.Now, Token: func(context.Context) (string, error) { return "t", nil }}), s.URL
}

// TestPagesStayAtHome: the token does not follow a link to another host, and
// a listing without end is given up.
func TestPagesStayAtHome(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer other.Close()
	c, _ := client(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"value":[{"id":"1"}],"@odata.nextLink":%q}`, other.URL+"/beta/auditLogs/signIns")
	})
	rows := 0
	err := c.SignIns(context.Background(), Query{}, func(SignIn) error { rows++; return nil })
	if !fault.Is(err, fault.Never) || rows != 1 || asked != 0 {
		t.Errorf("%v; %d rows, %d requests to the other host", err, rows, asked)
	}
	pages := 0
	var home string
	c, home = client(t, func(w http.ResponseWriter, _ *http.Request) {
		pages++
		fmt.Fprintf(w, `{"value":[],"@odata.nextLink":%q}`, home+"/again")
	})
	if err := c.DirectoryAudits(context.Background(), Query{}, func(Audit) error { return nil }); !fault.Is(err, fault.Never) || pages != mostPages {
		t.Errorf("%v after %d pages", err, pages)
	}
}

// TestQueries: what is asked for, and that a callback's error ends it.
func TestQueries(t *testing.T) {
	var asked string
	c, _ := client(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path + " " + r.URL.Query().Get("$filter") + " " + r.URL.Query().Get("$top")
		io.WriteString(w, `{"value":[{"id":"1"},{"id":"2"}]}`)
	})
	stop := errors.New("enough")
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	if err := c.SignIns(context.Background(), Query{AppID: "a'b", Since: at, Page: 7}, func(SignIn) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	want := "/beta/auditLogs/signIns signInEventTypes/any(t:t eq 'servicePrincipal') and appId eq 'a''b' and createdDateTime ge 2026-03-01T00:00:00Z 7"
	if asked != want {
		t.Errorf("asked %s\nexpected %s", asked, want)
	}
	broken := func(context.Context, string) (string, error) { return "", stop }
	asked = ""
	if _, err := c.AddKey(context.Background(), "o", nil, broken); !errors.Is(err, stop) || asked != "" {
		t.Errorf("%v; asked %s", err, asked)
	}
	if err := c.SetKeys(context.Background(), "o", nil); err != nil || !strings.HasPrefix(asked, "/v1.0/applications/o") {
		t.Errorf("%v; asked %s", err, asked)
	}
}
