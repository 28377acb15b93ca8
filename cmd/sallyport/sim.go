package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

type simCmd struct {
	M365 m365Cmd `cmd:"" name:"m365" help:"Microsoft 365: mail front, connectors, tokens, keys and logs."`
}

type m365Cmd struct {
	Serve m365ServeCmd `cmd:"" default:"withargs" help:"Run it, with its state in the folder of --data."`
	List  m365ListCmd  `cmd:"" help:"What to connect with, of each simulated tenant."`
}

type m365ServeCmd struct {
	ListenSMTP string        `name:"listen-smtp" help:"Address of the mail front." default:"127.0.0.1:2610" placeholder:"A"`
	ListenHTTP string        `name:"listen-http" help:"Address of login, Graph and admin API, HTTPS." default:"127.0.0.1:2611" placeholder:"A"`
	Tenants    int           `help:"How many tenants there are to be." default:"3"`
	LogDelay   time.Duration `help:"How long a row of a log waits before it is shown." default:"5m"`
	LogLevel   string        `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
}

// Run serves until it is told to stop.
func (c *m365ServeCmd) Run(e *env) error {
	if c.Tenants < 1 || c.LogDelay < 0 {
		return usage("--tenants counts from 1, --log-delay from 0", "Try `sallyport sim m365 --tenants 3 --log-delay 5m`.")
	}
	dir := e.flags.Data
	if err := simFolder(dir); err != nil {
		return err
	}
	unlock, err := lockFolder(dir)
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, "", "another simulator is serving "+dir).
			WithHint("Stop it first, or name another folder with --data.")
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := sim.Open(sim.Config{Dir: dir, Tenants: c.Tenants, LogDelay: c.LogDelay, Now: time.Now, Log: newLog(e.stderr, c.LogLevel)})
	if err != nil {
		return err
	}
	if err := c.serve(e, s); err != nil {
		return err
	}
	if err := c.announce(e, s); err != nil {
		return err
	}
	<-e.ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if n := len(s.Unknown()); n > 0 {
		fmt.Fprintf(e.stderr, "%d requests were not known to the simulator; its log names them.\n", n)
	}
	return s.Close(ctx)
}

// simFolder makes the folder, and refuses a gateway's.
func simFolder(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, configName)); err == nil {
		return fault.New(fault.Conflict, "", dir+" is a gateway's folder").
			WithHint("Give the simulator one of its own: `--data ./sim`.")
	}
	return fault.Wrap(fault.Invalid, "sim", os.MkdirAll(dir, 0o700))
}

// serve opens both listeners.
func (c *m365ServeCmd) serve(e *env, s *sim.Sim) error {
	mailSide, err := smtp.Listen(e.ctx, "tcp", c.ListenSMTP)
	if err != nil {
		return cannotListen("listen-smtp", c.ListenSMTP, err)
	}
	webSide, err := net.Listen("tcp", c.ListenHTTP)
	if err != nil {
		mailSide.Close()
		return cannotListen("listen-http", c.ListenHTTP, err)
	}
	return s.Serve(mailSide, webSide)
}

// cannotListen tells an address that is none from one that is taken.
func cannotListen(flag, address string, err error) error {
	if _, _, split := net.SplitHostPort(address); split != nil {
		return usage("--"+flag+" "+address+" is not host:port", "Give it as 127.0.0.1:2610, or as 127.0.0.1:0 for any free port.")
	}
	return fault.New(fault.Conflict, "", "cannot listen on "+address+": "+err.Error()).
		WithHint("Stop what uses the port, or give another with --" + flag + ".")
}

// announce says what there is and what to type next.
func (c *m365ServeCmd) announce(e *env, s *sim.Sim) error {
	all := s.List()
	if e.flags.JSON {
		return e.printJSON(all)
	}
	one := all[0]
	fmt.Fprintf(e.stdout, "Simulated Microsoft 365 with %d tenants, the first %s (%s).\n", len(all), one.Domain, one.EntraTenant)
	fmt.Fprintf(e.stdout, "Mail front %s (STARTTLS), login, Graph and admin API %s, certificates by %s.\n", one.SMTP, one.Graph, one.CAFile)
	fmt.Fprintf(e.stdout, "Each tenant lets in nobody yet: its connector %q wants a certificate name that no one has.\n", one.ConnectorName)
	_, err := fmt.Fprintf(e.stdout, "\nNext, in another shell:\n  sallyport sim m365 list --data %s --json\n", e.flags.Data)
	return err
}

type m365ListCmd struct{}

// Run reads the folder, whether the simulator runs or not.
func (c *m365ListCmd) Run(e *env) error {
	all, err := sim.ListDir(e.flags.Data)
	if err != nil {
		return err
	}
	if e.flags.JSON {
		return e.printJSON(all)
	}
	t := newTable([]string{"DOMAIN", "ENTRA TENANT", "CONNECTOR", "APP", "SMTP", "GRAPH"})
	for _, l := range all {
		t.add([]string{l.Domain, l.EntraTenant, l.ConnectorName, l.AppID, l.SMTP, l.Graph})
	}
	return t.write(e.stdout)
}
