package test

import (
	"encoding/json"
	"os/exec"
	"testing"
)

// TestDemo runs the demonstration as a stranger does, smaller.
func TestDemo(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), binary(t), "demo", "--json", "--messages", "800").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var v struct {
		Sent, Delivered, Lost, Duplicated *int
		P50MS                             *float64 `json:"p50_ms"`
		P99MS                             *float64 `json:"p99_ms"`
		Rate                              *float64
		Replaced, Compromised             struct {
			From, To   string
			OldRefused bool `json:"old_name_refused"`
		}
		LedgerEntries int  `json:"ledger_entries"`
		LedgerOK      bool `json:"ledger_ok"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("not one object: %v\n%s", err, out)
	}
	if v.Sent == nil || v.Delivered == nil || v.Lost == nil || v.Duplicated == nil || v.P50MS == nil || v.P99MS == nil || v.Rate == nil {
		t.Fatalf("a field is missing: %s", out)
	}
	for name, c := range map[string]struct {
		From, To   string
		OldRefused bool `json:"old_name_refused"`
	}{"replaced": v.Replaced, "compromised": v.Compromised} {
		if c.From == "" || c.From == c.To || !c.OldRefused {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if !v.LedgerOK || v.LedgerEntries < 100 {
		t.Errorf("ledger: %d entries, ok %v", v.LedgerEntries, v.LedgerOK)
	}
	if *v.Sent < 800 || *v.Delivered != *v.Sent || *v.Lost != 0 || *v.Rate <= 0 {
		t.Errorf("%s", out)
	}
}
