package queue

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestStories plays testdata/*.case on each store. testdata/README.md says how
// a case is written.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.case")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s := testpeer.OpenStore(t, c)
		for i, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".case"), func(t *testing.T) {
				playStory(t, s, file, i)
			})
		}
	})
}

// story is a case being played. Each has a tenant of its own (%), so that all
// can use one store.
type story struct {
	*bench
	tenant string
	ids    map[string]string // item by name
	msgs   map[string]string // message by name
	where  string
}

func playStory(t *testing.T, s *store.Store, file string, n int) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st := &story{tenant: "t" + strconv.Itoa(n), ids: map[string]string{}, msgs: map[string]string{}}
	st.bench = newBench(t, s)
	lines := bufio.NewScanner(f)
	for at := 1; lines.Scan(); at++ {
		line := strings.TrimSpace(strings.ReplaceAll(lines.Text(), "%", st.tenant))
		if line == "" || line[0] == '#' {
			continue
		}
		st.where = fmt.Sprintf("%s:%d: %s", filepath.Base(file), at, line)
		st.play(strings.Fields(line))
		if t.Failed() {
			t.FailNow()
		}
	}
	if _, err := st.q.Drop(t.Context(), "end", Filter{Tenant: st.tenant}, ""); err != nil {
		t.Error(err)
	}
}

// options are the words "name=value" of a line.
func options(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			m[k] = v
		} else {
			m[w] = "yes"
		}
	}
	return m
}

func (st *story) play(w []string) {
	st.Helper()
	o := options(w[1:])
	var err error
	ctx := st.Context()
	switch w[0] {
	case "put":
		st.accept(w[1], o)
	case "try":
		st.try(w[1], w[2:])
	case "idle":
		if s := st.slotFor(w[1]); s != nil {
			st.Errorf("%s: a slot was given", st.where)
		}
	case "step":
		d, e := time.ParseDuration(w[1])
		if e != nil {
			st.Fatal(e)
		}
		st.clock.step(d)
		st.fill()
	case "restart":
		st.open()
	case "round":
		err = st.q.round(ctx, 0)
	case "item":
		st.item(w[1], o)
	case "message":
		st.message(w[1], o)
	case "destination":
		st.destination(w[1], o)
	case "notices":
		st.notices(w[1], o["status"])
	case "count":
		st.count(o)
	case "stop":
		err = st.q.SetStop(ctx, Stop{Scope: o["scope"], Value: o["value"], Actor: "op"})
	case "lift":
		err = st.q.LiftStop(ctx, o["scope"], o["value"])
	case "resume":
		err = st.q.Resume(ctx, "op", w[1])
	default:
		st.act(w[0], o)
	}
	if err != nil {
		st.Errorf("%s: %v", st.where, err)
	}
	st.fill()
}

func (st *story) accept(name string, o map[string]string) {
	m := st.bench.message(st.tenant, o["dest"], o["from"], strings.Split(o["to"], ",")...)
	it := &m.Items[0]
	it.Own = o["own"] != ""
	it.State = State(o["state"])
	it.Params.Ret = o["ret"]
	if o["out"] != "" {
		it.Direction = "outbound"
	}
	for i := range it.Recipients {
		it.Recipients[i].Notify = o["notify"]
	}
	m = st.bench.put(m)
	st.ids[name], st.msgs[name] = m.Items[0].ID, m.Summary.ID
}

// slotFor takes slots until one is for the destination.
func (st *story) slotFor(destination string) *Slot {
	var others []*Slot
	defer func() {
		for _, s := range others {
			s.Release()
		}
	}()
	for {
		s := st.slot()
		if s == nil || s.Destination == destination {
			return s
		}
		others = append(others, s)
	}
}

// try leases the next item of a destination and reports an attempt:
// try DEST ITEM stage=S (whole|each) CODE[/ENHANCED]...
func (st *story) try(destination string, w []string) {
	st.Helper()
	s := st.slotFor(destination)
	if s == nil {
		st.Fatalf("%s: no slot", st.where)
	}
	defer s.Release()
	ctx, cancel := context.WithTimeout(st.Context(), 5*time.Second)
	defer cancel()
	it, ok := s.Next(ctx, 0)
	if !ok {
		if w[0] != "nothing" {
			st.Errorf("%s: no item", st.where)
		}
		return
	}
	if st.ids[w[0]] != it.ID && w[0] != "any" {
		st.Fatalf("%s: got another item: %s", st.where, it.ID)
	}
	a := Attempt{Peer: "mx.far", Stage: "sent"}
	whole := false
	for _, x := range w[1:] {
		switch k, v, _ := strings.Cut(x, "="); {
		case k == "stage":
			a.Stage = v
		case k == "skipped":
			a.Skipped = true
		case k == "dsn":
			a.DSN = true
		case k == "whole":
			whole = true
		case k == "each":
		default:
			a.Replies = append(a.Replies, storyReply(st.T, x))
		}
	}
	if whole {
		a.Whole, a.Replies = &a.Replies[0], nil
	}
	if err := st.q.Report(ctx, it, a); err != nil {
		st.Errorf("%s: %v", st.where, err)
	}
}

func storyReply(t *testing.T, s string) mail.Reply {
	code, enhanced, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(code)
	if err != nil {
		t.Fatal(err)
	}
	return mail.Reply{Code: n, Enhanced: enhanced, Text: "words"}
}

// item compares an item with what is expected.
func (st *story) item(name string, o map[string]string) {
	st.Helper()
	it, err := st.q.Show(st.Context(), st.tenant, st.ids[name])
	if fault.Is(err, fault.Missing) && o["state"] == "gone" {
		return
	}
	if err != nil {
		st.Fatalf("%s: %v", st.where, err)
	}
	check := func(key, got string) {
		if want, asked := o[key]; asked && want != got {
			st.Errorf("%s: %s is %q", st.where, key, got)
		}
	}
	check("state", string(it.State))
	check("attempts", strconv.Itoa(it.Attempts))
	check("reason", it.Reason)
	check("dest", it.Destination)
	check("waiting", strconv.Itoa(it.waiting()))
	check("code", strconv.Itoa(it.Last.Code))
}

func (st *story) message(name string, o map[string]string) {
	st.Helper()
	m, steps, err := st.log.Show(st.Context(), st.tenant, st.msgs[name])
	if err != nil {
		st.Fatalf("%s: %v", st.where, err)
	}
	if want, ok := o["state"]; ok && m.State != want {
		st.Errorf("%s: state is %s", st.where, m.State)
	}
	if want, ok := o["steps"]; ok {
		var names []string
		for _, s := range steps {
			names = append(names, s.Step)
		}
		if got := strings.Join(names, ","); got != want {
			st.Errorf("%s: steps are %s", st.where, got)
		}
	}
}

func (st *story) destination(key string, o map[string]string) {
	st.Helper()
	list, err := st.q.Destinations(st.Context(), "")
	if err != nil {
		st.Fatal(err)
	}
	i := slices.IndexFunc(list, func(d Destination) bool { return d.Key == key })
	if i < 0 {
		if o["state"] != "gone" {
			st.Errorf("%s: there is none", st.where)
		}
		return
	}
	if want := o["state"]; want != "" && list[i].State != want {
		st.Errorf("%s: state is %s", st.where, list[i].State)
	}
	if want := o["queued"]; want != "" && strconv.FormatInt(list[i].Queued, 10) != want {
		st.Errorf("%s: %d queued", st.where, list[i].Queued)
	}
}

// notices takes the notifications that wait at the tenant's mailbox, and
// compares what kinds they are, in order, and the status that they tell.
func (st *story) notices(want, status string) {
	st.Helper()
	var kinds []string
	for {
		s := st.slotFor(st.tenant + "/mailbox")
		if s == nil {
			break
		}
		it, ok := s.Next(st.Context(), 0)
		if !ok {
			s.Release()
			break
		}
		if !it.From.IsNull() || it.Own {
			st.Errorf("%s: a notification from %s", st.where, it.From)
		}
		kind, told := st.told(it)
		if kinds = append(kinds, kind); status != "" && told != status {
			st.Errorf("%s: the notification tells of %s", st.where, told)
		}
		if err := st.q.Report(st.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
			st.Error(err)
		}
		s.Release()
	}
	got := strings.Join(kinds, ",")
	if got == "" {
		got = "none"
	}
	if got != want {
		st.Errorf("%s: notices are %s", st.where, got)
	}
}

// told reads the first recipient's part of a notification.
func (st *story) told(it *Item) (kind, status string) {
	r, err := st.q.Open(st.Context(), it)
	if err != nil {
		st.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		st.Fatal(err)
	}
	field := func(name string) string {
		_, rest, _ := strings.Cut(string(text), "\r\n"+name+": ")
		value, _, _ := strings.Cut(rest, "\r\n")
		return value
	}
	if !strings.Contains(string(text), "Subject: hello") {
		st.Errorf("%s: the notification does not quote the original", st.where)
	}
	return field("Action"), field("Status")
}

func (st *story) count(o map[string]string) {
	st.Helper()
	list, _, err := st.q.List(st.Context(), Filter{Tenant: st.tenant, Limit: 1000})
	if err != nil {
		st.Fatal(err)
	}
	n := map[string]int{}
	for _, x := range list {
		n[string(x.State)]++
	}
	for k, want := range o {
		if strconv.Itoa(n[k]) != want {
			st.Errorf("%s: %d %s", st.where, n[k], k)
		}
	}
}

// act is a bulk act: hold, release, retry, drop, reroute with filter words and
// the number of items that it changes.
func (st *story) act(verb string, o map[string]string) {
	st.Helper()
	f := Filter{Tenant: st.tenant, Destination: o["dest"], Reason: o["reason"], Item: st.ids[o["item"]], Message: st.msgs[o["message"]]}
	if o["older"] != "" {
		f.OlderThan, _ = time.ParseDuration(o["older"])
	}
	if o["state"] != "" {
		f.States = []State{State(o["state"])}
	}
	ctx := st.Context()
	var n int
	var err error
	switch verb {
	case "hold":
		n, err = st.q.Hold(ctx, "op", f, o["why"])
	case "release":
		n, err = st.q.Unhold(ctx, "op", f)
	case "retry":
		n, err = st.q.Retry(ctx, "op", f)
	case "drop":
		n, err = st.q.Drop(ctx, "op", f, o["why"])
	case "reroute":
		n, err = st.q.Reroute(ctx, "op", f, o["to"], "other")
	default:
		st.Fatalf("%s: no such verb", st.where)
	}
	if err != nil || strconv.Itoa(n) != o["n"] {
		st.Errorf("%s: %d items, %v", st.where, n, err)
	}
}
