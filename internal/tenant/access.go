package tenant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
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

// token is a token with what verifies it. Only used changes after it has been
// published in the registry; a revocation publishes a new one.
type token struct {
	Token
	sum  [sha256.Size]byte
	used atomic.Int64 // microseconds, 0 never
}

func (t *token) setSum(hexSum string) error {
	n, err := hex.Decode(t.sum[:], []byte(hexSum))
	if err != nil || n != len(t.sum) {
		return fmt.Errorf("token %s: its sum is damaged", t.ID)
	}
	return nil
}

func (t *token) view() Token {
	v := t.Token
	v.LastUsed = usedAt(&t.used)
	return v
}

func usedAt(micros *atomic.Int64) *time.Time {
	n := micros.Load()
	if n == 0 {
		return nil
	}
	at := time.UnixMicro(n).UTC()
	return &at
}

// The form of a token: spt_<ulid>_<base64url of 32 bytes>.
const (
	tokenPrefix = "spt_"
	tokenRandom = 43 // 32 bytes in base64url
	tokenLength = len(tokenPrefix) + ulid.EncodedSize + 1 + tokenRandom
)

// tokenID returns the id within a secret of the right form.
func tokenID(secret string) (string, bool) {
	if len(secret) != tokenLength || !strings.HasPrefix(secret, tokenPrefix) {
		return "", false
	}
	rest := secret[len(tokenPrefix):]
	if rest[ulid.EncodedSize] != '_' {
		return "", false
	}
	return rest[:ulid.EncodedSize], true
}

// NewSecret makes the secret of a token: init writes one to a file before any
// registry exists.
func NewSecret(now time.Time) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return "", err
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return tokenPrefix + id.String() + "_" + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

func (r *Registry) checkToken(op string, t Token) error {
	switch {
	case t.Role != Operator && t.Role != Admin && t.Role != Read:
		return fault.New(fault.Invalid, op, fmt.Sprintf("there is no role %q", t.Role)).WithHint("Give operator, admin or read.")
	case t.Role == Operator && t.Tenant != "":
		return fault.New(fault.Invalid, op, "an operator's token is not of one tenant").WithHint("Leave the tenant out, or give the role admin.")
	case t.Role == Admin && t.Tenant == "":
		return fault.New(fault.Invalid, op, "an admin's token needs a tenant").WithHint("Name the tenant that it is for.")
	case t.ExpiresAt != nil && !t.ExpiresAt.After(r.c.Now()):
		return fault.New(fault.Invalid, op, "the token would have expired already").WithHint("Give a time to come.")
	}
	if t.Tenant != "" {
		if _, ok := r.Tenant(t.Tenant); !ok {
			return missing(op, "tenant "+t.Tenant)
		}
	}
	return nil
}

// AddToken returns the secret once: "spt_<id>_<random>". Only its SHA-256 is
// kept: it has 256 random bits.
func (r *Registry) AddToken(ctx context.Context, a Actor, t Token) (Token, string, error) {
	const op = "tenant.AddToken"
	defer r.lock(t.Tenant)()
	if err := r.checkToken(op, t); err != nil {
		return Token{}, "", err
	}
	secret, err := NewSecret(r.c.Now())
	if err != nil {
		return Token{}, "", wrap(op, err)
	}
	added, err := r.putToken(ctx, a, t, secret)
	if err != nil {
		return Token{}, "", wrap(op, err)
	}
	return added, secret, nil
}

// putToken stores the token that a secret verifies.
func (r *Registry) putToken(ctx context.Context, a Actor, t Token, secret string) (Token, error) {
	id, _ := tokenID(secret)
	added := &token{sum: sha256.Sum256([]byte(secret))}
	added.Token = Token{ID: id, Role: t.Role, Tenant: t.Tenant, CreatedAt: r.now()}
	var expires any
	if t.ExpiresAt != nil {
		at := t.ExpiresAt.UTC().Truncate(time.Microsecond)
		added.ExpiresAt, expires = &at, at.UnixMicro()
	}
	args := []any{id, string(t.Role), hex.EncodeToString(added.sum[:]), added.CreatedAt.UnixMicro(), expires}
	event := r.event(a, "token.add", t.Tenant, id+" "+string(t.Role))
	if err := r.changeToken(ctx, t.Tenant, insertToken, insertOperatorToken, args, event); err != nil {
		return Token{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[id] = added
	return added.Token, nil
}

// changeToken runs the statement of a tenant's token through the tenant's
// door, that of an operator's through the operator's.
func (r *Registry) changeToken(ctx context.Context, tenant string, own store.TenantSQL, operator store.OperatorSQL, args []any, e store.Event) error {
	if tenant == "" {
		return r.c.DB.Operator("change tokens of no tenant").Change(ctx, func(tx store.OperatorTx) error {
			if _, err := tx.Exec(operator, args...); err != nil {
				return err
			}
			return tx.Audit(e)
		})
	}
	return r.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(own, args...); err != nil {
			return err
		}
		return tx.Audit(e)
	})
}

// Tokens are all tokens, the oldest first.
func (r *Registry) Tokens() []Token {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]Token, 0, len(r.tokens))
	for _, t := range r.tokens {
		list = append(list, t.view())
	}
	slices.SortFunc(list, func(a, b Token) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// RevokeToken ends a token at once. The last operator's token cannot be
// revoked: nobody could add another.
func (r *Registry) RevokeToken(ctx context.Context, a Actor, id string) error {
	const op = "tenant.RevokeToken"
	r.mu.RLock()
	t := r.tokens[id]
	r.mu.RUnlock()
	if t == nil {
		return missing(op, "token "+id)
	}
	defer r.lock(t.Tenant)()
	if t.Role == Operator && r.lastOperator(id) {
		return fault.New(fault.Conflict, op, "token "+id+" is the last operator's token").WithHint("Add another operator's token first.")
	}
	now := r.now()
	event := r.event(a, "token.revoke", t.Tenant, id)
	err := r.changeToken(ctx, t.Tenant, revokeToken, revokeOperatorToken, []any{id, now.UnixMicro()}, event)
	if err != nil {
		return wrap(op, err)
	}
	revoked := &token{Token: t.Token, sum: t.sum}
	revoked.RevokedAt = &now
	revoked.used.Store(t.used.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens[id] != nil {
		r.tokens[id] = revoked
	}
	return nil
}

// lastOperator reports whether no other token of an operator is good.
func (r *Registry) lastOperator(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := r.c.Now()
	for _, t := range r.tokens {
		if t.ID != id && t.Role == Operator && t.good(now) {
			return false
		}
	}
	return true
}

func (t *token) good(now time.Time) bool {
	return t.RevokedAt == nil && (t.ExpiresAt == nil || now.Before(*t.ExpiresAt))
}

// Authenticate checks a token's secret in constant time; kind denied.
func (r *Registry) Authenticate(secret string) (Principal, error) {
	const op = "tenant.Authenticate"
	sum := sha256.Sum256([]byte(secret))
	id, ok := tokenID(secret)
	if !ok {
		return Principal{}, fault.New(fault.Denied, op, "that is not a token").WithHint("Give a token as token add printed it.")
	}
	r.mu.RLock()
	t := r.tokens[id]
	r.mu.RUnlock()
	if t == nil || subtle.ConstantTimeCompare(sum[:], t.sum[:]) != 1 {
		return Principal{}, fault.New(fault.Denied, op, "the token is not known").WithHint("Ask an operator for a new one.")
	}
	now := r.c.Now()
	if !t.good(now) {
		return Principal{}, fault.New(fault.Denied, op, "the token is revoked or has expired").WithHint("Ask an operator for a new one.")
	}
	r.noteUse(&t.used, use{token: true, id: id}, now)
	return Principal{Token: id, Role: t.Role, Tenant: t.Tenant}, nil
}

// noteUse remembers a last use, to the second: a busy token need not be noted
// at each request.
func (r *Registry) noteUse(used *atomic.Int64, what use, now time.Time) {
	at := now.UnixMicro()
	if before := used.Load(); at-before < int64(time.Second/time.Microsecond) || !used.CompareAndSwap(before, at) {
		return
	}
	r.uses.note(what, at)
}

// writeUses writes down a batch of last uses.
func (r *Registry) writeUses(ctx context.Context, batch map[use]int64) error {
	return r.c.DB.Operator("write down last uses of tokens and passwords").Change(ctx, func(tx store.OperatorTx) error {
		for what, at := range batch {
			q := touchSubmitter
			if what.token {
				q = touchToken
			}
			if _, err := tx.Exec(q, what.id, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// ImportToken registers the secret that init wrote to operator.token, when no
// operator token exists yet.
func (r *Registry) ImportToken(ctx context.Context, secret string) error {
	const op = "tenant.ImportToken"
	if _, ok := tokenID(secret); !ok {
		return fault.New(fault.Invalid, op, "that is not a token").WithHint("Give the contents of operator.token as init wrote it.")
	}
	defer r.lock("")()
	r.mu.RLock()
	for _, t := range r.tokens {
		if t.Role == Operator {
			r.mu.RUnlock()
			return nil
		}
	}
	r.mu.RUnlock()
	_, err := r.putToken(ctx, "system", Token{Role: Operator}, secret)
	return wrap(op, err)
}
