package queue

import (
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/trace"
)

const (
	lostInARow     = 5 // sessions lost amid data before the host counts as down
	refusedInARow  = 5 // messages refused whole before the route counts as broken
	refusedTenants = 3 // and, at an MX set, of so many tenants
	// suddenly is how long ago a route must have worked for that: one that
	// never did, or refuses what it always refused, is not broken.
	suddenly = 24 * time.Hour
)

// learn draws from a verdict what it says about the destination, and lets the
// verdict stand or, where the destination is at fault, keep the mail. It
// reports whether the destination's row must be written.
func (q *Queue) learn(h *hand, it *Item, a Attempt, v *verdict) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := h.lane.dest
	d.skips = 0
	probe := d.probe == h.slot
	switch {
	case v.count(delivered) > 0:
		d.good = q.now()
		d.losses, d.refused = 0, streak{}
		d.known.learn(d, it, v)
		if limit := float64(q.limit(d.key)); d.room < limit {
			d.room = min(limit, d.room+1/max(1, d.room))
		}
		q.recover(d, "it took a message")
	case v.scope == ofHost:
		q.hostFailed(h, d, probe, v.last().String())
	case v.scope == ofRoute:
		if d.state != stopped || probe {
			q.trip(d, stopped, causeReply, v.last().String())
		}
	case a.Whole != nil && a.Whole.Code == 0:
		if d.losses++; d.losses >= lostInARow {
			q.hostFailed(h, d, probe, v.last().String())
		}
	case v.count(refused) == len(v.effects) && a.beforeContent() && !v.aboutContent():
		q.allRefused(d, it, v, probe)
	case d.state != up && d.cause != causeRefusals:
		q.recover(d, "it answers again")
	}
	return d.dirty
}

// beforeContent reports whether the far end answered without having seen the
// content: what it says about that says nothing about the route.
func (a *Attempt) beforeContent() bool {
	return a.Stage != "resolve" && a.Stage != "data" && a.Stage != "sent"
}

// aboutContent reports whether the message's size or form was the reason.
func (v *verdict) aboutContent() bool {
	r := v.last()
	return r.Code == 552 || r.Enhanced == "5.3.4" || strings.HasPrefix(r.Enhanced, "5.6.")
}

// hostFailed is one more failure of the host. Where other sessions got through
// since this one began it is only asked for less at a time; and what began
// before the trouble did says nothing new.
func (q *Queue) hostFailed(h *hand, d *destination, probe bool, reason string) {
	now := q.now()
	switch {
	case d.state == up && d.good.After(h.began):
		d.room = max(1, float64(d.slots)/2)
		d.pause = now.Add(2 * time.Second).UnixMicro()
		q.setAlarm(&d.alarm, d.pause)
	case d.state == up:
		q.trip(d, down, causeHost, reason)
	case probe:
		state, cause := d.state, d.cause
		q.trip(d, state, cause, reason)
	}
}

// allRefused counts messages that were refused whole. A route that suddenly
// refuses everybody is broken, and its mail is kept; those that were taken for
// refused before that was known are tried again.
func (q *Queue) allRefused(d *destination, it *Item, v *verdict, probe bool) {
	if d.state != up {
		if d.cause == causeRefusals {
			if probe {
				q.trip(d, stopped, causeRefusals, v.last().String())
			}
			v.keep()
			return
		}
		q.recover(d, "it answers again")
	}
	if v.unknown > 0 && !d.known.any(it) {
		return // strangers guess addresses
	}
	s := &d.refused
	if s.tenants == nil {
		s.tenants = map[string]bool{}
	}
	s.tenants[it.Tenant] = true
	if s.ids = append(s.ids, it.ID); len(s.ids) > 100 {
		s.ids = s.ids[1:]
	}
	if len(s.ids) < refusedInARow || (isInternet(d.key) && len(s.tenants) < refusedTenants) || q.now().Sub(d.good) > suddenly {
		return
	}
	q.retryLater = append(q.retryLater, s.ids[:len(s.ids)-1]...)
	q.trip(d, stopped, causeRefusals, v.last().String())
	v.keep()
}

// acquainted is the last recipients that a destination took, by a hash: what
// tells "no such user any more" from "no such user".
type acquainted struct {
	hashes []uint32 // nil until it takes a message
	next   int
}

// acquaintances is how many recipients are remembered.
const acquaintances = 64

func (k *acquainted) learn(d *destination, it *Item, v *verdict) {
	if isInternet(d.key) {
		return
	}
	at := 0
	for i := range it.Recipients {
		if it.Recipients[i].State != rcptQueued {
			continue
		}
		if v.effects[at] == delivered {
			if k.hashes == nil {
				k.hashes = make([]uint32, acquaintances)
			}
			if h := hash(&it.Recipients[i]); !slices.Contains(k.hashes, h) {
				k.hashes[k.next] = h
				k.next = (k.next + 1) % len(k.hashes)
			}
		}
		at++
	}
}

// any reports whether one of the waiting recipients is among them. Of the
// internet nothing is remembered: there every "no such user" is one.
func (k *acquainted) any(it *Item) bool {
	return slices.ContainsFunc(it.Recipients, func(r Recipient) bool {
		return r.State == rcptQueued && slices.Contains(k.hashes, hash(&r))
	})
}

func hash(r *Recipient) uint32 {
	h := fnv.New32a()
	io.WriteString(h, r.Address.Key())
	return max(1, h.Sum32())
}

// keep turns a verdict into "nothing happened to the recipients".
func (v *verdict) keep() {
	for i := range v.effects {
		v.effects[i] = stays
	}
}

// steps tells of an attempt: one step for each recipient, or one for all when
// the reply was one for all.
func (a *Attempt) steps(name string, it *Item, v verdict) []trace.Step {
	var steps []trace.Step
	at := 0
	for i := range it.Recipients {
		if it.Recipients[i].State != rcptQueued {
			continue
		}
		s := a.step(v, at)
		if name != "" {
			s.Step = name
		}
		at++
		if v.whole && len(v.effects) > 1 {
			return append(steps, s)
		}
		to := it.Recipients[i].Address.String()
		s.Recipient = &to
		steps = append(steps, s)
	}
	return steps
}

func (a *Attempt) step(v verdict, i int) trace.Step {
	s := trace.Step{Time: a.At, TLS: a.TLS}
	switch v.effects[i] {
	case delivered:
		s.Step = "delivered"
	case refused:
		s.Step = "failed"
	case stays:
		s.Step = "attempt"
	default:
		s.Step = "deferred"
	}
	r := v.replies[i]
	if a.Peer != "" {
		s.Peer = &a.Peer
	}
	if r.Code != 0 {
		s.Code = &r.Code
	}
	if r.Enhanced != "" {
		s.Enhanced = &r.Enhanced
	}
	text := r.Text
	if len(text) > 1000 {
		text = text[:1000]
	}
	s.Text = &text
	return s
}

func expiredStep(now time.Time) trace.Step {
	text := "delivery time expired"
	return trace.Step{Time: now, Step: "expired", Text: &text}
}
