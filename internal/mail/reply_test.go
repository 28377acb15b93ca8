package mail

import "testing"

func TestEnhancedLength(t *testing.T) {
	for s, want := range map[string]int{
		"2.1.0 Ok": 5, "5.7.513 Service unavailable": 7, "4.4.1": 5, "5.1.1x no": 0, "3.1.1 no such class": 0, "5.1.1111 no": 0,
		"5..1 no": 0, "5.1. no": 0, "5.1": 0, "": 0, "Ok": 0, "5.1.1\nX": 0,
	} {
		if n := enhancedLength(s); n != want {
			t.Errorf("%q: %d, want %d", s, n, want)
		}
	}
}
