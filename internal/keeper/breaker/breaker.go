package breaker

import (
	"strconv"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// Config is what a breaker is made from.
type Config struct {
	Region string
	// Limit is the openings a minute without a campaign; 0 means 60.
	Limit int
	// Changed is told of each change of state, before the call that made it
	// returns. When it fails the change stands, and what was asked is refused.
	Changed func(Snapshot) error
	Now     func() time.Time
}

// Snapshot is what outlives a process.
type Snapshot struct {
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Campaign string    `json:"campaign,omitempty"` // its subject
	Rate     int       `json:"rate,omitempty"`     // openings a minute it may do
	Until    time.Time `json:"until,omitzero"`
	// Why it is tripped, in words, when nobody opened too many.
	Why string `json:"why,omitempty"`
}

const (
	defaultLimit = 60
	window       = 60 // seconds, one bucket each
	maxRate      = 100_000
	people       = 2
)

// Parameters of an order that opens a campaign.
const (
	RateParameter  = "rate"  // openings a minute
	UntilParameter = "until" // RFC 3339; at most a day ahead
)

// Breaker counts the openings of a region. It is safe for concurrent use.
type Breaker struct {
	c  Config
	mu sync.Mutex

	s       Snapshot
	buckets [window]int
	begin   time.Time
	last    int64     // second since begin of the newest bucket
	ends    time.Time // of a campaign that began in this process, by the clock that does not jump
}

// New makes a breaker that stands as the snapshot says; the zero Snapshot is
// one that is watching. The count begins anew: a keeper that is made to start
// again and again opens no more than the limit each time, and each start is
// entered in the ledger.
func New(c Config, s Snapshot) (*Breaker, error) {
	const op = "breaker.New"
	if c.Limit == 0 {
		c.Limit = defaultLimit
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if s.State == "" {
		s.State, s.Since = Watching, c.Now()
	}
	if c.Region == "" || c.Changed == nil || c.Limit < 1 {
		return nil, fault.New(fault.Invalid, op, "a breaker has a region, a limit, and somebody who keeps its state").WithHint("Give all three.")
	}
	if s.State != Watching && s.State != Campaign && s.State != Tripped {
		return nil, fault.New(fault.Invalid, op, "the breaker's state "+strconv.Quote(string(s.State))+" is not known").
			WithHint("Start the keeper of the version that wrote it.")
	}
	return &Breaker{c: c, s: s, begin: c.Now()}, nil
}

// Now is how the breaker stands.
func (b *Breaker) Now() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.s
}

// Open counts an opening and says whether it may be done; kind later when not:
// mail that needs the credential waits.
func (b *Breaker) Open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.c.Now()
	b.advance(now)
	if b.s.State == Campaign && b.over(now) {
		if err := b.move(Over, Snapshot{Since: now}); err != nil {
			return err
		}
	}
	event := Within
	if b.count() >= b.limit() {
		event = Beyond
	}
	after := b.s
	if to, _ := next(b.s.State, event); to != b.s.State {
		after = Snapshot{Since: now}
	}
	if err := b.move(event, after); err != nil {
		return err
	}
	if b.s.State == Tripped {
		return b.closed()
	}
	b.buckets[b.last%window]++
	return nil
}

// closed is the answer of a tripped breaker. The caller holds the lock.
func (b *Breaker) closed() error {
	text, hint := "the breaker of region "+b.c.Region+" is tripped: credentials stay closed", "Find out who opened so many, then let two operators sign an order that lifts it."
	if b.s.Why != "" {
		text, hint = text+", because "+b.s.Why, "When that is explained, let two operators sign an order that lifts it: order make lift-breaker --region "+b.c.Region
	}
	return fault.New(fault.Later, "breaker.Open", text).WithHint(hint)
}

// backStep is how far a clock may be set back without an end to a campaign.
const backStep = time.Minute

// over reports that a campaign has ended. A clock that is set back does not
// prolong one: it lasts no longer than it was to, and where that can't be told,
// since the process is another, it ends.
func (b *Breaker) over(now time.Time) bool {
	return !now.Before(b.s.Until) || !b.ends.IsZero() && !now.Before(b.ends) || now.Before(b.s.Since.Add(-backStep))
}

// Authorise opens a campaign by a verified order of two people: rate and end
// are in its parameters.
func (b *Breaker) Authorise(v operator.Verified) error {
	const op = "breaker.Authorise"
	if err := b.fits(op, v, operator.OpenCampaign); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.c.Now()
	o := v.Order()
	rate, err := strconv.Atoi(o.Parameters[RateParameter])
	until, err2 := time.Parse(time.RFC3339, o.Parameters[UntilParameter])
	if err != nil || err2 != nil || rate < 1 || rate > maxRate || !until.After(now) || until.Sub(now) > 24*time.Hour {
		return fault.New(fault.Invalid, op, "a campaign has a rate of 1 to 100,000 a minute and ends within a day").
			WithHint("Sign an order with the parameters " + RateParameter + " and " + UntilParameter + ".")
	}
	b.ends = now.Add(until.Sub(now))
	return b.move(Authorise, Snapshot{Since: now, Campaign: o.Subject, Rate: rate, Until: until.UTC()})
}

// Lift ends a trip by a verified order of two people.
func (b *Breaker) Lift(v operator.Verified) error {
	const op = "breaker.Lift"
	if err := b.fits(op, v, operator.LiftBreaker); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.move(Lift, Snapshot{Since: b.c.Now()})
}

// fits holds an order against what it is used for. Two people are asked for
// here too, whatever the rules were set to.
func (b *Breaker) fits(op string, v operator.Verified, act string) error {
	o := v.Order()
	if o.Act != act || o.Region != b.c.Region || len(v.Signers()) < people {
		return fault.New(fault.Denied, op, "this order is not for that, or not signed by two operators").
			WithHint("Sign an order of " + act + " for region " + b.c.Region + ", both of you.")
	}
	return nil
}

// move takes a row of the table. The caller holds the lock.
func (b *Breaker) move(e Event, after Snapshot) error {
	to, ok := next(b.s.State, e)
	if !ok {
		return fault.New(fault.Conflict, "breaker.Move", "a breaker that is "+string(b.s.State)+" knows no "+string(e)).
			WithHint("Look at its state first: a tripped one is lifted before a campaign begins.")
	}
	after.State = to
	if after == b.s {
		return nil
	}
	if to != b.s.State {
		b.buckets = [window]int{} // a new limit counts from nothing
	}
	b.s = after
	if err := b.c.Changed(after); err != nil {
		return fault.Wrap(fault.Later, "breaker.Move", err)
	}
	return nil
}

func (b *Breaker) limit() int {
	if b.s.State == Campaign {
		return b.s.Rate
	}
	return b.c.Limit
}

func (b *Breaker) count() int {
	n := 0
	for _, c := range b.buckets {
		n += c
	}
	return n
}

// advance empties the buckets of seconds gone by. They are counted from begin,
// which on time.Now is the monotonic clock, so a jump of the wall clock does
// nothing. Should a clock go back, the newest second stays the newest: nothing
// is forgotten early.
func (b *Breaker) advance(now time.Time) {
	to := int64(now.Sub(b.begin) / time.Second)
	for s := max(b.last+1, to-window+1); s <= to; s++ {
		b.buckets[s%window] = 0
	}
	b.last = max(b.last, to)
}
