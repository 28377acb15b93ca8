package deliver

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Config of the deliverer.
type Config struct {
	Queue         *queue.Queue
	Connections   *connection.Registry
	Tenants       *tenant.Registry
	Pools         []Pool
	Hostname      func(region string) string // EHLO name where a pool has none
	HostCeiling   int                        // connections to one remote address over all destinations; default 40
	Idle          time.Duration              // how long a connection is kept for more mail; default 5 s
	PerConnection int                        // messages on one connection; default 1000
	Log           *slog.Logger
	Now           func() time.Time
}

// Pool is an egress pool: source addresses with the EHLO name of each.
type Pool struct {
	Name    string
	Sources []Source
}

// Source is one source address.
type Source struct {
	Address netip.Addr
	Hello   string
}

// Times and bounds that nobody has had a reason to set.
const (
	// linger is how long a slot waits for one more item before it is given
	// back. It is short because slots are few; the connection itself is kept
	// in the idle pool for much longer.
	linger = 50 * time.Millisecond
	// routeAge is how long the answer of connection.Registry is used again,
	// and so how soon a changed connection takes effect on a busy one.
	routeAge = 5 * time.Second
	// shunAge is for how long a candidate that failed is tried last.
	shunAge = time.Minute
	// recordPatience is how long the final dot waits for the last report;
	// servers wait 5 minutes for content (RFC 5321 4.5.3.2.5).
	recordPatience = time.Minute
	// roomPatience is how long a slot waits for room below the host ceiling.
	roomPatience = 250 * time.Millisecond
	// lastWords is the time that reports get when the grace is over.
	lastWords = 5 * time.Second
	// maxTries is how many candidates one attempt tries.
	maxTries = 8
	// maxIdle and maxRoutes bound what is remembered.
	maxIdle   = 256
	maxRoutes = 4096
)

// Deliverer is the way out.
type Deliverer struct {
	queue    work
	routes   routes
	tenants  tenants
	egress   egress
	hostname func(string) string
	per      int
	log      *slog.Logger
	now      func() time.Time

	known    *routeTable
	idle     *idlePool
	sessions *sessions
	ceiling  *ceiling
	health   *healthNotes
	gate     gate

	running sync.WaitGroup // slots being served, connections saying QUIT
	// sending and recording are made by Run: transactions and reports outlive
	// the context that ends the taking of new ones.
	sending, recording context.Context
}

// New makes a deliverer; nothing runs before Run.
func New(c Config) *Deliverer {
	d := build(c, queueWork{c.Queue}, c.Connections, c.Tenants)
	c.Connections.OnRetire(d.retire)
	c.Connections.OnReturn(d.sessions.back)
	return d
}

// build is New behind the seams that tests replace.
func build(c Config, q work, r routes, t tenants) *Deliverer {
	d := &Deliverer{
		queue: q, routes: r, tenants: t,
		hostname: c.Hostname, per: orDefault(c.PerConnection, 1000),
		log: c.Log, now: c.Now,
		egress: newEgress(c.Pools),
		known:  newRouteTable(), sessions: newSessions(),
		ceiling: newCeiling(orDefault(c.HostCeiling, 40)),
		health:  newHealthNotes(),
	}
	d.idle = newIdlePool(orDefault(c.Idle, 5*time.Second), d.quit)
	return d
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Run delivers until ctx ends; then it finishes the transactions that have
// begun, up to grace, and returns.
func (d *Deliverer) Run(ctx context.Context, grace time.Duration) error {
	var stopSending, stopRecording context.CancelFunc
	d.sending, stopSending = context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	d.recording, stopRecording = context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecording()

	taking, stopTaking := context.WithCancel(ctx)
	swept := make(chan struct{})
	go func() { defer close(swept); d.idle.sweep(taking) }()
	err := d.take(taking)
	stopTaking()
	<-swept

	// The graces run down by timers, so that whoever is done earlier is not
	// waited for.
	defer time.AfterFunc(grace, stopSending).Stop()
	defer time.AfterFunc(grace+lastWords, stopRecording).Stop()
	d.idle.close()
	d.running.Wait()
	d.idle.close() // what came back from slots meanwhile
	d.running.Wait()
	return err
}

// take serves each slot in a goroutine of its own until ctx ends.
func (d *Deliverer) take(ctx context.Context) error {
	for {
		probe := d.gate.pass(ctx)
		s, err := d.queue.Slot(ctx)
		if ctx.Err() != nil {
			if err == nil {
				s.Release()
			}
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.KindOf(err), "deliver.Run", err)
		}
		if !probe && d.gate.closed.Load() {
			s.Release() // it shut while the slot was waited for
			continue
		}
		d.running.Go(func() { d.serve(ctx, s) })
	}
}
