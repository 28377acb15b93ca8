package test

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestRestoreIntoTheOtherStore moves a gateway with mail in its queue from one
// database to the other: the mail arrives from there.
func TestRestoreIntoTheOtherStore(t *testing.T) {
	for name, c := range map[string]struct{ from, to func(testing.TB) string }{
		"sqlite to postgres": {func(testing.TB) string { return "" }, postgresURL},
		"postgres to sqlite": {postgresURL, func(testing.TB) string { return "sqlite" }},
	} {
		t.Run(name, func(t *testing.T) { moveStore(t, c.from(t), c.to(t)) })
	}
}

func moveStore(t *testing.T, from, to string) {
	old := newProcess(t, from)
	mailbox := freeAddresses(t, 1)[0] // nobody listens yet
	old.start()
	old.tenant("acme", "us", "acme.test", mailbox)
	password := old.must("credential", "add", "acme", "printer")
	bodies := []string{"small", "grüße", strings.Repeat("a line of a large message\r\n", 8000) + "end"}
	for i, body := range bodies {
		raw := []byte("From: a@example.org\r\nSubject: ✉ " + strconv.Itoa(i) + "\r\n\r\n" + body + "\r\n")
		if err := converse(old.smtp, "a@example.org", "b@acme.test", nil, raw); err != nil {
			t.Fatal(err)
		}
	}
	want := object[[]message](old, "message", "list", "--tenant", "acme")
	backup := filepath.Join(t.TempDir(), "backup.tar")
	old.must("backup", backup)
	old.stop()

	fresh := *old
	fresh.dir = filepath.Join(t.TempDir(), "new")
	said := fresh.must("restore", backup, "--store", to)
	if strings.Contains(said, "127.0.0.1") {
		t.Errorf("the store's address, which may have a password, is shown: %s", said)
	}
	settings, err := os.ReadFile(filepath.Join(fresh.dir, "sallyport.toml"))
	if err != nil || !strings.Contains(string(settings), `store = "`+to+`"`) {
		t.Fatalf("the settings do not name the store: %v\n%s", err, settings)
	}
	fresh.start()
	t.Cleanup(fresh.kill)
	if got := object[[]message](&fresh, "message", "list", "--tenant", "acme"); !reflect.DeepEqual(got, want) || len(got) != len(bodies) {
		t.Errorf("messages: %+v\nnot %+v", got, want)
	}
	if check, _, _ := fresh.cli("doctor", "--verify"); !strings.Contains(check, "every row and body is whole") {
		t.Error(check)
	}
	l, err := net.Listen("tcp", mailbox)
	if err != nil {
		t.Fatal(err)
	}
	sink := testpeer.ServeSink(t, l, testpeer.SinkRules{})
	fresh.must("queue", "retry", "--tenant", "acme")
	var got []string
	for _, m := range sink.Wait(t, len(bodies), 30*time.Second) {
		_, body, _ := strings.Cut(string(m.Data), "\r\n\r\n")
		got = append(got, strings.TrimSuffix(body, "\r\n"))
	}
	slices.Sort(got)
	if slices.Sort(bodies); !slices.Equal(got, bodies) {
		t.Errorf("%d messages came, not those that were queued", len(got))
	}
	if users := fresh.must("credential", "list", "acme"); !strings.Contains(users, "printer") || password == "" {
		t.Error(users)
	}
}
