package api

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Replacement is a change of a connection's identities as it is shown: absent
// is null.
type Replacement struct {
	OK bool `json:"ok" doc:"It came to its end, and the new identity alone is in use"`
	connection.Replacement
	From       *string `json:"from" doc:"Name of the identity before: of mail, else of the application"`
	To         *string `json:"to" doc:"Name of the identity after; null while it is not chosen"`
	Waiting    *string `json:"waiting" doc:"What it waits for"`
	Fix        *string `json:"fix" doc:"Who has to do what about that"`
	Refused    *int    `json:"refused" doc:"Recipients that the partner refused meanwhile because of who we are"`
	DelayedMax *int64  `json:"delayed_max_ms" doc:"Longest time from acceptance to delivery of the mail that came meanwhile"`
}

func shownReplacement(p connection.Replacement) Replacement {
	v := Replacement{OK: p.OK(), Replacement: p, From: or(p.From), To: or(p.To), Waiting: or(p.Waiting), Fix: or(p.Fix)}
	if p.Refused >= 0 {
		v.Refused = &p.Refused
	}
	if p.DelayedMax >= 0 {
		v.DelayedMax = &p.DelayedMax
	}
	return v
}

// Identity is a connection's identity as it is shown: absent is null.
type Identity struct {
	connection.Identity
	Tenant      *string    `json:"tenant" doc:"Null for the certificate of one of our host names"`
	NotBefore   *time.Time `json:"not_before" doc:"Null while it is not issued"`
	NotAfter    *time.Time `json:"not_after"`
	SHA256      *string    `json:"sha256" doc:"Of the certificate, in hex"`
	Fingerprint *string    `json:"fingerprint" doc:"The same as Postfix and OpenSSL write it"`
	Explanation *string    `json:"explanation" doc:"Why it is not issued yet"`
}

func shownIdentity(i connection.Identity) Identity {
	v := Identity{Identity: i, Tenant: or(i.Tenant), SHA256: or(i.SHA256), Fingerprint: or(connection.Fingerprint(i.SHA256)), Explanation: or(i.Explanation)}
	if !i.NotAfter.IsZero() {
		v.NotBefore, v.NotAfter = &i.NotBefore, &i.NotAfter
	}
	return v
}

// Compromised is what became of a compromised identity and of its connection.
type Compromised struct {
	Replacement
	Identity Identity  `json:"identity"`
	Next     *Identity `json:"next" doc:"The one in use from now on; null while there is none"`
}

func replacements(r *router) {
	const base = "/v1/tenants/{tenant}/connections/{name}/replace"
	on(r, http.MethodGet, base, "Show the replacement of a connection's identities that is under way, or the last one", r.showReplacement)
	on(r, http.MethodPost, base, "Replace a connection's identities by the next epoch while mail flows", r.startReplacement)
	on(r, http.MethodPost, base+"/undo", "Lead a replacement back, until the partner has dropped the old identity", r.undoReplacement)
}

func identities(r *router) {
	const base = "/v1/identities"
	on(r, http.MethodGet, base, "List identities: certificates of connections, never their keys", r.listIdentities)
	on(r, http.MethodGet, base+"/{id}", "Show an identity", r.showIdentity)
	on(r, http.MethodPost, base+"/{id}/rotate", "Renew an identity's connection under the same name, or under the next", r.rotateIdentity)
	on(r, http.MethodPost, base+"/{id}/compromise", "Have an identity refused at once, and its connection moved to the next epoch", r.compromiseIdentity, within(testTime))
}

func (s *server) showReplacement(ctx context.Context, in *OneConnection) (*out[Replacement], error) {
	c, err := s.connection(ctx, *in)
	if err != nil {
		return nil, err
	}
	p, err := s.Connections.Replacement(ctx, c.Tenant, c.Name)
	if err != nil {
		return nil, err
	}
	return reply(shownReplacement(p)), nil
}

func (s *server) startReplacement(ctx context.Context, in *OneConnection) (*out[Replacement], error) {
	c, err := s.connection(ctx, *in)
	if err != nil {
		return nil, err
	}
	p, err := s.Connections.StartReplacement(ctx, actor(ctx), c.Tenant, c.Name, connection.KindReplace)
	if err != nil {
		return nil, err
	}
	// Whoever asks again has told the partner in between.
	s.Connections.Hurry(c.Tenant, c.Name)
	return reply(shownReplacement(p)), nil
}

func (s *server) undoReplacement(ctx context.Context, in *OneConnection) (*out[Replacement], error) {
	c, err := s.connection(ctx, *in)
	if err != nil {
		return nil, err
	}
	p, err := s.Connections.UndoReplacement(ctx, actor(ctx), c.Tenant, c.Name)
	if err != nil {
		return nil, err
	}
	s.Connections.Hurry(c.Tenant, c.Name)
	return reply(shownReplacement(p)), nil
}

func (s *server) listIdentities(ctx context.Context, in *struct {
	Tenant string `query:"tenant" doc:"Of this tenant's connections only"`
	Paging
}) (*out[Page[Identity]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if name != "" {
		if _, err := s.existing(ctx, name); err != nil {
			return nil, err
		}
	}
	all, err := s.Connections.Identities(ctx, name)
	if err != nil {
		return nil, err
	}
	shown := make([]Identity, len(all))
	for n, i := range all {
		shown[n] = shownIdentity(i)
	}
	return cut(shown, func(i Identity) string { return i.ID }, in.Paging), nil
}

// OneIdentity names an identity.
type OneIdentity struct {
	ID string `path:"id"`
}

// identity finds one of the caller's; another tenant's is missing.
func (s *server) identity(ctx context.Context, in OneIdentity) (string, connection.Identity, error) {
	name, err := scope(ctx, "")
	if err != nil {
		return "", connection.Identity{}, err
	}
	i, err := s.Connections.Identity(ctx, name, in.ID)
	if fault.Is(err, fault.Missing) {
		err = fault.New(fault.Missing, "api.identity", "there is no identity "+quoted(in.ID)).WithHint("List the identities to see their ids.")
	}
	return name, i, err
}

func (s *server) showIdentity(ctx context.Context, in *OneIdentity) (*out[Identity], error) {
	_, i, err := s.identity(ctx, *in)
	return reply(shownIdentity(i)), err
}

func (s *server) rotateIdentity(ctx context.Context, in *struct {
	OneIdentity
	Body *struct {
		Epoch bool `json:"epoch" doc:"The next epoch, a new name; else a new key under the same name"`
	}
}) (*out[Replacement], error) {
	name, i, err := s.identity(ctx, in.OneIdentity)
	if err != nil {
		return nil, err
	}
	p, err := s.Connections.Rotate(ctx, actor(ctx), name, i.ID, in.Body != nil && in.Body.Epoch)
	if err != nil {
		return nil, err
	}
	return reply(shownReplacement(p)), nil
}

func (s *server) compromiseIdentity(ctx context.Context, in *OneIdentity) (*out[Compromised], error) {
	name, i, err := s.identity(ctx, *in)
	if err != nil {
		return nil, err
	}
	p, err := s.Connections.Compromise(ctx, actor(ctx), name, i.ID)
	if err != nil {
		return nil, err
	}
	if i, err = s.Connections.Identity(ctx, name, i.ID); err != nil {
		return nil, err
	}
	v := Compromised{Replacement: shownReplacement(p), Identity: shownIdentity(i)}
	for _, pair := range p.Identities {
		if pair.From != i.ID || pair.To == "" {
			continue // a purpose whose change was taken over
		}
		if next, err := s.Connections.Identity(ctx, name, pair.To); err == nil {
			v.Next = new(shownIdentity(next))
		}
	}
	return reply(v), nil
}
