package tenant

import (
	"context"
	"time"
)

// Role is what a token may do.
type Role string

const (
	Operator Role = "operator" // everything
	Admin    Role = "admin"    // everything within one tenant
	Read     Role = "read"     // reading, within one tenant, or everywhere when it names none
)

// Principal is who a token proves.
type Principal struct {
	Token  string `json:"id"`
	Role   Role   `json:"role"`
	Tenant string `json:"tenant"` // "" is every tenant
}

// Token is a token without its secret.
type Token struct {
	ID        string     `json:"id"`
	Role      Role       `json:"role"`
	Tenant    string     `json:"tenant"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	RevokedAt *time.Time `json:"revoked_at"`
	LastUsed  *time.Time `json:"last_used"`
}

// AddToken returns the secret once: "spt_<id>_<random>". Only its SHA-256 is
// kept: it has 256 random bits.
func (r *Registry) AddToken(ctx context.Context, a Actor, t Token) (Token, string, error) {
	panic("skeleton")
}
func (r *Registry) Tokens() []Token                                           { panic("skeleton") }
func (r *Registry) RevokeToken(ctx context.Context, a Actor, id string) error { panic("skeleton") }

// Authenticate checks a token's secret in constant time; kind denied.
func (r *Registry) Authenticate(secret string) (Principal, error) { panic("skeleton") }

// ImportToken registers the secret that init wrote to operator.token, when no
// operator token exists yet.
func (r *Registry) ImportToken(ctx context.Context, secret string) error { panic("skeleton") }

// Submitter is a user of SMTP AUTH (RFC 6409).
type Submitter struct {
	Tenant     string     `json:"tenant"`
	Connection string     `json:"connection"` // always "smtp-auth"
	User       string     `json:"user"`
	State      string     `json:"state"` // "active" or "revoked"
	SetAt      time.Time  `json:"set_at"`
	LastUsed   *time.Time `json:"last_used"`
	LastOpened *time.Time `json:"last_opened"`
	Opened     int64      `json:"opened_count"`
}

// AddSubmitter makes a password of its own, kept as an Argon2id hash, and
// returns it once.
func (r *Registry) AddSubmitter(ctx context.Context, a Actor, tenant, user string) (Submitter, string, error) {
	panic("skeleton")
}
func (r *Registry) ResetSubmitter(ctx context.Context, a Actor, tenant, user string) (string, error) {
	panic("skeleton")
}
func (r *Registry) RevokeSubmitter(ctx context.Context, a Actor, tenant, user string) error {
	panic("skeleton")
}
func (r *Registry) Submitters(tenant string) []Submitter { panic("skeleton") }

// VerifySubmitter checks a password (Argon2id, with a positive cache of a
// minute); at most two hashes are computed at a time, further callers wait or
// get kind later. Kind denied when wrong, with the same cost for unknown users.
func (r *Registry) VerifySubmitter(ctx context.Context, user, password string) (Submitter, error) {
	panic("skeleton")
}
