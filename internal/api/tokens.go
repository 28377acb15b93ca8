package api

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Token is a token as the contract shows it: absent is null.
type Token struct {
	tenant.Token
	Tenant *string `json:"tenant" doc:"null is every tenant"`
}

// NewToken is a token with its secret, this once.
type NewToken struct {
	Token
	Secret string `json:"token" doc:"Never shown again"`
}

func shownToken(t tenant.Token) Token { return Token{t, or(t.Tenant)} }

func tokens(r *router) {
	on(r, http.MethodGet, "/v1/tokens", "List the tokens", r.listTokens)
	on(r, http.MethodPost, "/v1/tokens", "Add a token; shows its secret once", r.addToken, creates, secretAnswer)
	on(r, http.MethodPost, "/v1/tokens/{id}/revoke", "Revoke a token", r.revokeToken)
}

// ownTokens are those that the caller may see.
func (s *server) ownTokens(ctx context.Context) ([]tenant.Token, error) {
	own, err := scope(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []tenant.Token
	for _, t := range s.Tenants.Tokens() {
		if own == "" || t.Tenant == own {
			list = append(list, t)
		}
	}
	return list, nil
}

func (s *server) listTokens(ctx context.Context, in *struct{ Paging }) (*out[Page[Token]], error) {
	own, err := s.ownTokens(ctx)
	if err != nil {
		return nil, err
	}
	var all []Token
	for _, t := range own {
		all = append(all, shownToken(t))
	}
	return cut(all, func(t Token) string { return t.ID }, in.Paging), nil
}

func (s *server) addToken(ctx context.Context, in *struct {
	Body struct {
		Role      tenant.Role `json:"role" required:"true" enum:"operator,admin,read"`
		Tenant    *string     `json:"tenant" doc:"null is every tenant; default the caller's"`
		ExpiresAt *time.Time  `json:"expires_at"`
	}
}) (*made[NewToken], error) {
	asked := ""
	if in.Body.Tenant != nil {
		asked = *in.Body.Tenant
	}
	own, err := scope(ctx, asked)
	if err != nil {
		return nil, err
	}
	if in.Body.Role == tenant.Operator && caller(ctx).Role != tenant.Operator {
		return nil, fault.New(fault.Denied, "api.addToken", "only an operator can make another").
			WithHint("Ask for the role admin or read.")
	}
	t, secret, err := s.Tenants.AddToken(ctx, actor(ctx), tenant.Token{Role: in.Body.Role, Tenant: own, ExpiresAt: in.Body.ExpiresAt})
	return &made[NewToken]{http.StatusCreated, NewToken{shownToken(t), secret}}, err
}

func (s *server) revokeToken(ctx context.Context, in *struct {
	ID string `path:"id"`
}) (*out[Token], error) {
	if _, err := s.ownToken(ctx, in.ID); err != nil {
		return nil, err
	}
	if err := s.Tenants.RevokeToken(ctx, actor(ctx), in.ID); err != nil {
		return nil, err
	}
	t, err := s.ownToken(ctx, in.ID)
	return reply(t), err
}

func (s *server) ownToken(ctx context.Context, id string) (Token, error) {
	own, err := s.ownTokens(ctx)
	if err != nil {
		return Token{}, err
	}
	for _, t := range own {
		if t.ID == id {
			return shownToken(t), nil
		}
	}
	return Token{}, fault.New(fault.Missing, "api.ownToken", "there is no token "+quoted(id)).
		WithHint("List the tokens to see their ids.")
}
