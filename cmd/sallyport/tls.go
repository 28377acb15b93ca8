package main

import (
	"crypto/tls"
	"strings"

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

func (c certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if !c.names[name] {
		name = c.own
	}
	return c.signers.ServerCertificate(name)
}
