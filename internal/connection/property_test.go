package connection_test

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// drawn is a test whose failures are of what rapid has drawn, so that it
// reports the seed and shrinks.
type drawn struct {
	*testing.T
	rt   *rapid.T
	ends []func()
}

func (d *drawn) Error(args ...any)            { d.rt.Error(args...) }
func (d *drawn) Errorf(f string, args ...any) { d.rt.Errorf(f, args...) }
func (d *drawn) Fatal(args ...any)            { d.rt.Fatal(args...) }
func (d *drawn) Fatalf(f string, args ...any) { d.rt.Fatalf(f, args...) }
func (d *drawn) Log(args ...any)              { d.rt.Log(args...) }
func (d *drawn) Logf(f string, args ...any)   { d.rt.Logf(f, args...) }
func (d *drawn) Failed() bool                 { return d.rt.Failed() }
func (d *drawn) Helper()                      {}
func (d *drawn) Cleanup(f func())             { d.ends = append(d.ends, f) }

func (d *drawn) end() {
	for _, f := range slices.Backward(d.ends) {
		f()
	}
}

// history is a connection to a simulated Microsoft 365 with everything that can
// happen to it.
type history struct {
	*cloud
	t       *drawn
	clock   *jumping
	touched bool // the customer has changed something by hand
	busy    int  // looks at sessions that find one with a message
}

func newHistory(t *drawn) *history {
	w := &history{t: t, clock: &jumping{}}
	w.cloud = newCloud(t, func(c *connection.Config) { c.Now, c.Standby = w.clock.now, true })
	w.connect(t)
	w.listen()
	return w
}

// again is a new process on what the one before has left.
func (w *history) again() {
	w.Registry = w.cloud.again(w.t)
	w.listen()
}

func (w *history) listen() {
	w.OnRetire(func(_, _, _ string) int {
		if w.busy > 0 {
			w.busy--
			return 1
		}
		return 0
	})
}

// mayFail lets an act be refused: whatever it met, it has a kind and says what
// to do.
func (w *history) mayFail(err error) {
	if err != nil && !errors.Is(err, errKilled) && fault.KindOf(err) == fault.Internal {
		w.t.Errorf("an act failed by itself: %v", err)
	}
}

// killing has the process die at a point that is drawn, in an act.
func (w *history) killing(rt *rapid.T, do func() error) {
	at := rapid.SampledFrom(append(points(), connection.Undoing, connection.Repointed, "")).Draw(rt, "killed at")
	when := rapid.SampledFrom([]string{"before", "after"}).Draw(rt, "when")
	w.StopAt(func(s connection.ReplacementState, n string) error {
		if s == at && n == when {
			return errKilled
		}
		return nil
	})
	w.mayFail(do())
	if at != "" {
		w.again()
	}
}

func (w *history) step() error {
	_, _, err := w.Step(w.t.Context(), "acme", "mailbox")
	var f *fault.Error
	if err != nil && !errors.As(err, &f) {
		return nil // it waits
	}
	return err
}

func (w *history) begin(kind string) func(*rapid.T) {
	return func(*rapid.T) {
		_, err := w.StartReplacement(w.t.Context(), "token:1", "acme", "mailbox", kind)
		w.mayFail(err)
	}
}

// someIdentity draws one that is not compromised yet.
func (w *history) someIdentity(rt *rapid.T) (act.Identity, bool) {
	w.keeper.SetAway(false)
	all, err := w.keeper.ListIdentities(w.t.Context(), "acme", "mailbox")
	must(w.t, err)
	all = slices.DeleteFunc(all, func(i act.Identity) bool { return i.State == act.Compromised })
	if len(all) == 0 {
		return act.Identity{}, false
	}
	return rapid.SampledFrom(all).Draw(rt, "identity"), true
}

func (w *history) actions() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){
		"":        func(*rapid.T) { w.check() },
		"replace": w.begin(connection.KindReplace),
		"renew":   w.begin(connection.KindRenew),
		"undo": func(*rapid.T) {
			_, err := w.UndoReplacement(w.t.Context(), "token:1", "acme", "mailbox")
			w.mayFail(err)
		},
		"step": func(*rapid.T) { w.mayFail(w.step()) },
		"many steps": func(rt *rapid.T) {
			for range rapid.IntRange(1, 6).Draw(rt, "steps") {
				w.mayFail(w.step())
			}
		},
		"killed": func(rt *rapid.T) { w.killing(rt, w.step) },
		"compromise": func(rt *rapid.T) {
			if i, ok := w.someIdentity(rt); ok {
				w.killing(rt, func() error {
					_, err := w.Compromise(w.t.Context(), "token:1", "acme", i.ID)
					return err
				})
			}
		},
		"cut off": func(rt *rapid.T) {
			if i, ok := w.someIdentity(rt); ok {
				_, err := w.keeper.MoveIdentity(w.t.Context(), i, act.Compromised)
				must(w.t, err)
				w.again()
			}
		},
		"care":    func(*rapid.T) { w.mayFail(w.Care(w.t.Context())) },
		"standby": func(*rapid.T) { w.mayFail(w.MakeStandby(w.t.Context(), "acme", "mailbox")) },
		"clock": func(rt *rapid.T) {
			w.clock.jump(time.Duration(rapid.IntRange(-40, 40).Draw(rt, "days")) * aDay)
		},
		"keeper":  func(rt *rapid.T) { w.keeper.SetAway(rapid.Bool().Draw(rt, "away")) },
		"message": func(rt *rapid.T) { w.busy = rapid.IntRange(0, 3).Draw(rt, "looks") },
		"token": func(rt *rapid.T) {
			w.keeper.SetAway(false)
			w.setToken(w.t, rapid.SampledFrom([]string{"", "of yesterday", w.one.AdminToken}).Draw(rt, "token"))
		},
		"added anew": func(*rapid.T) {
			w.keeper.SetAway(false)
			w.signIn(true)
			w.busy = 0
			must(w.t, w.sim.Switch(w.one.EntraTenant, func(s *sim.Switches) { s.GraphThrottle = 0 }))
			must(w.t, w.Remove(w.t.Context(), "token:1", "acme", "mailbox"))
			w.removeInbounds(w.t, func(i admin.Inbound) bool { return i.Name != w.one.ConnectorName }) // the customer's part
			w.connect(w.t)
		},
		"switched off": func(rt *rapid.T) {
			state := rapid.SampledFrom([]string{connection.Enabled, connection.Disabled}).Draw(rt, "state")
			_, err := w.SetState(w.t.Context(), "token:1", "acme", "mailbox", state)
			must(w.t, err)
		},
		"sign-in": func(rt *rapid.T) { w.signIn(!rapid.Bool().Draw(rt, "refused")) },
	}
	for _, h := range hands() {
		all["by hand: "+h.name] = func(*rapid.T) {
			w.touched = true
			h.do(w.t, w.cloud)
		}
	}
	return all
}

// signIn lets the application sign in from here, or from nowhere.
func (w *history) signIn(may bool) {
	must(w.t, w.sim.Switch(w.one.EntraTenant, func(s *sim.Switches) {
		if s.AllowedAddresses = nil; !may {
			s.AllowedAddresses = []string{"192.0.2.1"}
		}
	}))
}

// check is true at any time: at most two identities of a purpose are accepted,
// and the one that is shown is, unless a compromise is being answered or the
// customer has changed something by hand.
func (w *history) check() {
	w.keeper.SetAway(false)
	all, err := w.keeper.ListIdentities(w.t.Context(), "acme", "mailbox")
	must(w.t, err)
	shown := map[string]int{}
	for _, i := range all {
		if i.State == act.Staged || i.State == act.Active || i.State == act.Retiring {
			shown[i.Purpose]++
		}
	}
	names := slices.DeleteFunc(w.names(w.t), func(n string) bool { return n == "mx.elsewhere.test" })
	if shown["smtp-client"] > 2 || shown["entra-app"] > 2 || len(names) > 2 {
		w.t.Errorf("the keeper shows %v, connectors name %v", shown, names)
	}
	p, err := w.Replacement(w.t.Context(), "acme", "mailbox")
	answering := err == nil && p.Kind == connection.KindCompromise && !over(p)
	if w.touched || answering || w.lost(all) {
		return
	}
	now := w.identities(w.t)
	if name := now["smtp-client"].Name; name == "" || !slices.Contains(names, name) {
		w.t.Errorf("shown is %q, connectors name %v", name, names)
	}
	app, err := w.graph.Application(w.t.Context(), w.one.AppID)
	must(w.t, err)
	known := slices.ContainsFunc(app.Keys, func(k graph.Key) bool {
		return slices.Equal(k.Key, w.keeper.Stolen(w.t, now["entra-app"].ID).Chain[0])
	})
	if len(app.Keys) > 2 || !known {
		w.t.Errorf("%d keys are registered, the active one among them: %v", len(app.Keys), known)
	}
}

// lost reports a purpose without an active identity, or with one whose name had
// a key stolen, and nobody has looked yet.
func (w *history) lost(all []act.Identity) bool {
	tainted := map[string]bool{}
	for _, i := range all {
		if i.State == act.Compromised {
			tainted[i.Name] = true
		}
	}
	for _, purpose := range []string{connection.PurposeClient, connection.PurposeApp} {
		if !slices.ContainsFunc(all, func(i act.Identity) bool { return i.Purpose == purpose && i.State == act.Active && !tainted[i.Name] }) {
			return true
		}
	}
	return false
}

func over(p connection.Replacement) bool {
	return p.State == connection.Done || p.State == connection.Undone || p.State == connection.Failed
}

// heal ends all trouble, and has everything come to its end.
func (w *history) heal() {
	w.keeper.SetAway(false)
	w.setToken(w.t, w.one.AdminToken)
	w.signIn(true)
	must(w.t, w.sim.Switch(w.one.EntraTenant, func(s *sim.Switches) { s.GraphThrottle = 0 }))
	w.clock.jump(0)
	w.busy = 0
	_, err := w.SetState(w.t.Context(), "token:1", "acme", "mailbox", connection.Enabled)
	must(w.t, err)
	w.removeInbounds(w.t, func(i admin.Inbound) bool {
		return i.Comment == "mine" && i.TlsSenderCertificateName == "mx.elsewhere.test"
	}) // made another's
	w.again()
	for range 3 {
		must(w.t, w.Care(w.t.Context()))
		w.drive()
		must(w.t, w.MakeStandby(w.t.Context(), "acme", "mailbox"))
	}
	if w.touched {
		s, err := w.SetUp(w.t.Context(), "token:1", "acme", "mailbox", connection.Grant{})
		must(w.t, err)
		if !s.OK {
			w.t.Errorf("%+v", s.Steps)
		}
	}
}

func (w *history) drive() {
	for range 60 {
		p, err := w.Replacement(w.t.Context(), "acme", "mailbox")
		if fault.Is(err, fault.Missing) || err == nil && over(p) {
			return
		}
		must(w.t, err)
		_ = w.step()
	}
	p, err := w.Replacement(w.t.Context(), "acme", "mailbox")
	w.t.Fatalf("no end: %+v, %v", p, err)
}

// final is what is true once all is over.
func (w *history) final() {
	w.whole(w.t)
	w.test(w.t)
	now := w.identities(w.t)
	all, err := w.Identities(w.t.Context(), "acme")
	must(w.t, err)
	counts := map[string]int{}
	for _, i := range all {
		counts[i.Purpose+" "+i.State]++
		if i.State == "compromised" && i.Purpose == now[i.Purpose].Purpose && i.Name == now[i.Purpose].Name {
			w.t.Errorf("%s is shown, and a key of it is compromised", i.Name)
		}
	}
	for _, purpose := range []string{"smtp-client", "entra-app"} {
		if counts[purpose+" active"] != 1 || counts[purpose+" issued"] != 1 || counts[purpose+" wanted"] != 0 {
			w.t.Errorf("there are %v", counts)
		}
	}
}

// mostOfProperties is how long random histories are played without
// -rapid.checks, which plays as many as it says.
const mostOfProperties = 6 * time.Second

// TestHistories plays random histories of replacements, renewals, compromises,
// undos, kills and trouble at the partner's. Whatever has happened, mail flows
// unless a compromise is being answered, and all ends with one identity of each
// purpose, known to the partner, and no way in for what was stolen.
func TestHistories(t *testing.T) {
	began, asked := time.Now(), false
	flag.Visit(func(f *flag.Flag) { asked = asked || strings.HasPrefix(f.Name, "rapid.") })
	rapid.Check(t, func(rt *rapid.T) {
		if !asked && time.Since(began) > mostOfProperties {
			return
		}
		d := &drawn{T: t, rt: rt}
		defer d.end()
		w := newHistory(d)
		rt.Repeat(w.actions())
		w.heal()
		w.final()
	})
}
