package api

import (
	"context"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// A connection that was added is said to be, whatever went wrong after it.
func TestAddedAndNotSetUp(t *testing.T) {
	c := connection.Connection{Tenant: "acme", Name: "mailbox"}
	away := fault.New(fault.Later, "x", "the keeper does not answer").WithHint("Start it.")
	for _, one := range []struct {
		err  error
		kind fault.Kind
		hint string
	}{
		{fault.Wrap(fault.Later, "y", away), fault.Later, "Start it. When that is repaired: sallyport connection setup acme mailbox."},
		{context.DeadlineExceeded, fault.Later, "When that is repaired: sallyport connection setup acme mailbox."},
		{fault.New(fault.Conflict, "x", "no identity"), fault.Conflict, "When that is repaired: sallyport connection setup acme mailbox."},
	} {
		got := notSetUp(c, one.err)
		if fault.KindOf(got) != one.kind || fault.HintOf(got) != one.hint || !strings.HasPrefix(fault.Sentence(got), "connection mailbox was added, and its set-up failed: ") {
			t.Errorf("%v: %s %q %q", one.err, fault.KindOf(got), fault.Sentence(got), fault.HintOf(got))
		}
	}
}
