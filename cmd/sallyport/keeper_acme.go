package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"os"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/acme"
	"github.com/sallyport-mail/sallyport/internal/keeper/acme/rfc2136"
)

// issue makes the keeper ask a public CA too. The account's key is the
// keeper's, so the issuer is made when that is open.
func (a *acmeConfig) issue(c *keeper.Config) {
	var made atomic.Pointer[acme.Issuer]
	log := c.Log
	c.MoreIssuers = func(account crypto.Signer) ([]keeper.Issuer, error) {
		settings, err := a.settings(account)
		if err != nil {
			return nil, err
		}
		settings.Log, settings.Now = log, time.Now
		issuer, err := acme.New(settings)
		if err != nil {
			return nil, err
		}
		made.Store(issuer)
		return []keeper.Issuer{publicCA{issuer}}, nil
	}
	c.Challenges = func(token string) (string, bool) {
		issuer := made.Load()
		if issuer == nil { // a keeper that is frozen gets no further
			return "", false
		}
		return issuer.Challenge(token)
	}
}

func (a *acmeConfig) settings(account crypto.Signer) (acme.Config, error) {
	c := acme.Config{Directory: a.Directory, Contact: a.Contact, Profile: a.Profile, Account: account}
	var err error
	if a.Roots != "" {
		if c.Roots, err = os.ReadFile(a.Roots); err != nil {
			return c, fault.Wrap(fault.Missing, "acme", err)
		}
	}
	if a.DNS != nil {
		if err := a.DNS.settings(&c); err != nil {
			return c, err
		}
	}
	if a.EABID == "" {
		return c, nil
	}
	raw, err := os.ReadFile(a.EABKeyFile)
	if err != nil {
		return c, fault.Wrap(fault.Missing, "acme", err)
	}
	key, err := base64.RawURLEncoding.DecodeString(string(bytes.TrimRight(raw, "=\r\n")))
	if err != nil { // its text would quote the key
		return c, fault.New(fault.Invalid, "acme", "the key of the external account binding is not base64url").
			WithHint("Put it into " + a.EABKeyFile + " as the CA gave it.")
	}
	c.External = &acme.External{ID: a.EABID, Key: key}
	return c, nil
}

// acmeTime is for an issuance beside the wait for DNS servers.
const acmeTime = 3 * time.Minute

// settings has challenges published by DNS UPDATE.
func (d *acmeDNSConfig) settings(c *acme.Config) error {
	key, err := rfc2136.ReadKey(d.KeyFile, d.KeyName, d.Algorithm)
	if err != nil {
		return err
	}
	wait := time.Duration(d.PropagationS) * time.Second
	u, err := rfc2136.New(rfc2136.Config{
		Server: d.Server, Zone: d.Zone, Key: key, TTL: time.Duration(d.TTL) * time.Second,
		Resolvers: d.Resolvers, Check: d.Check, Propagation: wait, Now: time.Now,
	})
	if err != nil {
		return err
	}
	c.DNS, c.Timeout = u, acmeTime+wait
	return nil
}

// publicCA is an ACME account as the keeper knows issuers.
type publicCA struct{ *acme.Issuer }

// Issue is of keeper.Issuer.
func (p publicCA) Issue(ctx context.Context, r keeper.Request) ([][]byte, error) {
	return p.Issuer.Issue(ctx, r.Name, r.Key, r.Replaces)
}

// Advice is of keeper.Advisor.
func (p publicCA) Advice(ctx context.Context, chain [][]byte) (time.Time, string, error) {
	if len(chain) == 0 {
		return time.Time{}, "", fault.New(fault.Missing, "acme", "there is no certificate to be advised on")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return time.Time{}, "", fault.Wrap(fault.Internal, "acme", err)
	}
	return p.Issuer.Advice(ctx, leaf)
}
