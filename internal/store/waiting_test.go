package store

import (
	"fmt"
	"slices"
	"testing"
)

// A gap in the numbers may be an event whose transaction is not over: no run
// reaches over it.
func TestRunsOfEvents(t *testing.T) {
	for _, c := range []struct {
		seqs    []int64
		regions []string
		want    []string
	}{
		{nil, nil, nil},
		{[]int64{1, 2, 3}, []string{"a", "a", "a"}, []string{"a 1-3"}},
		{[]int64{1, 3, 4}, []string{"a", "a", "a"}, []string{"a 1-1", "a 3-4"}},
		{[]int64{1, 2, 3, 4}, []string{"a", "b", "b", "a"}, []string{"a 1-1", "b 2-3", "a 4-4"}},
	} {
		var events []Waiting
		for _, s := range c.seqs {
			events = append(events, Waiting{Seq: s})
		}
		var got []string
		err := eachRun(events, c.regions, func(region string, first, last int64) error {
			got = append(got, fmt.Sprintf("%s %d-%d", region, first, last))
			return nil
		})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q (%v)", c.seqs, got, c.want, err)
		}
	}
}
