package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/alarm"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// figure is a keeper's state as the alarms are judged by it.
func (s keeperState) figure() alarm.Custody {
	c := alarm.Custody{Region: s.region}
	if s.err != nil {
		c.Away = fault.Sentence(s.err)
		return c
	}
	c.Frozen, c.ForGood, c.Breaker, c.BreakerWhy = s.state.Frozen, s.state.ForGood, s.state.Breaker, s.state.BreakerWhy
	for _, a := range s.state.Alarms {
		c.Recent = append(c.Recent, alarm.Notable{At: a.At, Kind: a.Kind, Tenant: a.Tenant, Text: a.Text})
	}
	return c
}

// checkCustody says whether keys are where the gateway's user cannot take
// them.
func (g *gateway) checkCustody(ctx context.Context) (bool, string, string) {
	why := map[string][]string{} // reason to regions
	var together []string
	for _, s := range g.keeperStates(ctx) {
		for _, reason := range s.none() {
			why[reason] = append(why[reason], s.region)
		}
		if g.cfg.Custody.standby() && s.together() {
			together = append(together, s.region)
		}
	}
	if files := g.filesLeft(); files != "" {
		why[files] = append(why[files], "this gateway")
	}
	switch {
	case len(why) > 0: // standbys that lie with the rest are the least of it
	case len(together) > 0:
		return false, "kept; standby identities lie under the same KEK as what they stand by for (" + strings.Join(together, ", ") + ")",
			"Whoever gets a keeper's folder and that KEK has the next identities too: give the keeper a [kek_standby], docs/operate.md, Custody."
	default:
		return true, "kept by a keeper of its own user, under a KEK that is not on its host", ""
	}
	return false, "custody: none; " + reasons(why),
		"For trying out only. Run a keeper as a user of its own, with a KEK in a service or a token: docs/operate.md, Custody."
}

// together reports whether a keeper that keeps has one KEK for everything. Where
// custody is none there is nothing that a second one would protect.
func (s keeperState) together() bool {
	return !s.asleep && s.err == nil && s.state.Custody == "kept" && s.state.StandbyDriver == ""
}

// none are the reasons why a region's custody is none.
func (s keeperState) none() []string {
	switch {
	case s.child && (s.asleep || s.err != nil):
		return []string{"The keeper is run by serve, under its own user."}
	case s.err != nil || s.state.Custody != "none":
		return nil
	}
	return s.state.Why
}

// filesLeft says which keys and passwords still are files of the gateway's.
func (g *gateway) filesLeft() string {
	pairs, secrets, identities := g.custody.files.Left()
	var all []string
	for _, one := range []struct {
		n    int
		what string
	}{{pairs, "server keys in tls/"}, {secrets, "passwords in secrets/"}, {identities, "identities in identities/"}} {
		if one.n > 0 {
			all = append(all, strconv.Itoa(one.n)+" "+one.what)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "files that the gateway's user can read: " + strings.Join(all, ", ")
}

// reasons lists each reason with whom it is of.
func reasons(why map[string][]string) string {
	var lines []string
	for reason, of := range why {
		lines = append(lines, reason+" ("+strings.Join(of, ", ")+")")
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// checkKeepers says which keepers are away, frozen or tripped, and what they
// have raised themselves.
func (g *gateway) checkKeepers(ctx context.Context) (bool, string, string) {
	var bad, fine []string
	fix := "Look at the keeper's log, and at: ledger search"
	for _, s := range g.keeperStates(ctx) {
		switch {
		case s.asleep:
			fine = append(fine, s.region+" not needed yet")
		case s.err != nil:
			bad = append(bad, s.region+": away ("+fault.Sentence(s.err)+")")
			fix = "Start the keeper. Mail that needs it waits in the queue, STARTTLS is answered with 454, and changes of credentials and identities fail until it is back."
		default:
			found := s.findings()
			if way := s.way(); way != "" {
				fix = way
			}
			bad = append(bad, found...)
			if len(found) == 0 {
				fine = append(fine, s.region+" "+strconv.FormatInt(s.state.Identities, 10)+" identities")
			}
		}
	}
	if len(bad) > 0 {
		return false, some(bad), fix
	}
	return true, strings.Join(fine, ", "), ""
}

// way is what lets a keeper that is frozen or tripped work again, "" for others.
func (s keeperState) way() string {
	lift := "sallyport order make lift-breaker --region " + s.region + " --key FILE --out FILE"
	switch tripped := s.state.Breaker == "tripped"; {
	case s.state.ForGood:
		return "Find out what was changed: sallyport ledger verify --region " + s.region + ". Then put a database of the keeper from before it back, of which the breaker's state is part too; no order thaws this."
	case s.state.Frozen != "":
		way := "Find out why. Put the newest database back, or let two operators sign an order that says which identities stay: sallyport order make thaw --region " + s.region + " --set keep=… --key FILE --out FILE"
		if tripped {
			way += ". It leaves the breaker tripped; that is lifted after it: " + lift
		}
		return way
	case tripped && s.state.BreakerWhy != "":
		return "Find out how that came about. Then let two operators sign: " + lift
	case tripped:
		return "Find out who opened so many credentials: sallyport ledger search --region " + s.region + " --act open-credential. Then let two operators sign: " + lift
	}
	return ""
}

// alarmsFor is how long doctor shows what a keeper has raised.
const alarmsFor = 24 * time.Hour

func (s keeperState) findings() []string {
	var out []string
	say := func(text string) { out = append(out, s.region+": "+text) }
	switch {
	case s.state.ForGood:
		say("frozen for good: " + s.state.Frozen)
	case s.state.Frozen != "":
		say("frozen: " + s.state.Frozen)
	}
	switch s.state.Breaker {
	case "", "watching":
	case "tripped":
		say("the breaker is tripped, because " + cmp.Or(s.state.BreakerWhy, "too many credentials were opened in a minute"))
	default:
		say("the breaker is in the state " + s.state.Breaker)
	}
	if s.state.Rotation != "" {
		say("KEK rotation: " + s.state.Rotation)
	}
	if s.state.StandbyAway != "" {
		say(s.state.StandbyAway + "; standbys are neither made nor used, and a replacement gets a new identity")
	}
	for _, a := range s.state.Alarms {
		if a.Kind == "standby" { // said above for as long as it is so
			continue
		}
		if time.Since(a.At) < alarmsFor {
			say("alarm " + a.Kind + ": " + a.Text + " (raised " + a.At.UTC().Format(time.RFC3339) + "; doctor shows it for a day)")
		}
	}
	return out
}

// logState is what is read of a ledger's status (ledger.Status).
type logState struct {
	Size      int64                  `json:"size"`
	Error     string                 `json:"error"`
	Witnesses []ledger.WitnessStatus `json:"witnesses"`
}

// checkLedger says which ledgers no witness watches, and which disagree.
func (g *gateway) checkLedger(ctx context.Context) (bool, string, string) {
	var without, bad, fine []string
	for _, s := range g.keeperStates(ctx) {
		if s.asleep || s.err != nil {
			continue
		}
		var l logState
		if err := json.Unmarshal(s.state.Ledger, &l); err != nil {
			bad = append(bad, s.region+": its state is not understood")
			continue
		}
		if l.Error != "" {
			bad = append(bad, s.region+": "+l.Error)
		}
		if len(l.Witnesses) == 0 {
			without = append(without, s.region)
		}
		for _, w := range l.Witnesses {
			switch {
			case w.RolledBack:
				bad = append(bad, s.region+": the witness "+w.Name+" has seen another or a longer log: the database is an old copy, or two are in use")
			case w.Error != "":
				bad = append(bad, s.region+": the witness "+w.Name+": "+w.Error)
			}
		}
		fine = append(fine, s.region+" "+strconv.FormatInt(l.Size, 10)+" entries")
	}
	switch {
	case len(bad) > 0:
		return false, some(bad), "Find out before anything else whether somebody put an old copy back; docs/ledger.md, Witnesses."
	case len(without) > 0:
		return false, "no witness: " + strings.Join(without, ", "), "An old copy that is put back, and a log shown in two versions, can't be told without one: add a [[witness]] to " + keeperConfigName + "."
	}
	return true, strings.Join(fine, ", "), ""
}

// outboxLate is when an event that waits is a finding.
const outboxLate = time.Minute

// checkOutbox says whether audit events reach the ledgers.
func (g *gateway) checkOutbox(ctx context.Context) (bool, string, string) {
	n, oldest, err := g.store.Outbox().Count(ctx)
	if err != nil {
		return false, err.Error(), "See the store's check."
	}
	if n > 0 && time.Since(oldest) > outboxLate {
		return false, strconv.FormatInt(n, 10) + " wait, the oldest since " + oldest.Format(time.RFC3339),
			"They are kept until their keeper takes them: see the check of the keepers, and the gateway's log."
	}
	return true, "reach the ledger", ""
}

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
