package tenant_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func TestTokens(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "acme")
		initial, err := tenant.NewSecret(c.now())
		must(t, err)
		must(t, r.ImportToken(ctx, initial))
		must(t, r.ImportToken(ctx, initial))
		soon := c.now().Add(time.Hour)
		_, admin, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Admin, Tenant: "acme", ExpiresAt: &soon})
		must(t, err)
		read, readSecret, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Read})
		must(t, err)

		for _, r := range []*tenant.Registry{r, openRegistry(t, s, c)} {
			for secret, want := range map[string]tenant.Principal{
				initial:    {Role: tenant.Operator},
				admin:      {Role: tenant.Admin, Tenant: "acme"},
				readSecret: {Role: tenant.Read},
			} {
				p, err := r.Authenticate(secret)
				must(t, err)
				if p.Role != want.Role || p.Tenant != want.Tenant || !strings.Contains(secret, p.Token) {
					t.Errorf("got %+v, want %+v", p, want)
				}
			}
		}
		wrong := admin[:len(admin)-1] + "A"
		if wrong == admin {
			wrong = admin[:len(admin)-1] + "B"
		}
		stranger, err := tenant.NewSecret(c.now())
		must(t, err)
		for _, secret := range []string{"", "spt_", wrong, stranger, admin + "x", strings.ToLower(admin), read.ID} {
			_, err := r.Authenticate(secret)
			wantKind(t, err, fault.Denied)
		}
		must(t, r.RevokeToken(ctx, "system", read.ID))
		_, err = r.Authenticate(readSecret)
		wantKind(t, err, fault.Denied)
		c.add(2 * time.Hour)
		_, err = r.Authenticate(admin)
		wantKind(t, err, fault.Denied)
		_, err = openRegistry(t, s, c).Authenticate(readSecret)
		wantKind(t, err, fault.Denied)
	})
}

func TestTokenRefusals(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "acme")
		past := c.now()
		for what, k := range map[string]struct {
			tok  tenant.Token
			kind fault.Kind
		}{
			"role":            {tenant.Token{Role: "root"}, fault.Invalid},
			"operator of one": {tenant.Token{Role: tenant.Operator, Tenant: "acme"}, fault.Invalid},
			"admin of all":    {tenant.Token{Role: tenant.Admin}, fault.Invalid},
			"no such tenant":  {tenant.Token{Role: tenant.Read, Tenant: "nobody"}, fault.Missing},
			"expired":         {tenant.Token{Role: tenant.Read, ExpiresAt: &past}, fault.Invalid},
		} {
			_, secret, err := r.AddToken(ctx, "system", k.tok)
			if !fault.Is(err, k.kind) || secret != "" {
				t.Errorf("%s: %v", what, err)
			}
		}
		wantKind(t, r.ImportToken(ctx, "hello"), fault.Invalid)
		wantKind(t, r.RevokeToken(ctx, "system", "none"), fault.Missing)

		first, secret, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Operator})
		must(t, err)
		wantKind(t, r.RevokeToken(ctx, "system", first.ID), fault.Conflict)
		second, _, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Operator})
		must(t, err)
		must(t, r.RevokeToken(ctx, "system", first.ID))
		wantKind(t, r.RevokeToken(ctx, "system", second.ID), fault.Conflict)
		// The revoked one does not come back with its file.
		must(t, r.ImportToken(ctx, secret))
		_, err = r.Authenticate(secret)
		wantKind(t, err, fault.Denied)
	})
}

func TestLastUseIsWrittenAtClose(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "acme")
		_, secret, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Operator})
		must(t, err)
		_, password, err := r.AddSubmitter(ctx, "system", "acme", "app")
		must(t, err)
		c.add(time.Minute)
		_, err = r.Authenticate(secret)
		must(t, err)
		_, err = r.VerifySubmitter(ctx, "app", password)
		must(t, err)
		must(t, r.Close(ctx))
		again := openRegistry(t, s, c)
		tok, user := again.Tokens()[0], again.Submitters("acme")[0]
		if tok.LastUsed == nil || !tok.LastUsed.Equal(c.now()) || user.LastUsed == nil || !user.LastUsed.Equal(c.now()) {
			t.Errorf("last uses are %v and %v, want %v", tok.LastUsed, user.LastUsed, c.now())
		}
	})
}

func TestSubmitters(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "acme", "globex")
		added, password, err := r.AddSubmitter(ctx, "system", "acme", "App@Acme.test")
		must(t, err)
		if added.User != "app@acme.test" || added.Connection != "smtp-auth" || added.State != "active" {
			t.Errorf("added %+v", added)
		}
		_, _, err = r.AddSubmitter(ctx, "system", "globex", "app@acme.test")
		wantKind(t, err, fault.Conflict)
		for _, name := range []string{"", "a b", "a@", strings.Repeat("x", 65), "a\x00b"} {
			_, _, err = r.AddSubmitter(ctx, "system", "acme", name)
			wantKind(t, err, fault.Invalid)
		}
		for _, r := range []*tenant.Registry{r, openRegistry(t, s, c)} {
			for _, name := range []string{"app@acme.test", "APP@ACME.TEST"} {
				got, err := r.VerifySubmitter(ctx, name, password)
				must(t, err)
				if got.Tenant != "acme" {
					t.Errorf("verified as %+v", got)
				}
			}
		}
		wantKind(t, r.RevokeSubmitter(ctx, "system", "globex", "app@acme.test"), fault.Missing)
		_, err = r.ResetSubmitter(ctx, "system", "globex", "app@acme.test")
		wantKind(t, err, fault.Missing)

		fresh, err := r.ResetSubmitter(ctx, "system", "acme", "app@acme.test")
		must(t, err)
		_, err = r.VerifySubmitter(ctx, "app@acme.test", password)
		wantKind(t, err, fault.Denied)
		_, err = r.VerifySubmitter(ctx, "app@acme.test", fresh)
		must(t, err)
		must(t, r.RevokeSubmitter(ctx, "system", "acme", "app@acme.test"))
		_, err = r.VerifySubmitter(ctx, "app@acme.test", fresh)
		wantKind(t, err, fault.Denied)
		if got := r.Submitters("acme"); len(got) != 1 || got[0].State != "revoked" || len(r.Submitters("globex")) != 0 {
			t.Errorf("submitters %+v", got)
		}
	})
}

// Guessing gets slower; a client that is known not to guess does not.
func TestGuessing(t *testing.T) {
	c := newClock()
	r := openRegistry(t, openSQLite(t), c)
	ctx := t.Context()
	addTenants(t, r, "acme")
	_, password, err := r.AddSubmitter(ctx, "system", "acme", "app")
	must(t, err)
	_, err = r.VerifySubmitter(ctx, "app", password)
	must(t, err)
	for range 5 {
		_, err = r.VerifySubmitter(ctx, "app", "guess")
		wantKind(t, err, fault.Denied)
	}
	_, err = r.VerifySubmitter(ctx, "app", "guess")
	wantKind(t, err, fault.Later)
	_, err = r.VerifySubmitter(ctx, "app", password) // remembered
	must(t, err)
	c.add(time.Second)
	_, err = r.VerifySubmitter(ctx, "app", "guess")
	wantKind(t, err, fault.Denied)
	c.add(time.Second)
	_, err = r.VerifySubmitter(ctx, "app", "guess")
	wantKind(t, err, fault.Later)
	c.add(time.Minute)
	_, err = r.VerifySubmitter(ctx, "app", password) // no longer remembered, and the delay is over
	must(t, err)
	for range 5 {
		_, err = r.VerifySubmitter(ctx, "nobody", "guess")
		wantKind(t, err, fault.Denied)
	}
	_, err = r.VerifySubmitter(ctx, "nobody", "guess")
	wantKind(t, err, fault.Later)
}
