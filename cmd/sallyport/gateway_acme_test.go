package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// waiting is a keeper that waits for one certificate, and does nothing else.
type waiting struct {
	wire.Acts
	asked atomic.Int64
}

func (w *waiting) AcmeChallenge(_ context.Context, _ wire.Peer, q act.Challenge) (act.KeyAuthorization, error) {
	w.asked.Add(1)
	if q.Token != "a-token" {
		return act.KeyAuthorization{}, fault.New(fault.Missing, "x", "no certificate is waited for").WithHint("y")
	}
	return act.KeyAuthorization{KeyAuthorization: "a-token.thumb"}, nil
}

// challenged is a gateway of the regions us, whose keeper waits, and uk, whose
// keeper nobody has needed yet.
func challenged(t *testing.T, base string) (*gateway, *waiting) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "k")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	k := &waiting{}
	server, err := wire.New(wire.Config{Region: "us", Acts: k, Refused: func(wire.Refusal) {},
		Allow: []wire.Grant{{Local: true, UID: uint32(os.Getuid()), Acts: []act.Name{act.AcmeChallenge}}}})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- server.ServeUnix(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-over
	})
	r, err := client.NewRemote(client.RemoteConfig{Region: "us", Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	cells, err := client.NewCells(client.CellsConfig{Regions: []string{"us", "uk"}, Base: base,
		Keepers: map[string]*client.Remote{"us": r, "uk": r}, RegionOf: func(string) (string, bool) { return "us", true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cells.Close)
	g := &gateway{cfg: config{BaseDomain: base, Regions: []string{"us", "uk"}},
		custody: &custody{Cells: cells, children: map[string]*child{"uk": {}}}}
	return g, k
}

func TestChallengeRegion(t *testing.T) {
	g, _ := challenged(t, "GW.Example.net")
	for host, want := range map[string]string{
		"e1.k3x9.us.gw.example.net":              "us",
		"e1.k3x9.us.gw.example.net:80":           "us",
		"E12.K3X9.US.GW.EXAMPLE.NET":             "us",
		"us.gw.example.net":                      "us",
		"us.gw.example.net.":                     "us",
		"e1.k3x9.uk.gw.example.net":              "", // its keeper sleeps
		"e1.k3x9.de.gw.example.net":              "", // no region of ours
		"e1.us.k3x9.gw.example.net":              "",
		"gw.example.net":                         "",
		".gw.example.net":                        "",
		"e1.k3x9.us.gw.example.com":              "",
		"e1.k3x9.us.evilgw.example.net":          "",
		"e1.k3x9.us.gw.example.net.evil.example": "",
		"127.0.0.1":                              "",
		"[::1]:80":                               "",
		"::::":                                   "",
		"":                                       "",
	} {
		got, ok := g.challengeRegion(host)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %t", host, got, ok)
		}
	}
}

// TestAnswerChallenge asks as a CA does, and as others do: what is not a
// question of a CA does not reach the keeper.
func TestAnswerChallenge(t *testing.T) {
	g, k := challenged(t, "gw.test")
	const host = "e1.k3x9.us.gw.test"
	for name, c := range map[string]struct {
		method, host, path string
		status             int
		reaches            bool
	}{
		"a CA's":            {"GET", host, challengePath + "a-token", 200, true},
		"a stranger's":      {"GET", host, challengePath + "another", 404, true},
		"escaped":           {"GET", host, challengePath + "a%2Dtoken", 200, true},
		"with a query":      {"GET", host, challengePath + "a-token?x=y", 200, true},
		"no token":          {"GET", host, challengePath, 404, false},
		"without a slash":   {"GET", host, strings.TrimSuffix(challengePath, "/"), 404, false},
		"the root":          {"GET", host, "/", 404, false},
		"below another":     {"GET", host, "/x" + challengePath + "a-token", 404, false},
		"too long":          {"GET", host, challengePath + strings.Repeat("a", maxToken+1), 404, false},
		"as long as can be": {"GET", host, challengePath + strings.Repeat("a", maxToken), 404, true},
		"control":           {"GET", host, challengePath + "a%00%0d%0a", 404, true},
		"POST":              {"POST", host, challengePath + "a-token", 404, false},
		"HEAD":              {"HEAD", host, challengePath + "a-token", 404, false},
		"another host":      {"GET", "www.example.org", challengePath + "a-token", 404, false},
		"keeper asleep":     {"GET", "e1.k3x9.uk.gw.test", challengePath + "a-token", 404, false},
	} {
		before := k.asked.Load()
		q := httptest.NewRequest(c.method, "http://"+c.host+c.path, nil)
		w := httptest.NewRecorder()
		g.answerChallenge(w, q)
		if w.Code != c.status || (k.asked.Load() > before) != c.reaches {
			t.Errorf("%s: %d, the keeper was asked %d times", name, w.Code, k.asked.Load()-before)
		}
		if body := w.Body.String(); c.status == 200 && body != "a-token.thumb" || c.status != 200 && strings.Contains(body, "thumb") {
			t.Errorf("%s: %q", name, body)
		}
	}
}

// TestChallengeListener speaks to the listener itself: what is no HTTP, or too
// much of it, ends there.
func TestChallengeListener(t *testing.T) {
	g, _ := challenged(t, "gw.test")
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.cfg.ACME.HTTP = held.Addr().String()
	if err := g.openChallenges(t.Context()); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
		t.Errorf("on a port that is in use: %v", err)
	}
	held.Close()
	if err := g.openChallenges(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, end := range g.closers {
			if err := end(context.Background()); err != nil {
				t.Error(err)
			}
		}
		g.running.Wait()
	}()
	for name, c := range map[string]struct{ say, want string }{
		"a CA":        {"GET " + challengePath + "a-token HTTP/1.1\r\nHost: e1.x.us.gw.test\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
		"no host":     {"GET " + challengePath + "a-token HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"SMTP":        {"EHLO x\r\n\r\n", "HTTP/1.1 400"},
		"long header": {"GET / HTTP/1.1\r\nHost: e1.x.us.gw.test\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 431"},
	} {
		conn, err := net.Dial("tcp", g.cfg.ACME.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, c.say) // which may be refused before its end
		said, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.HasPrefix(string(said), c.want) {
			t.Errorf("%s: %q", name, said)
		}
		if strings.HasPrefix(c.want, "HTTP/1.1 200") && !strings.HasSuffix(string(said), "a-token.thumb") {
			t.Errorf("%s: %q", name, said)
		}
	}
	if res, err := http.Get("http://" + g.cfg.ACME.HTTP + challengePath + "a-token"); err != nil || res.StatusCode != 404 {
		t.Errorf("by its address: %v, %v", res, err)
	}
}
