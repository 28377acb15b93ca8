package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// States of a submitter.
const (
	SubmitterActive  = "active"
	SubmitterRevoked = "revoked"
)

// Submitter is a user of SMTP AUTH (RFC 6409).
type Submitter struct {
	Tenant     string     `json:"tenant"`
	Connection string     `json:"connection"` // always "smtp-auth"
	User       string     `json:"user"`
	State      string     `json:"state"` // "active" or "revoked"
	SetAt      time.Time  `json:"set_at"`
	LastUsed   *time.Time `json:"last_used"`
	LastOpened *time.Time `json:"last_opened"` // never: a hash cannot be opened
	Opened     int64      `json:"opened_count"`
}

// submitter is a user with what verifies him. Only used changes after it has
// been published in the registry; a change publishes a new one.
type submitter struct {
	tenant, user, hash, state string
	setAt                     time.Time
	used                      atomic.Int64 // microseconds, 0 never
}

func (s *submitter) view() Submitter {
	return Submitter{
		Tenant: s.tenant, Connection: "smtp-auth", User: s.user, State: s.state,
		SetAt: s.setAt, LastUsed: usedAt(&s.used),
	}
}

// userName brings a user name into the form in which names compare: an address
// by its key, a name in lower case.
func userName(s string) (string, bool) {
	if strings.Contains(s, "@") {
		a, err := mail.ParseAddress(s)
		if err != nil || a.IsNull() {
			return "", false
		}
		return a.Key(), true
	}
	s = strings.ToLower(s)
	if s == "" || len(s) > 64 {
		return "", false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-._", rune(c)) {
			return "", false
		}
	}
	return s, true
}

// AddSubmitter makes a password of its own, kept as an Argon2id hash, and
// returns it once.
func (r *Registry) AddSubmitter(ctx context.Context, a Actor, tenant, user string) (Submitter, string, error) {
	const op = "tenant.AddSubmitter"
	name, ok := userName(user)
	if !ok {
		return Submitter{}, "", fault.New(fault.Invalid, op, fmt.Sprintf("%q cannot be a user name", user)).
			WithHint("Give an address, or up to 64 letters, digits, dots, hyphens and underscores.")
	}
	defer r.lock(tenant)()
	if _, ok := r.Tenant(tenant); !ok {
		return Submitter{}, "", missing(op, "tenant "+tenant)
	}
	if r.submitter(name) != nil {
		return Submitter{}, "", fault.New(fault.Conflict, op, "the user name "+name+" is already in use").
			WithHint("Choose another, or reset the password of the one that exists.")
	}
	password, hash, err := r.passwords.newPassword(ctx)
	if err != nil {
		return Submitter{}, "", wrap(op, err)
	}
	s := &submitter{tenant: tenant, user: name, hash: hash, state: SubmitterActive, setAt: r.now()}
	err = r.changeSubmitter(ctx, s, r.event(a, "credential.add", tenant, name),
		insertSubmitter, name, hash, s.state, s.setAt.UnixMicro())
	if err != nil {
		return Submitter{}, "", taken(op, err, "the user name "+name)
	}
	return s.view(), password, nil
}

// ResetSubmitter gives a user a new password; one who was revoked is active
// again. The old password stops at once.
func (r *Registry) ResetSubmitter(ctx context.Context, a Actor, tenant, user string) (string, error) {
	const op = "tenant.ResetSubmitter"
	defer r.lock(tenant)()
	old, err := r.ownSubmitter(op, tenant, user)
	if err != nil {
		return "", err
	}
	password, hash, err := r.passwords.newPassword(ctx)
	if err != nil {
		return "", wrap(op, err)
	}
	s := &submitter{tenant: tenant, user: old.user, hash: hash, state: SubmitterActive, setAt: r.now()}
	s.used.Store(old.used.Load())
	err = r.changeSubmitter(ctx, s, r.event(a, "credential.reset", tenant, s.user),
		resetSubmitter, s.user, hash, s.state, s.setAt.UnixMicro())
	return password, wrap(op, err)
}

// RevokeSubmitter ends a user's password at once.
func (r *Registry) RevokeSubmitter(ctx context.Context, a Actor, tenant, user string) error {
	const op = "tenant.RevokeSubmitter"
	defer r.lock(tenant)()
	old, err := r.ownSubmitter(op, tenant, user)
	if err != nil {
		return err
	}
	s := &submitter{tenant: tenant, user: old.user, hash: old.hash, state: SubmitterRevoked, setAt: old.setAt}
	s.used.Store(old.used.Load())
	err = r.changeSubmitter(ctx, s, r.event(a, "credential.revoke", tenant, s.user), revokeSubmitter, s.user, s.state)
	return wrap(op, err)
}

// changeSubmitter runs a statement with its audit event and publishes s.
func (r *Registry) changeSubmitter(ctx context.Context, s *submitter, e store.Event, q store.TenantSQL, args ...any) error {
	err := r.c.DB.For(s.tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(q, args...); err != nil {
			return err
		}
		return tx.Audit(e)
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users[s.user] = s
	return nil
}

func (r *Registry) submitter(name string) *submitter {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.users[name]
}

// ownSubmitter finds a user of this tenant.
func (r *Registry) ownSubmitter(op, tenant, user string) (*submitter, error) {
	name, ok := userName(user)
	if ok {
		if s := r.submitter(name); s != nil && s.tenant == tenant {
			return s, nil
		}
	}
	return nil, missing(op, "user "+user+" of tenant "+tenant)
}

// Submitters are a tenant's users in order of name; "" is all tenants'.
func (r *Registry) Submitters(tenant string) []Submitter {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []Submitter{}
	for _, s := range r.users {
		if tenant == "" || s.tenant == tenant {
			list = append(list, s.view())
		}
	}
	slices.SortFunc(list, func(a, b Submitter) int { return strings.Compare(a.User, b.User) })
	return list
}

// VerifySubmitter checks a password (Argon2id, with a positive cache of a
// minute); at most two hashes are computed at a time, further callers wait or
// get kind later. Kind denied when wrong, with the same cost for unknown users.
func (r *Registry) VerifySubmitter(ctx context.Context, user, password string) (Submitter, error) {
	const op = "tenant.VerifySubmitter"
	name, ok := userName(user)
	if !ok {
		name = user
	}
	var hash string
	s := r.submitter(name)
	if s != nil && s.state == SubmitterActive {
		hash = s.hash
	}
	right, err := r.passwords.verify(ctx, name, password, hash)
	if err != nil {
		return Submitter{}, wrap(op, err)
	}
	if !right {
		return Submitter{}, fault.New(fault.Denied, op, "the user name or the password is wrong")
	}
	r.noteUse(&s.used, use{id: name}, r.c.Now())
	return s.view(), nil
}
