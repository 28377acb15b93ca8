package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// shortened is a keeper whose ledger does not open: the last five of its entries
// are gone. It returns how many are left, and how many were signed.
func shortened(t *testing.T, r *rig) (again *rig, left, signed int64) {
	t.Helper()
	for i := range 20 {
		if err := r.enter(t.Context(), ledger.Entry{Act: "x", Subject: fmt.Sprint("subject ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	r.boundAll(t, "acme")
	r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	r.end()
	r = r.again(t)
	signed = r.ledger.Size()
	if _, err := r.ledger.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.edit(t, `DELETE FROM ledger_entry WHERE idx >= $1`, signed-5)
	r.end()
	return r.again(t), signed - 5, signed
}

// asked calls an act by its name with a request, and gives its error.
func (r *rig) asked(t *testing.T, method reflect.Method, request any) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panics: %v", p)
		}
	}()
	f := reflect.ValueOf(r.Keeper).MethodByName(method.Name)
	in := []reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(someone())}
	q := reflect.New(f.Type().In(2)).Elem()
	if request != nil {
		q.Set(reflect.ValueOf(request))
	}
	if c := q.FieldByName("Context"); c.Interface() == (act.Context{}) {
		c.Set(reflect.ValueOf(of("acme", ofClient)))
	}
	in = append(in, q)
	if f.Type().NumIn() == 4 {
		in = append(in, reflect.ValueOf(new(bytes.Buffer)))
	}
	out := f.Call(in)
	err, _ = out[len(out)-1].Interface().(error)
	return err
}

// Every act there is finds a keeper whose ledger does not open frozen for good,
// but for those that need no entry.
func TestUnopenedActs(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r, left, signed := shortened(t, r)
		order := func(name string) act.SignedOrder {
			return act.SignedOrder{Order: signOrder(t, name, "", nil, s.anna, s.bert)}
		}
		region := act.Context{Region: "us", Purpose: "list", Trace: "t"}
		requests := map[string][]any{
			"Order":           {order(operator.Thaw), order(operator.Restore), order(operator.LiftBreaker), act.SignedOrder{}},
			"ListIdentities":  {nil, act.IdentityQuery{Context: region}, act.IdentityQuery{Context: region, Identity: "x"}},
			"OpenCredential":  {act.Plain{Context: about(purposeAuth)}},
			"SetCredential":   {act.NewCredential{Context: about(purposeAuth), User: "u", Password: "p"}},
			"EnterEvents":     {act.Events{Events: []act.Event{{Key: "k", Actor: "a", Act: "x"}}}},
			"ReportSighting":  {act.Sighting{Code: "us.x"}},
			"HostCertificate": {act.Host{Host: "mx.us.gate.example"}},
		}
		right := map[string]bool{"Status": true, "ExportLedger": true}
		acts := reflect.TypeFor[wire.Acts]()
		for i := range acts.NumMethod() {
			m := acts.Method(i)
			all := requests[m.Name]
			if all == nil {
				all = []any{nil}
			}
			for _, q := range all {
				switch err := r.asked(t, m, q); {
				case m.Name == "AcmeChallenge":
					if !fault.Is(err, fault.Missing) {
						t.Errorf("%s: %v", m.Name, err)
					}
				case right[m.Name]:
					if err != nil {
						t.Errorf("%s: %v", m.Name, err)
					}
				case !fault.Is(err, fault.Later) || !strings.Contains(fault.Sentence(err), "frozen for good") || !strings.Contains(fault.HintOf(err), "Put a database from before"):
					t.Errorf("%s: %v (%s)", m.Name, err, fault.HintOf(err))
				}
			}
		}
		r.unopenedStatus(t, left, signed)
		if got := r.audit(t); got.OK || len(got.Problems) != 1 || got.Problems[0].Index != left || !strings.Contains(got.Problems[0].What, fmt.Sprint(signed)) {
			t.Errorf("%+v", got.Problems)
		}
	}, s.known)
}

// unopenedStatus holds that the status of such a keeper says what its database
// has, and does not speak of openings.
func (r *rig) unopenedStatus(t *testing.T, left, signed int64) {
	t.Helper()
	st, err := r.Status(t.Context(), someone(), act.Plain{})
	if err != nil {
		t.Fatal(err)
	}
	var log struct {
		Size       int64
		Checkpoint *struct{ Size int64 }
		Error      string
	}
	if err := json.Unmarshal(st.Ledger, &log); err != nil {
		t.Fatal(err)
	}
	if !st.ForGood || log.Size != left || log.Checkpoint == nil || log.Checkpoint.Size < signed || !strings.Contains(log.Error, "the ledger ends after") {
		t.Errorf("for good: %t; %s", st.ForGood, st.Ledger)
	}
	if st.Breaker != "tripped" || !strings.Contains(st.BreakerWhy, "the ledger does not open") {
		t.Errorf("%s: %q", st.Breaker, st.BreakerWhy)
	}
}

// Where nobody can say how many entries there are, the status says so too.
func TestUnopenedUnreadable(t *testing.T) {
	r, _, _ := shortened(t, newRig(t))
	r.edit(t, `DROP TABLE ledger_checkpoint`)
	st, err := r.Status(t.Context(), someone(), act.Plain{})
	if err != nil || !strings.Contains(string(st.Ledger), `"size":null`) || !strings.Contains(string(st.Ledger), "not readable") {
		t.Errorf("%s: %v", st.Ledger, err)
	}
}

// The keeper's own acts and what it does in the background stand still too.
func TestUnopenedOwnActs(t *testing.T) {
	r, _, _ := shortened(t, newRig(t))
	err := r.own(t.Context(), ownAct{name: "x"}, func(context.Context) error { return errors.New("it was done") })
	if !fault.Is(err, fault.Later) || r.holding.Load() {
		t.Errorf("%v; it holds: %t", err, r.holding.Load())
	}
	r.alarm(alarmDecoy, "acme", "seen")
	if !r.hasAlarm(alarmDecoy) {
		t.Error("no alarm")
	}
}

// A keeper that was thawed after its memory was edited says why its breaker
// still is tripped.
func TestTrippedWhy(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")
	r.edit(t, `UPDATE keeper_state SET value = '{"state":"watching"}' WHERE name = 'manifest'`)
	r.end()
	r = r.again(t)
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": "all"}, s.anna, s.bert)); err != nil {
		t.Fatal(err)
	}
	r.end()
	r = r.again(t) // it is kept
	st, err := r.Status(t.Context(), someone(), act.Plain{})
	if err != nil || st.ForGood || st.Frozen != "" || st.Breaker != "tripped" || !strings.Contains(st.BreakerWhy, "was edited") {
		t.Errorf("%+v: %v", st, err)
	}
	if _, err := r.open("acme/mailbox"); !strings.Contains(err.Error(), "was edited") || strings.Contains(fault.HintOf(err), "who opened") || !strings.Contains(fault.HintOf(err), "lift-breaker") {
		t.Errorf("%v: %s", err, fault.HintOf(err))
	}
	if _, err := r.order(t, signOrder(t, operator.LiftBreaker, "", nil, s.anna, s.bert)); err != nil {
		t.Fatal(err)
	}
	if st, err := r.Status(t.Context(), someone(), act.Plain{}); err != nil || st.Breaker != "watching" || st.BreakerWhy != "" {
		t.Errorf("%+v: %v", st, err)
	}
}
