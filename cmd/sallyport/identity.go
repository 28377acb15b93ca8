package main

import (
	"fmt"
	"strings"
	"time"
)

type identityCmd struct {
	List       identityList       `cmd:"" help:"List identities with the SHA-256 of their certificates."`
	Show       identityShow       `cmd:"" help:"Show an identity."`
	Rotate     identityRotate     `cmd:"" help:"Renew the identities of its connection: a new key under the same name."`
	Compromise identityCompromise `cmd:"" help:"Have it refused at once, and move its connection to the next epoch."`
}

type identityView struct {
	ID          string     `json:"id"`
	Tenant      string     `json:"tenant"`
	Connection  string     `json:"connection"`
	Purpose     string     `json:"purpose"`
	Epoch       uint64     `json:"epoch"`
	Name        string     `json:"name"`
	State       string     `json:"state"`
	NotBefore   *time.Time `json:"not_before"` // null while it is not issued
	NotAfter    *time.Time `json:"not_after"`
	Fingerprint string     `json:"fingerprint"`
	Explanation string     `json:"explanation"`
	Issuer      string     `json:"issuer"`
	Driver      string     `json:"driver"`
	Apart       bool       `json:"apart"`
	RenewAt     *time.Time `json:"renew_at"`
	Certificate *string    `json:"certificate"`
	Root        *string    `json:"root"`
}

type identityList struct {
	Tenant string `help:"Of this tenant's connections." placeholder:"T"`
}

func (c *identityList) Run(e *env) error {
	return list(e, "/v1/identities", query("tenant", c.Tenant),
		[]string{"id", "tenant", "connection", "purpose", "epoch", "name", "state", "ends", "sha256"}, func(v identityView) []string {
			return []string{v.ID, v.Tenant, v.Connection, v.Purpose, fmt.Sprint(v.Epoch), v.Name, v.State, dateOf(v.NotAfter), dash(v.Fingerprint)}
		})
}

type identityShow struct {
	ID   string `arg:""`
	PEM  bool   `name:"pem" help:"Print its certificate chain."`
	Root bool   `help:"Print the root certificate that a partner trusts who verifies the chain."`
}

func (c *identityShow) Run(e *env) error {
	return show(e, "GET", at("/v1/identities", c.ID), nil, nil, func(v identityView) string {
		switch {
		case c.Root && v.Root == nil:
			return "its issuer is a public authority, or another one than the region's own"
		case c.Root:
			return *v.Root
		case c.PEM && v.Certificate != nil:
			return *v.Certificate
		}
		return v.text()
	})
}

func (v identityView) text() string {
	renewal := "-"
	if v.RenewAt != nil {
		renewal = "due " + when(v.RenewAt)
	}
	text := fmt.Sprintf("%s of %s, connection %s\npurpose  %s\nname     %s (epoch %d)\nstate    %s\nvalid    %s to %s\nrenewal  %s\nsha256   %s (as Postfix and OpenSSL write it)\nissuer   %s, key in %s",
		v.ID, dash(v.Tenant), v.Connection, v.Purpose, v.Name, v.Epoch, v.State, when(v.NotBefore), when(v.NotAfter),
		renewal, dash(v.Fingerprint), v.Issuer, v.Driver)
	if v.Apart {
		text += ", under the KEK of standbys"
	}
	if v.Explanation != "" {
		text += "\n" + v.Explanation
	}
	return text
}

// dateOf is a day; "-" for none.
func dateOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

type identityRotate struct {
	ID    string `arg:""`
	Epoch bool   `help:"The next epoch instead: a new name too."`
	Wait  bool   `help:"Wait until it is over."`
}

func (c *identityRotate) Run(e *env) error {
	raw, err := e.call("POST", at("/v1/identities", c.ID)+"/rotate", nil, map[string]any{"epoch": c.Epoch})
	if err != nil {
		return err
	}
	var v replacementView
	if err := unmarshal(raw, &v); err != nil {
		return err
	}
	if c.Wait {
		return v.wait(e)
	}
	return printAs(e, raw, replacementView.text)
}

type identityCompromise struct {
	ID string `arg:""`
}

// Run exits 1 while something is still to be done, after saying what.
func (c *identityCompromise) Run(e *env) error {
	raw, err := e.call("POST", at("/v1/identities", c.ID)+"/compromise", nil, map[string]any{})
	if err != nil {
		return err
	}
	var v struct {
		replacementView
		Identity identityView  `json:"identity"`
		Next     *identityView `json:"next"`
	}
	if err := unmarshal(raw, &v); err != nil {
		return err
	}
	err = printAs(e, raw, func(any) string {
		lines := []string{fmt.Sprintf("identity %s is %s: the keeper does nothing with its key any more", v.Identity.ID, v.Identity.State)}
		if v.Next != nil {
			lines = append(lines, fmt.Sprintf("next is %s, %s (epoch %d), %s", v.Next.ID, v.Next.Name, v.Next.Epoch, v.Next.State))
		}
		if v.OldRefused {
			lines = append(lines, "the partner was asked: the old one is refused there")
		}
		return strings.Join(append(lines, v.text()), "\n")
	})
	if err == nil && !v.OK {
		return errReported
	}
	return err
}
