package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

type credentialCmd struct {
	Set    credentialSet    `cmd:"" help:"Set the password that a connection presents."`
	Add    credentialAdd    `cmd:"" help:"Add a user who submits mail; prints the password once."`
	List   credentialList   `cmd:"" help:"List a tenant's credentials: its connections' passwords, and users who submit mail."`
	Reset  credentialReset  `cmd:"" help:"Give a user a new password; prints it once."`
	Revoke credentialRevoke `cmd:"" help:"Let a user submit no more."`
}

type credentialView struct {
	Tenant     string     `json:"tenant"`
	Connection string     `json:"connection"`
	User       string     `json:"user"`
	State      string     `json:"state"`
	SetAt      time.Time  `json:"set_at"`
	LastUsed   *time.Time `json:"last_used"`
	Password   string     `json:"password"`
}

type credentialSet struct {
	connectionArg
	User  string `help:"User name that goes with it, when the connection names none."`
	Stdin bool   `help:"Read the password from standard input." xor:"from"`
	File  string `help:"Read the password from a file." xor:"from" type:"existingfile"`
}

// connectionArg names a connection where the argument is called so.
type connectionArg struct {
	Tenant     string `arg:""`
	Connection string `arg:""`
}

func (c *credentialSet) Run(e *env) error {
	secret, err := e.secret(c.Stdin, c.File)
	if err != nil {
		return err
	}
	in := map[string]any{"user": c.User, "secret": secret}
	if _, err := e.call("PUT", at("/v1/tenants", c.Tenant, "connections", c.Connection)+"/credential", nil, in); err != nil {
		return err
	}
	return e.done("password of "+c.Connection+" set", map[string]any{"tenant": c.Tenant, "connection": c.Connection, "set": true})
}

// secret reads a secret from where the flags say; it is never an argument,
// for those stand in the process list.
func (e *env) secret(stdin bool, file string) (string, error) {
	return e.secretBy(stdin, file, "--file")
}

// secretBy is secret where the file is named by another flag.
func (e *env) secretBy(stdin bool, file, flag string) (string, error) {
	hint := "Give it with --stdin, or with " + flag + " FILE, a file that holds nothing else."
	var raw []byte
	var err error
	switch {
	case stdin:
		raw, err = io.ReadAll(io.LimitReader(e.stdin, 64<<10))
	case file != "":
		raw, err = os.ReadFile(file)
	default:
		return "", usage("no secret given", hint)
	}
	if err != nil {
		return "", usage("cannot read the secret: "+err.Error(), hint)
	}
	s := strings.TrimRight(string(raw), "\r\n")
	if s == "" {
		return "", usage("the secret is empty", hint)
	}
	return s, nil
}

type credentialAdd struct {
	Tenant string `arg:""`
	User   string `arg:""`
	Kind   string `help:"smtp-auth: a user who submits mail." default:"smtp-auth" enum:"smtp-auth"`
}

func (c *credentialAdd) Run(e *env) error {
	in := map[string]any{"user": c.User, "kind": c.Kind}
	return show(e, "POST", at("/v1/tenants", c.Tenant)+"/credentials", nil, in, credentialView.once)
}

func (v credentialView) once() string {
	return fmt.Sprintf("user      %s\npassword  %s\nIt is shown this once and stored only as a hash.", v.User, v.Password)
}

type credentialList struct {
	Tenant string `arg:""`
}

func (c *credentialList) Run(e *env) error {
	return list(e, at("/v1/tenants", c.Tenant)+"/credentials", nil, []string{"connection", "user", "state", "set", "last used"},
		func(v credentialView) []string {
			return []string{v.Connection, v.User, v.State, when(&v.SetAt), when(v.LastUsed)}
		})
}

type credentialRef struct {
	Tenant string `arg:""`
	User   string `arg:""`
}

func (c credentialRef) path() string { return at("/v1/tenants", c.Tenant, "credentials", c.User) }

type credentialReset struct{ credentialRef }

func (c *credentialReset) Run(e *env) error {
	return show(e, "POST", c.path()+"/reset", nil, map[string]any{}, credentialView.once)
}

type credentialRevoke struct{ credentialRef }

func (c *credentialRevoke) Run(e *env) error {
	return show(e, "POST", c.path()+"/revoke", nil, map[string]any{}, func(credentialView) string { return c.User + " revoked" })
}

type tokenCmd struct {
	Add    tokenAdd    `cmd:"" help:"Add an API token; prints it once."`
	List   tokenList   `cmd:"" help:"List tokens."`
	Revoke tokenRevoke `cmd:"" help:"Revoke a token."`
}

type tokenView struct {
	ID        string     `json:"id"`
	Role      string     `json:"role"`
	Tenant    string     `json:"tenant"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	RevokedAt *time.Time `json:"revoked_at"`
	LastUsed  *time.Time `json:"last_used"`
	Token     string     `json:"token"`
}

type tokenAdd struct {
	Role    string        `required:"" help:"operator, admin (of one tenant) or read." enum:"operator,admin,read"`
	Tenant  string        `help:"The tenant that it is confined to."`
	Expires time.Duration `help:"How long it is good for, such as 720h."`
}

func (c *tokenAdd) Run(e *env) error {
	in := map[string]any{"role": c.Role, "tenant": c.Tenant}
	if c.Expires > 0 {
		in["expires_at"] = time.Now().Add(c.Expires).UTC()
	}
	return show(e, "POST", "/v1/tokens", nil, in, func(v tokenView) string {
		return fmt.Sprintf("id     %s\ntoken  %s\nIt is shown this once and stored only as a hash.", v.ID, v.Token)
	})
}

type tokenList struct{}

func (c *tokenList) Run(e *env) error {
	return list(e, "/v1/tokens", nil, []string{"id", "role", "tenant", "created", "expires", "revoked", "last used"},
		func(v tokenView) []string {
			return []string{v.ID, v.Role, dash(v.Tenant), when(&v.CreatedAt), when(v.ExpiresAt), when(v.RevokedAt), when(v.LastUsed)}
		})
}

type tokenRevoke struct {
	ID string `arg:""`
}

func (c *tokenRevoke) Run(e *env) error {
	return show(e, "POST", at("/v1/tokens", c.ID)+"/revoke", nil, map[string]any{}, func(tokenView) string { return "token " + c.ID + " revoked" })
}
