package connection_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// standbyCloud has acme's mailbox connected, and standbys made when they are
// asked for.
func standbyCloud(t *testing.T) *cloud {
	t.Helper()
	c := newCloud(t, func(config *connection.Config) { config.Standby = true })
	c.connect(t)
	return c
}

// inState are acme's identities in a state, by purpose; it fails when there
// are two of one.
func (c *cloud) inState(t testing.TB, state string) map[string]connection.Identity {
	t.Helper()
	all, err := c.Identities(t.Context(), "acme")
	must(t, err)
	found := map[string]connection.Identity{}
	for _, i := range all {
		if i.State != state {
			continue
		}
		if _, twice := found[i.Purpose]; twice {
			t.Errorf("two are %s for %s: %+v", state, i.Purpose, all)
		}
		found[i.Purpose] = i
	}
	return found
}

// standby makes them and has a look at them.
func (c *cloud) standby(t testing.TB) map[string]connection.Identity {
	t.Helper()
	must(t, c.MakeStandby(t.Context(), "acme", "mailbox"))
	found := c.inState(t, "issued")
	if len(found) != 2 {
		t.Fatalf("standbys are %+v", found)
	}
	for purpose, now := range c.identities(t) {
		if i := found[purpose]; i.Epoch <= now.Epoch || i.Name == now.Name {
			t.Errorf("the standby of %+v is %+v", now, i)
		}
	}
	return found
}

func (c *cloud) count(t testing.TB) int {
	t.Helper()
	all, err := c.Identities(t.Context(), "acme")
	must(t, err)
	return len(all)
}

// TestStandbyInQuietTime has Run make them, and Care notice that they lack.
func TestStandbyInQuietTime(t *testing.T) {
	c := standbyCloud(t)
	c.Quiet(time.Millisecond, time.Hour, time.Hour)
	must(t, c.Care(t.Context()))
	if names := c.TakeStandbys(time.Now()); len(names) != 0 {
		t.Errorf("just added, and looked at: %v", names)
	}
	c.Quiet(time.Millisecond, 0, time.Hour)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	defer func() { stop(); <-ended }()
	for end := time.Now().Add(10 * time.Second); len(c.inState(t, "issued")) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no standby was made")
		}
	}
	for purpose, i := range c.inState(t, "issued") {
		if i.Epoch != 2 || i.Name == c.identities(t)[purpose].Name {
			t.Errorf("%+v", i)
		}
	}
	made := c.count(t)
	must(t, c.Care(t.Context()))
	if names := c.TakeStandbys(time.Now()); len(names) != 0 || c.count(t) != made {
		t.Errorf("there are standbys, and %v are looked at; %d identities of %d", names, c.count(t), made)
	}
}

// TestStandbyUsed: a replacement and a compromise need no issuer.
func TestStandbyUsed(t *testing.T) {
	c := standbyCloud(t)
	ready := c.standby(t)
	made := c.count(t)
	_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	must(t, c.MakeStandby(t.Context(), "acme", "mailbox")) // nothing while it is under way
	if done := c.finish(t); done.State != connection.Done || done.To != ready["smtp-client"].Name || c.count(t) != made {
		t.Errorf("%+v; %d identities of %d", done, c.count(t), made)
	}
	c.holds(t, ready["smtp-client"].Name, 2)
	if names := c.TakeStandbys(time.Now().Add(time.Hour)); len(names) != 0 { // it was added just now
		t.Errorf("%v", names)
	}
	c.Quiet(time.Hour, 0, time.Hour)
	if names := c.TakeStandbys(time.Now()); len(names) != 1 {
		t.Errorf("the next standby is not wanted: %v", names)
	}
	ready = c.standby(t)
	made = c.count(t)
	stolen := c.identities(t)["smtp-client"]
	p, err := c.Compromise(t.Context(), "token:1", "acme", stolen.ID)
	must(t, err)
	if p.State != connection.Done || p.To != ready["smtp-client"].Name || c.count(t) != made {
		t.Errorf("%+v; %d identities of %d", p, c.count(t), made)
	}
	c.holds(t, ready["smtp-client"].Name, 3)
	c.test(t)
}

// TestRenewalBesideStandby: the active one keeps its name, and the standby
// stays what it is.
func TestRenewalBesideStandby(t *testing.T) {
	c := standbyCloud(t)
	ready := c.standby(t)
	old := c.identities(t)
	for range 2 {
		_, err := c.Rotate(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID, false)
		must(t, err)
		if done := c.finish(t); done.State != connection.Done {
			t.Errorf("%+v", done)
		}
		for purpose, i := range c.identities(t) {
			if i.Name != old[purpose].Name || i.Epoch != 1 || i.ID == old[purpose].ID {
				t.Errorf("renewed %+v", i)
			}
		}
		for purpose, i := range c.standby(t) {
			if i.ID != ready[purpose].ID {
				t.Errorf("the standby is another: %+v", i)
			}
		}
	}
	// A name of which a key was stolen, as was learnt later, is not renewed.
	_, err := c.Compromise(t.Context(), "token:1", "acme", old["smtp-client"].ID)
	must(t, err)
	_, err = c.Rotate(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID, false)
	must(t, err)
	if done := c.finish(t); done.State != connection.Done || done.To != ready["smtp-client"].Name {
		t.Errorf("%+v", done)
	}
}

// TestStandbyRenewed: one that ages is followed by another of its name.
func TestStandbyRenewed(t *testing.T) {
	c := standbyCloud(t)
	c.keeper.Life = 1500 * time.Millisecond // a minute of it is over when it begins
	aged := c.standby(t)
	c.keeper.Life = 30 * 24 * time.Hour
	fresh := c.standby(t)
	for purpose, i := range fresh {
		if old, _ := c.Identity(t.Context(), "acme", aged[purpose].ID); i.ID == old.ID || i.Name != old.Name || old.State != "retired" {
			t.Errorf("%+v after %+v", i, old)
		}
	}
	made := c.count(t)
	if again := c.standby(t); again["smtp-client"].ID != fresh["smtp-client"].ID || c.count(t) != made {
		t.Errorf("renewed again: %+v", again)
	}
	// One that was compromised is followed by one of the next epoch.
	_, err := c.Compromise(t.Context(), "token:1", "acme", fresh["smtp-client"].ID)
	must(t, err)
	if next := c.standby(t)["smtp-client"]; next.Epoch != 3 {
		t.Errorf("%+v", next)
	}
	// And so is one whose name had a key that was compromised.
	_, err = c.Compromise(t.Context(), "token:1", "acme", aged["entra-app"].ID)
	must(t, err)
	next := c.standby(t)["entra-app"]
	if got, _ := c.Identity(t.Context(), "acme", fresh["entra-app"].ID); next.Epoch != 3 || got.State != "retired" {
		t.Errorf("%+v, and before it %+v", next, got)
	}
}

// TestTaintedStandby: one whose name had a key that was stolen is not used, also
// before quiet time has replaced it.
func TestTaintedStandby(t *testing.T) {
	c := standbyCloud(t)
	c.keeper.Life = 1500 * time.Millisecond
	aged := c.standby(t)
	c.keeper.Life = 30 * 24 * time.Hour
	fresh := c.standby(t)
	_, err := c.Compromise(t.Context(), "token:1", "acme", aged["smtp-client"].ID)
	must(t, err)
	_, err = c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	done := c.finish(t)
	now := c.identities(t)
	if done.State != connection.Done || now["smtp-client"].Epoch != 3 || now["entra-app"].ID != fresh["entra-app"].ID {
		t.Errorf("%+v, active are %+v", done, now)
	}
	c.standby(t)
}

// TestStandbyRounds goes through all changes ten times: four identities are
// enough, and what changes that were given up leave behind is retired.
func TestStandbyRounds(t *testing.T) {
	c := standbyCloud(t)
	do := func(kind string, steps int) {
		_, err := c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", kind)
		must(t, err)
		for range steps {
			_, _, err := c.Step(t.Context(), "acme", "mailbox")
			must(t, err)
		}
	}
	finish := func(want connection.ReplacementState) {
		if done := c.finish(t); done.State != want {
			t.Errorf("%+v", done)
		}
	}
	for round := range 10 {
		c.standby(t)
		do(connection.KindRenew, 0)
		finish(connection.Done)
		do(connection.KindRenew, 1+round%3) // a renewal that a compromise takes over
		_, err := c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID)
		must(t, err)
		finish(connection.Done)
		c.standby(t)
		do(connection.KindReplace, 3)
		_, err = c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
		must(t, err)
		finish(connection.Undone)
		c.standby(t)
		do(connection.KindReplace, 0)
		finish(connection.Done)
	}
	c.standby(t)
	c.test(t)
	if left := c.inState(t, "staged"); len(left) != 0 {
		t.Errorf("staged are left: %+v", left)
	}
}

// TestStandbyOfPublicIssuer is spread far: an authority gives few a week.
func TestStandbyOfPublicIssuer(t *testing.T) {
	c := newCloud(t, func(config *connection.Config) { config.Standby = true })
	m := c.mailbox(t)
	m.Issuer = "acme"
	_, _, err := c.AddGranted(t.Context(), "token:1", m, connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	c.keeper.Certify()
	must(t, c.Care(t.Context()))
	c.Quiet(time.Hour, 0, 8*time.Hour)
	must(t, c.Care(t.Context()))
	now := time.Now()
	for _, after := range []time.Duration{0, 7 * time.Hour} {
		if names := c.TakeStandbys(now.Add(after)); len(names) != 0 {
			t.Errorf("after %v: %v", after, names)
		}
	}
	if names := c.TakeStandbys(now.Add(8 * time.Hour)); len(names) != 1 {
		t.Errorf("after eight hours: %v", names)
	}
	must(t, c.MakeStandby(t.Context(), "acme", "mailbox"))
	must(t, c.MakeStandby(t.Context(), "acme", "mailbox"))
	wanted := c.inState(t, string(act.Wanted))["smtp-client"]
	c.keeper.Certify()
	if ready := c.standby(t)["smtp-client"]; ready.ID != wanted.ID || ready.Epoch != 2 {
		t.Errorf("%+v, asked for was %+v", ready, wanted)
	}
}
