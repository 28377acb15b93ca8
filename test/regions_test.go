package test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestDeliveredByRegion: what each region's tenants got is in the figures, a
// recipient each, and adds up to what was delivered.
func TestDeliveredByRegion(t *testing.T) {
	p := newProcess(t, "")
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	p.start()
	p.tenant("acme", "us", "acme.test", sink.Addr)
	p.tenant("globex", "us", "globex.test", sink.Addr)
	p.tenant("initech", "ca", "initech.test", sink.Addr)
	for _, to := range []string{"a@acme.test", "b@acme.test", "a@globex.test", "a@initech.test"} {
		raw := []byte("From: x@example.org\r\n\r\nhello\r\n")
		if err := converse(p.smtp, "x@example.org", to, nil, raw); err != nil {
			t.Fatal(err)
		}
	}
	var status struct {
		Queue   struct{ Delivered uint64 }
		Regions []struct {
			Region    string
			Delivered uint64
		}
	}
	waitFor(t, "four deliveries", func() bool {
		status.Regions = nil
		p.mustCall("GET", "/v1/status", nil, &status)
		return status.Queue.Delivered == 4
	})
	got := map[string]uint64{}
	for _, r := range status.Regions {
		got[r.Region] = r.Delivered
	}
	want := map[string]uint64{"us": 3, "uk": 0, "de": 0, "ca": 1, "za": 0, "au": 0, "je": 0}
	if !maps.Equal(got, want) {
		t.Errorf("deliveries by region: %v, not %v", got, want)
	}
	answer, err := http.Get("http://" + p.api + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	figures, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for region, n := range want {
		if line := fmt.Sprintf("sallyport_region_delivered_total{region=%q} %d\n", region, n); !strings.Contains(string(figures), line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
}
