package connection_test

import (
	"slices"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// What partners make of our certificates is told by what these are for.
func TestPurposes(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	told := func(want string) {
		t.Helper()
		got, err := c.Purposes(t.Context())
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	told("for clientAuth: 0 taken, 0 failing, 1 not tried yet")
	if report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{}); err != nil || !report.OK {
		t.Fatalf("%+v, %v", report, err)
	}
	told("for clientAuth: 1 taken, 0 failing, 0 not tried yet")
}
