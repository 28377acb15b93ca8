package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
)

// output is a buffer that one goroutine writes and another reads.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// TestSimM365: the verb serves until it is told to stop, says what it made,
// and its folder lists the tenants before and after.
func TestSimM365(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var out, errs output
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"sim", "m365", "--listen-smtp", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--tenants", "2", "--data", dir},
			strings.NewReader(""), &out, &errs)
	}()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "sim m365 list"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready: %s%s", out.String(), errs.String())
		}
	}
	running := simList(t, dir)
	if len(running) != 2 || running[0].SMTP == "" || !strings.HasPrefix(running[0].Graph, "https://127.0.0.1:") ||
		running[0].CAFile != filepath.Join(dir, "ca.pem") || running[0].AdminToken == "" || running[0].ConnectorName == "" {
		t.Errorf("listed: %+v", running)
	}
	var second output
	if got := run(ctx, []string{"sim", "m365", "--data", dir}, strings.NewReader(""), &second, &second); got != exitFailed {
		t.Errorf("a second simulator in one folder: %d %s", got, second.String())
	}
	stop()
	select {
	case got := <-code:
		if got != exitDone {
			t.Errorf("exit %d: %s", got, errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it did not stop")
	}
	if stopped := simList(t, dir); len(stopped) != 2 || stopped[1] != running[1] {
		t.Errorf("listed when stopped: %+v", stopped)
	}
}

func simList(t *testing.T, dir string) []sim.Listed {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"sim", "m365", "list", "--data", dir, "--json"}, strings.NewReader(""), &out, &errs); code != exitDone {
		t.Fatalf("list: %d %s", code, errs.String())
	}
	var all []sim.Listed
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	return all
}
