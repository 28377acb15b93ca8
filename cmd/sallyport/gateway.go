package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/alarm"
	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/deliver"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/edge"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/outbox"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// gateway is a running gateway: its rooms in the order in which they were
// made.
type gateway struct {
	dir string
	cfg config
	log *slog.Logger

	store       *store.Store
	tenants     *tenant.Registry
	custody     *custody
	signers     client.Signers // of connections: custody, but in a benchmark
	resolver    dns.Resolver
	connections *connection.Registry
	directory   *directory.Directory
	trace       *trace.Log
	queue       *queue.Queue
	edge        *edge.Edge
	deliverer   *deliver.Deliverer
	alarm       *alarm.Watch
	outbox      *outbox.Carrier
	smtp        []*smtp.Server // one a listener
	http        *http.Server

	listeners []net.Listener
	api       net.Listener
	failed    chan error // the first thing that ended by itself
	stopRooms []func()   // ends the background work, last started first
	running   sync.WaitGroup
	closers   []func(context.Context) error // of what knows things in memory only

	keepers keepers // what has the ledgers; nil: there is none
}

// startGateway opens, constructs in order, and runs. What was opened is closed
// again when a later step fails.
func startGateway(ctx context.Context, dir string, cfg config, log *slog.Logger) (*gateway, error) {
	g := &gateway{dir: dir, cfg: cfg, log: log, failed: make(chan error, 1)}
	for _, step := range []func(context.Context) error{
		g.openStore, g.openTenants, g.openCustody, g.openConnections, g.openRoad, g.openEdge, g.openOutbox, g.openAlarm, g.openAPI, g.openChallenges, g.listen,
	} {
		if err := step(ctx); err != nil {
			g.close()
			return nil, err
		}
	}
	g.run()
	return g, nil
}

func (g *gateway) openStore(ctx context.Context) (err error) {
	g.store, err = store.Open(ctx, store.Config{
		Dir: g.dir, URL: g.cfg.Store, RowLimit: g.cfg.RowLimit, Reserve: g.cfg.ReserveMiB << 20, Log: g.log, Now: time.Now,
	})
	return err
}

func (g *gateway) openTenants(ctx context.Context) (err error) {
	g.tenants, err = tenant.New(ctx, tenant.Config{DB: g.store.Control, Regions: g.cfg.Regions, Log: g.log, Now: time.Now})
	if err != nil {
		return err
	}
	g.closers = append(g.closers, g.tenants.Close)
	token, err := operatorToken(g.dir)
	if err != nil {
		return err
	}
	return g.tenants.ImportToken(ctx, strings.TrimSpace(token))
}

func (g *gateway) openConnections(ctx context.Context) (err error) {
	if g.resolver, err = dns.New(g.cfg.DNS.Servers); err != nil {
		return err
	}
	g.connections, err = connection.New(ctx, connection.Config{
		DB: g.store.Control, Tenants: g.tenants, Resolver: g.resolver, Signers: g.signers, Credentials: g.custody,
		Keepers: g.keeperOf, Standby: g.cfg.Custody.standby(), Flow: g.flow, Changed: g.resumeChanged, MXPort: g.cfg.DNS.MXPort, IsLocal: g.cfg.isOurs(), Hello: g.cfg.hostname(""), Dress: g.dress, Timeouts: g.cfg.Delivery.timeouts(),
		Log: g.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	g.closers = append(g.closers, g.connections.Close)
	g.directory, err = directory.New(ctx, directory.Config{
		DB: g.store.Control, Tenants: g.tenants, Connections: g.connections, Hello: g.cfg.hostname(""), Log: g.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	g.closers = append(g.closers, func(context.Context) error { g.directory.Close(); return nil })
	return nil
}

func (g *gateway) openRoad(ctx context.Context) (err error) {
	g.trace, err = trace.New(trace.Config{Road: g.store.Road, Trace: g.store.Trace, Log: g.log, Now: time.Now, Keep: g.traceKept})
	if err != nil {
		return err
	}
	g.queue, err = queue.New(ctx, queue.Config{
		Store: g.store, Trace: g.trace, Log: g.log, Now: time.Now, Slots: orDefault(g.cfg.Delivery.Slots, defaultSlots),
		Limit: g.concurrency, Times: g.deliveryTimes, KeepFailed: g.failedKept, Bounce: g.bounceRoute, Hostname: g.tenantHostname,
	})
	if err != nil {
		return err
	}
	pools, err := g.cfg.pools()
	if err != nil {
		return err
	}
	g.deliverer = deliver.New(deliver.Config{
		Queue: g.queue, Connections: g.connections, Tenants: g.tenants, Pools: pools, Hostname: g.cfg.hostname,
		HostCeiling: g.cfg.Delivery.HostCeiling, Log: g.log, Now: time.Now,
	})
	return nil
}

func (g *gateway) openEdge(context.Context) error {
	g.edge = edge.New(edge.Config{
		Store: g.store, Tenants: g.tenants, Connections: g.connections, Directory: g.directory, Queue: g.queue, Trace: g.trace,
		Limits: g.cfg.edgeLimits(), Hostname: g.cfg.hostname,
		Postmaster: mail.Address{Local: "postmaster", Domain: g.cfg.BaseDomain}, Log: g.log, Now: time.Now,
	})
	for _, l := range g.cfg.Listeners {
		g.smtp = append(g.smtp, &smtp.Server{Backend: g.edge.Backend(l.edgeKind(), l.Region), Log: g.log, Now: time.Now})
	}
	return nil
}

// listen binds every address before anything runs, so that a port in use is
// said at once.
func (g *gateway) listen(ctx context.Context) error {
	for _, l := range g.cfg.Listeners {
		ln, err := smtp.Listen(ctx, "tcp", l.Address)
		if err != nil {
			return fault.New(fault.Conflict, "", "cannot listen on "+l.Address+": "+err.Error()).
				WithHint("Stop what uses the port, or change the listener in " + configName + ".")
		}
		g.listeners = append(g.listeners, ln)
	}
	return nil
}

// run starts the background work and the listeners. Order matters only at the
// stop: what takes mail in ends first, what records it last.
func (g *gateway) run() {
	g.background("trace", g.trace.Run)
	g.background("queue", g.queue.Run)
	g.background("connections", g.connections.Run)
	g.background("deliver", func(ctx context.Context) error { return g.deliverer.Run(ctx, drainTime/2) })
	g.background("housekeeping", g.keepHouse)
	g.background("outbox", g.outbox.Run)
	g.background("secrets", g.bringSecrets)
	g.background("keepers", g.resumeAfterKeepers)
	g.background("alarm", g.alarm.Run)
	for i, l := range g.cfg.Listeners {
		rules := g.rules(l)
		g.running.Go(func() { g.ended("smtp", g.smtp[i].Serve(g.listeners[i], rules)) })
	}
	g.running.Go(func() { g.ended("api", g.http.Serve(g.api)) })
}

// background runs one room's work until the gateway stops.
func (g *gateway) background(name string, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	g.stopRooms = append(g.stopRooms, func() { cancel(); <-done })
	g.running.Go(func() {
		defer close(done)
		if err := work(ctx); err != nil && ctx.Err() == nil {
			g.ended(name, err)
		}
	})
}

// ended notes what ended by itself; the first of them stops the gateway.
func (g *gateway) ended(what string, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return
	}
	select {
	case g.failed <- fault.Wrap(fault.KindOf(err), what, err):
	default:
	}
}

// stop drains: sessions in DATA and deliveries under way end, then the rooms.
func (g *gateway) stop(ctx context.Context) error {
	err := g.drain(ctx)
	for i := len(g.stopRooms) - 1; i >= 0; i-- {
		g.stopRooms[i]()
	}
	err = errors.Join(err, g.http.Shutdown(ctx))
	g.running.Wait()
	return errors.Join(err, g.close())
}

// drain ends all listeners at once, each letting its sessions in DATA finish.
func (g *gateway) drain(ctx context.Context) error {
	errs := make([]error, len(g.smtp))
	var wg sync.WaitGroup
	for i, s := range g.smtp {
		wg.Go(func() { errs[i] = s.Shutdown(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close closes what startGateway opened.
func (g *gateway) close() error {
	for _, ln := range g.listeners {
		ln.Close()
	}
	if g.api != nil {
		g.api.Close()
	}
	if g.store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for i := len(g.closers) - 1; i >= 0; i-- {
		errs = append(errs, g.closers[i](ctx))
	}
	return errors.Join(append(errs, g.store.Close())...)
}

func (g *gateway) addresses() []string {
	var out []string
	for i, l := range g.cfg.Listeners {
		out = append(out, l.Kind+" "+g.listeners[i].Addr().String())
	}
	return out
}

func (g *gateway) apiAddress() string { return g.api.Addr().String() }

// rules are a listener's rules on the wire.
func (g *gateway) rules(l listenerConfig) smtp.Listener {
	r := smtp.Listener{
		Name: l.name(),
		Hostname: func(*smtp.Conn) string {
			return g.cfg.hostname(l.Region)
		},
		TLS:          listenerTLS(g.cfg, l, g.custody),
		TLSReady:     g.tlsReady(l),
		ImplicitTLS:  l.Kind == "submissions",
		Auth:         l.edgeKind() == edge.Submission,
		InsecureAuth: l.InsecureAuth,
		MaxSize:      orDefault(l.MaxSizeMiB, 50) << 20,
		MaxRcpt:      orDefault(l.MaxRecipients, 500),
		MaxConns:     orDefault(l.MaxConnections, maxConnections),

		MaxErrors: maxErrors, MaxLine: maxLine, MinDataRate: minDataRate,
		EvictSilent: evictSilent, EvictIdle: evictIdle, FirstCommandTimeout: firstCommand,
		CommandTimeout: commandTime, DataTimeout: dataTime, TransactionTimeout: transactionTime,
	}
	for _, p := range l.Proxy {
		r.Proxy = append(r.Proxy, netip.MustParsePrefix(p)) // checked when the settings were read
	}
	return r
}

func orDefault[T int | int64](v, d T) T {
	if v > 0 {
		return v
	}
	return d
}

// concurrency is how many connections a destination may have.
func (g *gateway) concurrency(destination string) int {
	kind, rest, _ := strings.Cut(destination, ":")
	if kind == "t" {
		name, conn, _ := strings.Cut(rest, ":")
		if c, ok := g.connections.Get(name, conn); ok && c.Concurrency > 0 {
			return c.Concurrency
		}
	}
	return 20
}

func (g *gateway) traceKept(name string) time.Duration {
	t, _ := g.tenants.Tenant(name)
	return time.Duration(orDefault(t.Settings.TraceDays, 30)) * 24 * time.Hour
}

// deliveryTimes are how long delivery of a tenant's mail is tried, and when
// its own senders are told of a delay.
func (g *gateway) deliveryTimes(name string) (expiry, notice time.Duration) {
	t, _ := g.tenants.Tenant(name)
	s := t.Settings
	expiry = time.Duration(orDefault(s.ExpiryHours, 120)) * time.Hour
	if s.DelayNoticeHours >= 0 {
		notice = time.Duration(orDefault(s.DelayNoticeHours, 4)) * time.Hour
	}
	return expiry, notice
}

// failedKept is how long a tenant's finally refused mail is kept.
func (g *gateway) failedKept(name string) time.Duration {
	t, _ := g.tenants.Tenant(name)
	return time.Duration(orDefault(t.Settings.FailedDays, 14)) * 24 * time.Hour
}

// bounceRoute is the way to one of our own tenants' senders.
func (g *gateway) bounceRoute(name string, to mail.Address) (destination, conn string, ok bool) {
	d, found := g.tenants.Domain(to.Domain)
	if !found || d.Tenant != name {
		return "", "", false
	}
	r, err := g.connections.Inbound(name, to.Domain)
	if err != nil {
		return "", "", false
	}
	return r.Destination, r.Connection, true
}

func (g *gateway) tenantHostname(name string) string {
	t, _ := g.tenants.Tenant(name)
	return g.cfg.hostname(t.Region)
}

// sweepEvery is how often what nobody needs any more is looked for. A body
// file that no row names goes at the second look after 24 hours.
const sweepEvery = 6 * time.Hour

// keepHouse removes body files that no row names, and answers of probes that
// nobody asked for in a long time.
func (g *gateway) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			files, err := g.store.Bodies.Sweep(ctx)
			answers, err2 := g.directory.Sweep(ctx)
			g.log.Info("swept", "body_files", files, "probe_answers", answers, "error", errors.Join(err, err2))
		}
	}
}
