package main

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

// certificates picks the listener's certificate for each handshake: that of
// the name the client asks for (SNI), or of the listener's own name.
type certificates struct {
	signers client.Signers
	names   map[string]bool // every name of ours
	own     string
}

// listenerTLS is the TLS configuration of one listener.
//
// A client certificate is asked for only on a listener meant for platforms, or
// when the client asks for a platform host name; the MX never asks. It is only
// requested, never required or verified by the handshake: none, unknown,
// expired or without the clientAuth EKU is simply no proof, which the edge
// judges.
func listenerTLS(cfg config, l listenerConfig, signers client.Signers) *tls.Config {
	c := certificates{signers: signers, names: map[string]bool{}, own: cfg.hostname(l.Region)}
	for _, n := range cfg.hostnames() {
		c.names[n] = true
	}
	plain := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	asking := plain.Clone()
	asking.ClientAuth = tls.RequestClientCert
	if l.Platforms {
		return asking
	}
	plain.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if strings.HasPrefix(strings.ToLower(hello.ServerName), "out.") && c.names[strings.ToLower(hello.ServerName)] {
			return asking, nil
		}
		return nil, nil
	}
	return plain
}

// endSessions ends what was opened with a certificate of ours that was
// compromised.
func (g *gateway) endSessions(sha256 string) {
	n := 0
	for _, s := range g.smtp {
		n += s.EndShown(sha256)
	}
	if n > 0 {
		g.log.Warn("a server certificate is compromised: its sessions end", "sha256", sha256, "sessions", n)
	}
}

// tlsReady tells whether the keeper that signs a listener's handshakes can be
// asked. It does not wait for one that is away.
func (g *gateway) tlsReady(l listenerConfig) func(context.Context) bool {
	host := g.cfg.hostname(l.Region)
	return func(ctx context.Context) bool {
		r, err := g.custody.Region(g.custody.HostRegion(host))
		if err != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, tlsPatience)
		defer cancel()
		return r.Reachable(ctx)
	}
}

// tlsPatience is how long a client that says STARTTLS waits for a keeper that
// is being started.
const tlsPatience = 3 * time.Second

func (c certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if !c.names[name] {
		name = c.own
	}
	return c.signers.ServerCertificate(name)
}
