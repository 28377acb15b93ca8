package test

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// TestManyTenants starts a gateway that has many tenants, and changes one:
// the next command of a session sees it.
func TestManyTenants(t *testing.T) {
	tenants := 2_000
	if chaos() {
		tenants = 36_100
	}
	eachProcess(t, func(t *testing.T, p *process) {
		sink := startForeignSink(t)
		p.start()
		begun := time.Now()
		fillTenants(t, p, tenants, sink.addr)
		filled := time.Since(begun)
		p.stop()
		begun = time.Now()
		p.start()
		started := time.Since(begun)
		memory := p.resident(t)
		t.Logf("%d tenants with %d domains made in %v; started in %v, %d MiB", tenants, 2*tenants, filled.Round(time.Millisecond), started.Round(time.Millisecond), memory)
		if memory > 400 {
			t.Errorf("the gateway needs %d MiB", memory)
		}
		if chaos() && started > 10*time.Second {
			t.Errorf("the start took %v", started)
		}
		changesAtOnce(t, p, tenants)
		l := &load{addr: p.smtp, size: 10_000, to: fmt.Sprintf("d1-%d.test", tenants-1)}
		runUntil(t, "mail for the last tenant", func() bool { return l.replies()[250] > 110 }, l)
		verifyArrived(t, p, sink, l.numbers(), 0)
	})
}

func fillTenants(t *testing.T, p *process, n int, mailbox string) {
	t.Helper()
	host, port, err := net.SplitHostPort(mailbox)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	work := make(chan int)
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range work {
				if err := fillTenant(p, i, host, number); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
}

func fillTenant(p *process, i int, host string, port int) error {
	name := fmt.Sprintf("tenant-%d", i)
	if err := p.call("POST", "/v1/tenants", map[string]any{"name": name, "region": "us"}, nil); err != nil {
		return err
	}
	for d := range 2 {
		if err := p.call("POST", "/v1/tenants/"+name+"/domains", map[string]any{"name": fmt.Sprintf("d%d-%d.test", d, i)}, nil); err != nil {
			return err
		}
	}
	return p.call("POST", "/v1/tenants/"+name+"/connections", map[string]any{"name": "mailbox", "kind": "smtp", "tls": "none",
		"hosts": []map[string]any{{"host": host, "port": port}}}, nil)
}

// changesAtOnce adds and removes a domain while a session is open.
func changesAtOnce(t *testing.T, p *process, tenants int) {
	t.Helper()
	c, err := gosmtp.Dial(p.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	known := func() bool {
		if err := c.Mail("a@example.org", nil); err != nil {
			t.Fatal(err)
		}
		defer c.Reset()
		return c.Rcpt("b@new.test", nil) == nil
	}
	tenant := fmt.Sprintf("/v1/tenants/tenant-%d/domains", tenants/2)
	if known() {
		t.Error("a domain that was not added is known")
	}
	p.mustCall("POST", tenant, map[string]any{"name": "new.test"}, nil)
	if !known() {
		t.Error("a domain just added is not known")
	}
	p.mustCall("DELETE", tenant+"/new.test", nil, nil)
	if known() {
		t.Error("a domain just removed is still known")
	}
}
