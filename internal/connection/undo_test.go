package connection_test

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// TestUndoDrains: the partner lets the new name in as long as a connection that
// shows it carries a message, also on the way back.
func TestUndoDrains(t *testing.T) {
	for _, at := range []connection.ReplacementState{connection.Switched, connection.Draining} {
		t.Run(string(at), func(t *testing.T) {
			c := newCloud(t, nil)
			c.connect(t)
			old := c.identities(t)["smtp-client"]
			p := c.goTo(t, connection.KindReplace, at)
			busy := map[string]int{p.Identities[0].ToSHA: 1}
			c.OnRetire(func(_, _, sha string) int { return busy[sha] })
			_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
			must(t, err)
			if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err == nil {
				t.Error("it did not wait")
			}
			if names := c.names(t); len(names) != 2 {
				t.Errorf("connectors name %v while a message is under way by the new one", names)
			}
			if now := c.identities(t)["smtp-client"]; now.ID != old.ID {
				t.Errorf("shown is %+v", now)
			}
			clear(busy)
			if done := c.finish(t); done.State != connection.Undone {
				t.Errorf("%+v", done)
			}
			c.whole(t)
			c.test(t)
		})
	}
}

// TestUndoAfterDrop: the partner has dropped the old one already, which was not
// written down any more. He takes it again before anything shows it.
func TestUndoAfterDrop(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	old := c.identities(t)
	c.goTo(t, connection.KindReplace, connection.Draining)
	c.StopAt(func(s connection.ReplacementState, when string) error {
		if s == connection.Draining && when == "after" {
			return errKilled
		}
		return nil
	})
	if _, _, err := c.Step(t.Context(), "acme", "mailbox"); err != error(errKilled) {
		t.Fatal(err)
	}
	if names := c.names(t); len(names) != 1 || c.keys(t) != 1 {
		t.Fatalf("connectors name %v, %d keys", names, c.keys(t))
	}
	c.Registry = c.again(t)
	_, err := c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	// Whenever the old one is shown again, the partner lets it in.
	shown := 0
	c.OnRetire(func(_, _, _ string) int {
		if names, now := c.names(t), c.identities(t)["smtp-client"]; now.ID == old["smtp-client"].ID {
			if shown++; len(names) != 2 || c.keys(t) != 2 {
				t.Errorf("shown is %s, let in are %v with %d keys", now.Name, names, c.keys(t))
			}
		}
		return 0
	})
	if done := c.finish(t); done.State != connection.Undone || shown == 0 {
		t.Errorf("%+v, looked at %d times", done, shown)
	}
	if now := c.identities(t); now["smtp-client"].ID != old["smtp-client"].ID || now["entra-app"].ID != old["entra-app"].ID {
		t.Errorf("active are %+v", now)
	}
	c.whole(t)
	c.test(t)
}
