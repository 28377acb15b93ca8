package ledger

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// The schema in docs has the members that a leaf has, in its order, and asks
// for those that every leaf has.
func TestSchema(t *testing.T) {
	raw, err := os.ReadFile("../../docs/ledger-entry.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required   []string
		Properties map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	members := func(e Entry) []string {
		var names []string
		for _, m := range regexp.MustCompile(`[{,]"(\w+)":`).FindAllStringSubmatch(string(leaf(3, e.tail())), -1) {
			names = append(names, m[1])
		}
		return names
	}
	all := members(Entry{Source: "s", Actor: "a", Act: "a", Tenant: "t", Connection: "c", Subject: "s", Purpose: "p", Trace: "t", Outcome: "o", Of: new(int64(1)), Count: 1, Key: "k"})
	var drawn []string
	for _, m := range regexp.MustCompile(`(?m)^    "(\w+)": \{`).FindAllStringSubmatch(string(raw), -1) {
		drawn = append(drawn, m[1])
	}
	if !slices.Equal(all, drawn) || len(schema.Properties) != len(all) {
		t.Errorf("a leaf has %v, the schema %v", all, drawn)
	}
	if least := members(Entry{Source: "s", Actor: "a", Act: "a"}); !slices.Equal(least, schema.Required) {
		t.Errorf("each leaf has %v, the schema asks for %v", least, schema.Required)
	}
}
