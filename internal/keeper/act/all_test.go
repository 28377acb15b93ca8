package act

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestAll holds the list against the constants.
func TestAll(t *testing.T) {
	text, err := os.ReadFile("act.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []Name
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Name = "([a-z-]+)"$`).FindAllSubmatch(text, -1) {
		want = append(want, Name(m[1]))
	}
	if len(want) < 20 || !slices.Equal(All(), want) {
		t.Errorf("All has %q, the constants are %q", All(), want)
	}
}
