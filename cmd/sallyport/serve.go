package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

type serveCmd struct {
	Store    string `help:"Another store than the folder's settings name." placeholder:"URL"`
	LogLevel string `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
}

// Run serves until it is told to stop; then sessions in DATA and deliveries
// under way are finished.
func (c *serveCmd) Run(e *env) error {
	dir, err := filepath.Abs(e.flags.Data)
	if err != nil {
		return fault.Wrap(fault.Invalid, "data", err)
	}
	cfg, err := loadConfig(dir)
	if err != nil {
		return err
	}
	if c.Store != "" {
		cfg.Store = c.Store
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer unlock()
	tuneCollector(os.Getenv)
	log := newLog(e.stderr, c.LogLevel)
	g, err := startGateway(e.ctx, dir, cfg, log)
	if err != nil {
		return err
	}
	log.Info("serving", "version", version, "api", g.apiAddress(), "listeners", g.addresses())
	select {
	case <-e.ctx.Done():
		log.Info("stopping: finishing what has begun")
	case err = <-g.failed:
		log.Error("stopping", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if stopErr := g.stop(ctx); err == nil {
		err = stopErr
	}
	return err
}

// newLog writes JSON lines.
func newLog(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}

// operatorToken reads the token that init wrote.
func operatorToken(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, tokenName))
	if err != nil {
		return "", fault.New(fault.Missing, "", "the operator's token is missing: "+err.Error()).
			WithHint("`sallyport init` writes it; restore it from a copy, or make a new folder.")
	}
	return string(raw), nil
}

type versionCmd struct{}

func (c *versionCmd) Run(e *env) error {
	if e.flags.JSON {
		return e.printJSON(map[string]any{"version": version})
	}
	_, err := fmt.Fprintln(e.stdout, "sallyport", version)
	return err
}
