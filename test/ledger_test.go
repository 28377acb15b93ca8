package test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// TestEachChangeOnceInTheLedger makes changes by the API while gateway and
// keepers are killed at random. Each change that was made is in the ledger of
// its region, once, and no other is.
func TestEachChangeOnceInTheLedger(t *testing.T) {
	eachProcess(t, func(t *testing.T, p *process) {
		p.start()
		c := &changes{p: p, tenants: map[string]string{"acme": "us", "globex": "uk"}}
		for name, region := range c.tenants {
			p.mustCall("POST", "/v1/tenants", map[string]any{"name": name, "region": region}, nil)
		}
		waitFor(t, "two keepers", func() bool { return len(p.children()) == 2 })
		ctx, cancel := context.WithCancel(t.Context())
		var made sync.WaitGroup
		for i := range 3 {
			made.Go(func() { c.make(ctx, i) })
		}
		kills := 8
		if chaos() {
			kills = 50
		}
		gateways := 0
		for range kills {
			time.Sleep(time.Duration(100+rand.IntN(500)) * time.Millisecond) // the moment of a kill is what is random here
			if rand.IntN(2) == 0 && gateways < kills/2 {
				gateways++
				syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
				<-p.ended
				p.start()
				continue
			}
			for _, pid := range p.children() {
				if rand.IntN(2) == 0 {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		cancel()
		made.Wait()
		c.compare(t)
	})
}

// changes adds domains, whose names tell them apart.
type changes struct {
	p       *process
	tenants map[string]string // to their regions

	mu    sync.Mutex
	asked map[string]string // domain to tenant
}

// make adds one domain after another until ctx ends.
func (c *changes) make(ctx context.Context, who int) {
	for i := 0; ctx.Err() == nil; i++ {
		tenant := "acme"
		if i%2 == 1 {
			tenant = "globex"
		}
		domain := fmt.Sprintf("d%d-%d.test", who, i)
		c.mu.Lock()
		if c.asked == nil {
			c.asked = map[string]string{}
		}
		c.asked[domain] = tenant
		c.mu.Unlock()
		if err := c.p.call("POST", "/v1/tenants/"+tenant+"/domains", map[string]any{"name": domain}, nil); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond): // a gateway that is being started
			}
		}
	}
}

// compare holds the domains that there are against the ledgers.
func (c *changes) compare(t *testing.T) {
	t.Helper()
	p := c.p
	waitFor(t, "an outbox that is empty", func() bool {
		var status struct{ Store struct{ Outbox int64 } }
		return p.call("GET", "/v1/status", nil, &status) == nil && status.Store.Outbox == 0
	})
	total := 0
	for tenant, region := range c.tenants {
		there := map[string]bool{}
		for _, d := range c.domains(t, tenant) {
			there[d] = true
		}
		told := c.told(t, region)
		for domain, of := range c.asked {
			want := 0
			if of == tenant && there[domain] {
				want = 1
			}
			if told[domain] != want {
				t.Errorf("%s of %s: %d entries in the ledger of %s, want %d", domain, of, told[domain], region, want)
			}
			total += want
		}
	}
	t.Logf("%d changes were asked for, %d made, each once in the ledger", len(c.asked), total)
	if total < 20 {
		t.Errorf("only %d changes were made", total)
	}
}

func (c *changes) domains(t *testing.T, tenant string) (all []string) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(c.p.dir, "operator.token"))
	if err != nil {
		t.Fatal(err)
	}
	api := &client.Client{Base: "http://" + c.p.api, Token: strings.TrimSpace(string(token))}
	err = api.List(t.Context(), "/v1/tenants/"+tenant+"/domains", nil, 0, func(raw json.RawMessage) error {
		var d struct{ Name string }
		err := json.Unmarshal(raw, &d)
		all = append(all, d.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// told is how often the ledger of a region tells of each domain's adding.
func (c *changes) told(t *testing.T, region string) map[string]int {
	t.Helper()
	r := remoteAt(t, region, filepath.Join(c.p.dir, "keeper", region, "keeper.sock"))
	told := map[string]int{}
	keys := map[string]bool{}
	for from := int64(0); ; {
		page, err := r.SearchLedger(t.Context(), "", "", act.Search{Act: "domain.add", From: from, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range page.Entries {
			var e struct {
				Index                int64
				Subject, Source, Key string
			}
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			if e.Source != "asserted" || e.Key == "" || keys[e.Key] {
				t.Errorf("entry %d of %s: %s", e.Index, region, raw)
			}
			keys[e.Key] = true
			told[e.Subject]++
		}
		if from = page.Next; from == 0 {
			return told
		}
	}
}
