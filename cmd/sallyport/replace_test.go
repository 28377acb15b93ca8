package main

import (
	"testing"
	"time"
)

// A reason for waiting is said again when it is another one, or after a while,
// and not because each reply has an id and a time of its own.
func TestWaitingIsSaidOnce(t *testing.T) {
	const refused = "waiting for the partner to accept the new certificate: 127.0.0.1: 550 5.7.51 TenantInboundAttribution; There is a partner connector configured "
	start := time.Unix(1e9, 0)
	var s saying
	for i, c := range []struct {
		state, waiting string
		after          time.Duration
		want           bool
	}{
		{"offered", refused + "[AM0EUR02FT001.eop.protection.outlook.com 2026-11-28T03:00:00.123Z 08DE1234ABCD5678]", 0, true},
		{"offered", refused + "[AM0EUR02FT009.eop.protection.outlook.com 2026-11-28T03:00:00.456Z 08DE1234ABCD9999]", time.Second, false},
		{"offered", "", 2 * time.Second, false},
		{"offered", refused + "\nand a second line", 3 * time.Second, false},
		{"switched", refused, 4 * time.Second, true},
		{"switched", "127.0.0.1: 451 4.7.500 Server busy", 5 * time.Second, true},
		{"switched", "127.0.0.1: 451 4.7.501 Server busy", 6 * time.Second, true},
		{"switched", "AADSTS700027 Trace ID: 7b5ba6c5-9ab8-4dd6-86b5-6d6a4f2f5d5e Timestamp: 2026-11-28 03:00:00Z", 7 * time.Second, true},
		{"switched", "AADSTS700027 Trace ID: 11111111-9ab8-4dd6-86b5-6d6a4f2f5d5e Timestamp: 2026-11-28 03:00:09Z", 8 * time.Second, false},
		{"switched", "AADSTS700027 Trace ID: 11111111-9ab8-4dd6-86b5-6d6a4f2f5d5e Timestamp: 2026-11-28 03:00:09Z", 67 * time.Second, true},
		{"switched", "AADSTS700027 Trace ID: 11111111-9ab8-4dd6-86b5-6d6a4f2f5d5e Timestamp: 2026-11-28 03:00:09Z", 70 * time.Second, false},
	} {
		v := replacementView{State: c.state}
		if c.waiting != "" {
			v.Waiting = &c.waiting
		}
		if got := s.due(v, start.Add(c.after)); got != c.want {
			t.Errorf("%d: %s: due is %v", i, c.waiting, got)
		}
	}
}
