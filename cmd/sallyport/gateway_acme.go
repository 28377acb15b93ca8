package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// challengePath is where a CA looks (RFC 8555 8.3).
const challengePath = "/.well-known/acme-challenge/"

// maxToken is longer than any CA's token.
const maxToken = 256

// openChallenges listens for CAs that validate names of identities. The answer
// is the keeper's; what is not its is not found here either.
func (g *gateway) openChallenges(ctx context.Context) error {
	if g.cfg.ACME.HTTP == "" {
		return nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", g.cfg.ACME.HTTP)
	if err != nil {
		return fault.New(fault.Conflict, "", "cannot listen on "+g.cfg.ACME.HTTP+": "+err.Error()).
			WithHint("Stop what uses the port, or change http in [acme] of " + configName + ".")
	}
	server := &http.Server{Handler: http.HandlerFunc(g.answerChallenge), ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 10 * time.Second, MaxHeaderBytes: 4 << 10}
	g.closers = append(g.closers, func(ctx context.Context) error { return server.Shutdown(ctx) })
	g.running.Go(func() { g.ended("acme", server.Serve(ln)) })
	return nil
}

func (g *gateway) answerChallenge(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengePath)
	region, known := g.challengeRegion(r.Host)
	if !ok || !known || token == "" || len(token) > maxToken || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	keeper, err := g.custody.Region(region)
	var answer string
	if err == nil {
		answer, err = keeper.AcmeChallenge(r.Context(), token)
	}
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write([]byte(answer)) // nobody is left to be told of a failure
}

// challengeRegion is the region whose name a CA has asked for:
// e1.<label>.<region>.<base>. A keeper that sleeps waits for no certificate.
func (g *gateway) challengeRegion(host string) (string, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	head, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), "."+strings.ToLower(g.cfg.BaseDomain))
	region := head[strings.LastIndexByte(head, '.')+1:]
	for _, one := range g.cfg.Regions {
		if ok && one == region {
			return region, !g.custody.asleep(region)
		}
	}
	return "", false
}
