package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/pkcs11"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// keeperCmd is the keeper; init makes its folder.
type keeperCmd struct {
	Run        keeperRunCmd        `cmd:"" default:"withargs" help:"Run the keeper of one region; the word run may be left out. DIR is the keeper's own folder."`
	Init       keeperInitCmd       `cmd:"" help:"Make the folder of a keeper."`
	CreateKEK  keeperCreateKEKCmd  `cmd:"" name:"create-kek" help:"Make the KEK that keeper.toml names: the region's in its PKCS#11 token, or that of standbys."`
	Passphrase keeperPassphraseCmd `cmd:"" help:"Give the KEK file another passphrase; the keeper may run. DIR is the keeper's own folder."`
	Backup     keeperBackupCmd     `cmd:"" help:"Copy a keeper's database into one file; the keeper may run. DIR is the keeper's own folder."`
	Restore    keeperRestoreCmd    `cmd:"" help:"Fill an empty folder from such a file. The keeper starts frozen there."`
}

type keeperRunCmd struct {
	LogLevel string `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
	Child    bool   `help:"End when standard input ends, and not at a signal: how serve keeps one." hidden:""`
}

// Run keeps a region until it is told to stop; then the acts under way are
// finished.
func (c *keeperRunCmd) Run(e *env) error {
	dir, cfg, err := e.keeperSettings()
	if err != nil {
		return err
	}
	log := newLog(e.stderr, c.LogLevel).With("keeper", cfg.Region)
	ctx, wait := e.ctx, time.Duration(0)
	if c.Child {
		var end context.CancelFunc
		ctx, end = untilEOF(context.WithoutCancel(e.ctx), e.stdin)
		defer end()
		wait = lockWait
	}
	unlock, err := lockKeeper(ctx, dir, wait)
	if err != nil {
		return notBegun(ctx, log, err)
	}
	defer unlock()
	k, err := startKeeper(ctx, dir, cfg, log)
	if err != nil {
		return notBegun(ctx, log, err)
	}
	log.Info("keeping", "version", version, "region", cfg.Region, "socket", cfg.Socket)
	if c.Child {
		fmt.Fprintln(e.stdout, childReady)
	}
	select {
	case <-ctx.Done():
		log.Info("stopping: finishing the acts that have begun")
	case err = <-k.failed:
		log.Error("stopping", "error", err)
	}
	return errors.Join(err, k.stop())
}

// notBegun is why a keeper did not start. Being told to stop meanwhile is no
// failure: a serve that cannot listen has an error of its own to show.
func notBegun(ctx context.Context, log *slog.Logger, err error) error {
	if ctx.Err() == nil {
		return err
	}
	log.Info("told to stop before it had started", "error", err)
	return nil
}

// childReady is the line by which a child says that it may be asked.
const childReady = "ready"

// untilEOF is a context that ends when a reader does: a child whose gateway is
// gone, however it went, has nobody to keep keys for.
func untilEOF(ctx context.Context, r io.Reader) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	go func() {
		io.Copy(io.Discard, r)
		end()
	}()
	return ctx, end
}

// keeping is a running keeper.
type keeping struct {
	cfg    keeperConfig
	log    *slog.Logger
	db     *store.KeeperDB
	keeper *keeper.Keeper
	server *wire.Server
	failed chan error // the first thing that ended by itself

	modules *pkcs11.Modules

	endWork context.CancelFunc
	running sync.WaitGroup
	socket  *net.UnixListener
	folder  *os.File // the socket's, while its path is too long for the kernel
	tcp     net.Listener
}

const keeperDrain = 10 * time.Second // for acts under way at a stop

// startKeeper opens, constructs in order, and serves. What was opened is
// closed again when a later step fails.
func startKeeper(ctx context.Context, dir string, cfg keeperConfig, log *slog.Logger) (*keeping, error) {
	harden(dir, cfg, log)
	k := &keeping{cfg: cfg, log: log, failed: make(chan error, 1), modules: &pkcs11.Modules{}}
	c, err := cfg.keeper(dir, log, k.modules)
	if err == nil {
		err = k.open(ctx, dir, c)
	}
	if err == nil {
		err = k.listen()
	}
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	k.run()
	debug.FreeOSMemory() // what the passphrase's Argon2id took, 64 MiB by default
	return k, nil
}

// keeper makes the room's settings out of the file's: KEKs are opened here.
func (c keeperConfig) keeper(dir string, log *slog.Logger, modules *pkcs11.Modules) (keeper.Config, error) {
	out := keeper.Config{
		Dir: dir, Region: c.Region, Base: c.BaseDomain, Hosts: c.Hosts, Retention: time.Duration(c.RetentionDays) * 24 * time.Hour,
		Limit: c.BreakerLimit, Pool: c.Pool, Log: log, Now: time.Now,
	}
	for _, one := range append([]kekConfig{c.KEK}, c.KEKOld...) {
		k, err := openKEK(c.Region, one, modules)
		if err != nil {
			return out, err
		}
		out.KEKs = append(out.KEKs, k)
	}
	for _, one := range c.standbyKEKs() {
		k, err := openStandbyKEK(c.Region, *one, modules)
		if err != nil {
			return out, err
		}
		out.StandbyKEKs = append(out.StandbyKEKs, k)
	}
	var err error
	if out.Driver, out.Drivers, err = openDriver(c.Keys, modules); err != nil {
		return out, err
	}
	if out.Operators, err = c.operators(); err != nil {
		return out, fault.Wrap(fault.Invalid, "operators", err)
	}
	var files []string
	for _, w := range c.Witnesses {
		if w.File != "" {
			files = append(files, w.File)
			continue
		}
		one, err := ledger.NewHTTPWitness(w.URL, w.Key, nil)
		if err != nil {
			return out, err
		}
		out.Witnesses = append(out.Witnesses, one)
	}
	if c.ACME != nil {
		c.ACME.issue(&out)
	}
	out.MoreWitnesses = func(origin string, keys []string) ([]ledger.Witness, error) {
		return fileWitnesses(files, origin, keys)
	}
	return out, nil
}

// fileWitnesses are witnesses that know the log by its own keys, which nobody
// outside knows before it is open.
func fileWitnesses(files []string, origin string, keys []string) ([]ledger.Witness, error) {
	var all []ledger.Witness
	for _, path := range files {
		w, err := ledger.NewFileWitness(path, origin, keys)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (k *keeping) open(ctx context.Context, dir string, c keeper.Config) error {
	url := k.cfg.Store
	if url == "sqlite" {
		url = ""
	}
	var err error
	if k.db, err = store.OpenKeeper(ctx, store.Config{Dir: dir, URL: url, Log: k.log, Now: time.Now}); err != nil {
		return err
	}
	c.DB = k.db
	if k.keeper, err = keeper.New(ctx, c); err != nil {
		return err
	}
	w := wire.Config{Region: k.cfg.Region, Acts: k.keeper, Refused: k.keeper.Refused, Log: k.log}
	for _, g := range k.cfg.Grants {
		one, err := g.grant()
		if err != nil {
			return err
		}
		w.Allow = append(w.Allow, one)
	}
	k.server, err = wire.New(w)
	return err
}

// listen makes the socket and binds the address.
func (k *keeping) listen() (err error) {
	if k.cfg.Socket != "" {
		if k.socket, k.folder, err = listenSocket(k.cfg.Socket); err != nil {
			return err
		}
	}
	if k.cfg.Listen == nil {
		return nil
	}
	if k.tcp, err = net.Listen("tcp", k.cfg.Listen.Address); err != nil {
		return fault.New(fault.Conflict, "", "cannot listen on "+k.cfg.Listen.Address+": "+err.Error()).
			WithHint("Stop what uses the port, or change [listen] in " + keeperConfigName + ".")
	}
	return nil
}

func (k *keeping) run() {
	ctx, end := context.WithCancel(context.Background())
	k.endWork = end
	k.running.Go(func() { k.ended("keeper", k.keeper.Run(ctx)) })
	if k.socket != nil {
		k.running.Go(func() { k.ended("socket", k.server.ServeUnix(k.socket)) })
	}
	if k.tcp != nil {
		k.running.Go(func() { k.ended("listen", k.serveTLS()) })
	}
}

// serveTLS reads the certificates anew for each handshake, so that they can be
// renewed under it.
func (k *keeping) serveTLS() error {
	l := k.cfg.Listen
	pem, err := os.ReadFile(l.ClientCA)
	if err != nil {
		return fault.Wrap(fault.Invalid, "client_ca", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fault.New(fault.Invalid, "client_ca", l.ClientCA+" holds no certificate").WithHint("Name the PEM file of the CA that issues the gateways' certificates.")
	}
	return k.server.ServeTLS(k.tcp, &tls.Config{
		ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(l.Certificate, l.Key)
			return &pair, err
		},
	})
}

func (k *keeping) ended(what string, err error) {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	select {
	case k.failed <- fault.Wrap(fault.KindOf(err), what, err):
	default:
	}
}

// stop lets the acts under way end, then the work behind them.
func (k *keeping) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), keeperDrain)
	defer cancel()
	err := k.server.Shutdown(ctx)
	k.endWork()
	k.running.Wait()
	return errors.Join(err, k.close())
}

// close closes what startKeeper opened. The socket's file goes with it.
func (k *keeping) close() error {
	if k.socket != nil {
		k.socket.Close()
	}
	if k.folder != nil {
		k.folder.Close()
	}
	if k.tcp != nil {
		k.tcp.Close()
	}
	defer k.modules.Close()
	if k.db == nil {
		return nil
	}
	return k.db.Close()
}
