package directory

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

const (
	yesFresh     = 24 * time.Hour
	noFresh      = 10 * time.Minute
	probeTime    = 10 * time.Second // then the server counts as away
	perTenant    = 4                // probes of one tenant at a time
	awayFor      = 5 * time.Second  // how long a server that is away is not asked again
	catchAll     = 24 * time.Hour   // between two looks whether a server accepts everything
	keepAnswers  = 180 * 24 * time.Hour
	keepCatchAll = 10_000 // answers kept of a domain whose server accepts everything
)

// prober asks tenants' servers about addresses.
type prober struct {
	c     Config
	known *memory
	idle  *idle

	// stop ends the probes under way: they do not hang on the session that
	// asked first, since others wait for the same answer.
	stop context.Context
	end  context.CancelFunc
	wait sync.WaitGroup

	mu      sync.Mutex
	flights map[name]*flight
	slots   map[string]*slots // by tenant
	away    map[name]time.Time
	domains map[name]*domainFacts // by tenant and domain
	closed  bool
}

// flight is a probe under way, with everybody who waits for it.
type flight struct {
	done chan struct{}
	ans  Answer
	text string
}

// slots bound the probes of one tenant; they exist while somebody uses them.
type slots struct {
	sem   chan struct{}
	users int
}

// domainFacts is what is known of a domain's server.
type domainFacts struct {
	asked  time.Time // when it was last asked for an address that nobody has
	all    bool      // it accepted it
	kept   int       // answers in the database, about
	counts bool      // kept has been read
}

func newProber(c Config) *prober {
	p := &prober{
		c: c, known: newMemory(), idle: newIdle(),
		flights: make(map[name]*flight), slots: make(map[string]*slots),
		away: make(map[name]time.Time), domains: make(map[name]*domainFacts),
	}
	p.stop, p.end = context.WithCancel(context.Background())
	return p
}

func (p *prober) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.wait.Wait()
	p.idle.close()
}

func (p *prober) forget() {
	p.known.clear()
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.domains)
	clear(p.away)
}

// check answers from what is remembered while that is fresh, else by asking.
func (p *prober) check(ctx context.Context, d tenant.Domain, a mail.Address) (Answer, string) {
	n := name{d.Tenant, a.Key()}
	f, ok, mark := p.known.get(n)
	if !ok {
		f = p.recall(ctx, n, mark)
	}
	if f.fresh(p.c.Now()) {
		return f.answer, f.text
	}
	return p.join(ctx, d, a, n)
}

func (f fact) fresh(now time.Time) bool {
	age := now.Sub(f.at)
	return f.answer == Known && age < yesFresh || f.answer == Unknown && f.text != "" && age < noFresh
}

// recall reads a "yes" of earlier from the database.
func (p *prober) recall(ctx context.Context, n name, mark uint64) fact {
	var at int64
	err := p.c.DB.For(n.tenant).Get(ctx, selectProbe, n.key).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return fact{}
	}
	if err != nil {
		p.c.Log.Error("earlier probes cannot be read", "tenant", n.tenant, "error", err)
		return fact{}
	}
	f := fact{answer: Known, at: time.UnixMicro(at), kept: true}
	p.known.putRead(n, f, mark)
	return f
}

// join waits for the probe of an address, and starts it when there is none.
func (p *prober) join(ctx context.Context, d tenant.Domain, a mail.Address, n name) (Answer, string) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return Later, "the gateway is stopping"
	}
	f := p.flights[n]
	if f == nil {
		// The last one may have landed since we looked.
		if known, _, _ := p.known.get(n); known.fresh(p.c.Now()) {
			p.mu.Unlock()
			return known.answer, known.text
		}
		f = &flight{done: make(chan struct{})}
		p.flights[n] = f
		p.wait.Go(func() { p.fly(f, d, a, n) })
	}
	p.mu.Unlock()
	select {
	case <-f.done:
		return f.ans, f.text
	case <-ctx.Done():
		return Later, "the recipient could not be checked in time"
	}
}

func (p *prober) fly(f *flight, d tenant.Domain, a mail.Address, n name) {
	ctx, cancel := context.WithTimeout(p.stop, probeTime)
	defer cancel()
	f.ans, f.text = p.answer(ctx, d, a, n)
	p.mu.Lock()
	delete(p.flights, n)
	p.mu.Unlock()
	close(f.done)
}

// answer turns what the server says into what we say.
func (p *prober) answer(ctx context.Context, d tenant.Domain, a mail.Address, n name) (Answer, string) {
	said, text := p.ask(ctx, d, a)
	// What was asked must be written down although the time is up.
	ctx = context.WithoutCancel(ctx)
	before, _, _ := p.known.get(n)
	now := p.c.Now()
	switch said {
	case Known:
		p.known.put(n, fact{answer: Known, at: now, kept: p.keep(ctx, d, n, now, before.kept)})
		return Known, ""
	case Unknown:
		if before.kept {
			p.drop(ctx, n)
		}
		p.known.put(n, fact{answer: Unknown, at: now, text: text})
		return Unknown, text
	}
	// The server is away. Whom it took before, whenever that was, it will take
	// again; about others nobody can tell.
	if before.answer == Known && !before.at.IsZero() {
		return Known, ""
	}
	return Later, text
}

// keep writes a "yes" down. A server that accepts everything is not allowed to
// fill the disk with what strangers make up.
func (p *prober) keep(ctx context.Context, d tenant.Domain, n name, at time.Time, before bool) bool {
	facts := p.facts(ctx, d)
	p.mu.Lock()
	full := facts.all && facts.kept >= keepCatchAll
	p.mu.Unlock()
	if full && !before {
		return false
	}
	err := p.c.DB.For(n.tenant).Change(ctx, func(tx store.TenantTx) error {
		_, err := tx.Exec(upsertProbe, n.key, d.Name, at.UnixMicro())
		return err
	})
	if err != nil {
		p.c.Log.Error("a probe's answer cannot be written down", "tenant", n.tenant, "error", err)
		return before
	}
	if !before {
		p.mu.Lock()
		facts.kept++
		p.mu.Unlock()
	}
	return true
}

// drop takes back a "yes".
func (p *prober) drop(ctx context.Context, n name) {
	err := p.c.DB.For(n.tenant).Change(ctx, func(tx store.TenantTx) error {
		_, err := tx.Exec(deleteProbe, n.key)
		return err
	})
	if err != nil {
		p.c.Log.Error("a probe's answer cannot be taken back", "tenant", n.tenant, "error", err)
	}
}

// facts are those of a domain, counted when first asked for.
func (p *prober) facts(ctx context.Context, d tenant.Domain) *domainFacts {
	n := name{d.Tenant, d.Name}
	p.mu.Lock()
	f := p.domains[n]
	if f == nil {
		f = &domainFacts{}
		p.domains[n] = f
	}
	counted := f.counts
	f.counts = true
	p.mu.Unlock()
	if counted {
		return f
	}
	var kept int
	if err := p.c.DB.For(d.Tenant).QueryRow(ctx, countProbes, d.Name).Scan(&kept); err == nil {
		p.mu.Lock()
		f.kept += kept
		p.mu.Unlock()
	}
	return f
}

func (p *prober) acceptsAll(tenant, domain string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.domains[name{tenant, domain}]
	return f != nil && f.all
}

// sweep forgets old answers.
func (p *prober) sweep(ctx context.Context) (removed int64, err error) {
	before := p.c.Now().Add(-keepAnswers).UnixMicro()
	err = p.c.DB.Operator("remove probe answers past their time").Change(ctx, func(tx store.OperatorTx) error {
		removed, err = tx.Exec(deleteOldProbes, before)
		return err
	})
	return removed, wrap("directory.Sweep", err)
}

// isAway spares a server that did not answer a moment ago, and its senders the
// wait for it.
func (p *prober) isAway(where name) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.away[where]
	if ok && !p.c.Now().Before(until) {
		delete(p.away, where)
		return false
	}
	return ok
}

func (p *prober) markAway(where name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away[where] = p.c.Now().Add(awayFor)
}

// slot waits for one of a tenant's places.
func (p *prober) slot(ctx context.Context, tenant string) (release func(), ok bool) {
	p.mu.Lock()
	s := p.slots[tenant]
	if s == nil {
		s = &slots{sem: make(chan struct{}, perTenant)}
		p.slots[tenant] = s
	}
	s.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(p.slots, tenant)
		}
	}
	select {
	case s.sem <- struct{}{}:
		return func() { <-s.sem; leave() }, true
	case <-ctx.Done():
		leave()
		return nil, false
	}
}
