package connection

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Grant is what the customer's administrator gives when a connection to his
// Microsoft 365 is made.
type Grant struct {
	AdminToken string // "" for none
	Once       bool   // used now and not kept in custody
	Hold       bool   // nothing is changed at the customer's: what would be is to be reviewed first
}

// Setup is what is to be done at the customer's, and what was.
type Setup struct {
	TestReport
	Script  string `json:"script"`  // for Exchange Online PowerShell
	Consent string `json:"consent"` // address where the administrator consents, "" without an app registration
	App     string `json:"app"`     // the certificate of the app registration, PEM; "" without one
}

// AddGranted is Add with the customer's side set up, as far as the grant goes.
// What could not be set up there is in the report and in the connection's
// health; the connection is made all the same.
func (r *Registry) AddGranted(ctx context.Context, a tenant.Actor, c Connection, g Grant) (Connection, Setup, error) {
	const op = "connection.Add"
	e, err := check(op, c)
	if err != nil || e.Kind != KindM365 {
		made, err := r.Add(ctx, a, c)
		return made, Setup{}, err
	}
	if _, err := r.custody(op, e.Tenant); err != nil {
		return Connection{}, Setup{}, err
	}
	if g.AdminToken != "" && e.AppObject == "" {
		if c, err = r.withApp(ctx, e, g.AdminToken); err != nil {
			hint := grantFix(e, err, "")
			return Connection{}, Setup{}, &fault.Error{Kind: fault.KindOf(err), Op: op, Err: err, Hint: hint}
		}
	}
	made, err := r.Add(ctx, a, c)
	if err != nil {
		return Connection{}, Setup{}, err
	}
	report, err := r.SetUp(ctx, a, made.Tenant, made.Name, g)
	if err != nil {
		return made, report, err
	}
	made, _ = r.Get(made.Tenant, made.Name)
	return made, report, nil
}

// withApp finds the customer's app registration for us. A tenant that has none
// gets mail alone.
func (r *Registry) withApp(ctx context.Context, e *entry, token string) (Connection, error) {
	g := graph.New(graph.Config{Base: e.Graph, HTTP: r.web(e), Now: r.c.Now, Token: func(context.Context) (string, error) { return token, nil }})
	app, err := findApp(ctx, g, e.AppID)
	if err != nil {
		return Connection{}, err
	}
	c := e.Connection
	c.AppID, c.AppObject = app.AppID, app.ID
	return c, nil
}

// SetUp keeps the grant and brings the customer's side into the form that the
// connection needs: what is right there stays. With Hold, or without a token,
// it only says what is to be done.
func (r *Registry) SetUp(ctx context.Context, a tenant.Actor, tenant, name string, g Grant) (Setup, error) {
	const op = "connection.SetUp"
	e := r.entry(tenant, name)
	switch {
	case e == nil:
		return Setup{}, missing(op, tenant, name)
	case e.Kind != KindM365:
		return Setup{}, invalid(op, "connection "+name+" is of kind "+e.Kind, "Only connections of kind m365 are set up at the customer's.")
	}
	if err := r.ensure(ctx, e, false); err != nil {
		return Setup{}, err
	}
	unlock, err := r.busy.lock(ctx, place{tenant, name})
	if err != nil {
		return Setup{}, wrap(op, err)
	}
	defer unlock()
	open, err := r.underWay(ctx, tenant, name)
	if err != nil {
		return Setup{}, wrap(op, err)
	}
	m, err := r.microsoft(op, e)
	if err != nil {
		return Setup{}, err
	}
	all, err := m.k.ListIdentities(ctx, tenant, name)
	if err != nil {
		return Setup{}, wrap(op, err)
	}
	s := Setup{TestReport: TestReport{OK: true, Steps: []TestStep{}}}
	if err := s.describe(e, all); err != nil {
		return s, err
	}
	if open != nil && !g.Hold && (g.AdminToken == "" || g.Once) {
		return s, fault.New(fault.Conflict, op, "the identities of connection "+name+" are being replaced, which sets up the customer's side").
			WithHint("Give a token that is kept (without --forget-admin-token), which the replacement uses at once; or wait until it is over: sallyport connection replace " + tenant + " " + name + " --status.")
	}
	if g.AdminToken != "" && !g.Once && !g.Hold {
		if err := m.k.SetSecret(ctx, tenant, name, purposeAdmin, client.Credential{User: "administrator", Password: g.AdminToken}); err != nil {
			return s, wrap(op, err)
		}
	}
	switch {
	case open != nil && !g.Hold:
		s.note("token", time.Now(), "kept, and used by the replacement that is under way", "")
		r.Hurry(tenant, name)
		return s, nil
	case !g.Hold:
		err = r.apply(ctx, m, all, g, &s)
	}
	if err == nil && (g.Hold || !s.OK || len(s.Steps) == 0) {
		r.noteWaiting(e, &s)
	}
	return s, wrap(op, err)
}

// describe writes what the administrator would do by hand.
func (s *Setup) describe(e *entry, all []act.Identity) error {
	mail := coming(all, PurposeClient)
	if mail == nil {
		mail = pick(ofPurpose(all, PurposeClient), act.Staged) // on its way, after a compromise
	}
	if mail == nil {
		return fault.New(fault.Conflict, "connection.SetUp", "connection "+e.Name+" has no active identity").
			WithHint("Look at: sallyport identity list --tenant " + e.Tenant + ".")
	}
	s.Script = script(e, mail.Name)
	app := active(all, PurposeApp)
	if app == nil {
		app = pick(ofPurpose(all, PurposeApp), act.Staged)
	}
	if app != nil && len(app.Chain) > 0 {
		s.Consent = e.Login + "/" + e.EntraTenant + "/adminconsent?client_id=" + e.AppID
		s.App = pemOf(app.Chain[0])
	}
	return nil
}

// noteWaiting has the connection's health say that the customer has to act,
// unless the connection is known to work.
func (r *Registry) noteWaiting(e *entry, s *Setup) {
	if h := e.health.Load(); s.OK && h != nil && h.OK != nil && *h.OK {
		return
	}
	ok, now := false, r.now()
	reason := "waiting for the customer: sallyport connection setup " + e.Tenant + " " + e.Name + " --print shows what his administrator has to do"
	for _, step := range s.Steps {
		if !step.OK {
			reason = step.Name + ": " + step.Detail
			break
		}
	}
	r.NoteHealth(e.Tenant, e.Name, Health{OK: &ok, CheckedAt: &now, Reason: &reason})
}

// apply does what the grant allows. Without one it does nothing.
func (r *Registry) apply(ctx context.Context, m *microsoft, all []act.Identity, g Grant, s *Setup) error {
	may, err := m.granted(ctx, g.AdminToken)
	if fault.Is(err, fault.Missing) && g.AdminToken == "" {
		return nil
	}
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func() (string, error)
	}{
		{"domains", func() (string, error) { return r.acceptedDomains(ctx, may) }},
		{"authority", func() (string, error) { return trustAuthority(ctx, may) }},
		{"connector", func() (string, error) { return setConnector(ctx, may, all) }},
		{"key", func() (string, error) { return setKey(ctx, may, all) }},
	}
	for _, step := range steps {
		begin := time.Now()
		detail, err := step.do()
		if err != nil {
			s.note(step.name, begin, fault.Sentence(err), grantFix(m.e, err, "See what Microsoft 365 says, and run the setup again."))
			return nil
		}
		if detail != "" {
			s.note(step.name, begin, detail, "")
		}
	}
	return nil
}

// grantFix is what to do about a failure of what the administrator's grant is
// for. Microsoft says of a token of another tenant, or of a tenant that is not,
// no more than that it may not do this.
func grantFix(e *entry, err error, otherwise string) string {
	if r := wire.AsRefusal(err); r != nil && (r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden) {
		return "See that --entra-tenant " + e.EntraTenant + " is the customer's, and that the administrator's token is of that tenant and still valid; " +
			"if so, have him grant the permission that this needs, and consent to it."
	}
	return orText(fault.HintOf(err), otherwise)
}

func orText(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// note adds a step to a report; one with a fix has failed.
func (t *TestReport) note(name string, begin time.Time, detail, fix string) {
	t.Steps = append(t.Steps, TestStep{Name: name, OK: fix == "", MS: time.Since(begin).Milliseconds(), Detail: detail, Fix: fix})
	t.OK = t.OK && fix == ""
}

// served are the tenant's domains that a connection serves.
func (r *Registry) served(e *entry) []string {
	var names []string
	for _, d := range r.c.Tenants.Domains(e.Tenant) {
		if e.Direction == DirectionOutbound || r.find(e.Tenant, d.Name, false) == e {
			names = append(names, d.Name)
		}
	}
	return names
}

// acceptedDomains sees that the customer's Microsoft 365 takes mail for the
// domains that we would deliver there.
func (r *Registry) acceptedDomains(ctx context.Context, g *grant) (string, error) {
	if g.admin == nil {
		return "", nil
	}
	accepted, err := g.admin.AcceptedDomains(ctx)
	if err != nil {
		return "", err
	}
	served := r.served(g.e)
	if len(served) == 0 {
		return "the tenant has no domain yet", nil
	}
	var foreign []string
	for _, d := range served {
		if !slices.ContainsFunc(accepted, func(a string) bool { return strings.EqualFold(a, d) }) {
			foreign = append(foreign, d)
		}
	}
	if len(foreign) > 0 {
		return "", fault.New(fault.Invalid, "", strings.Join(foreign, ", ")+" is no accepted domain of this Microsoft 365, which accepts "+strings.Join(accepted, ", ")).
			WithHint("Check --entra-tenant, have the domain added there, or say with --domain which domains this connection serves.")
	}
	return strings.Join(served, ", ") + " accepted there", nil
}

// trustAuthority has the simulator take our built-in authority for a public
// one. Microsoft knows public authorities alone.
func trustAuthority(ctx context.Context, g *grant) (string, error) {
	if g.admin == nil {
		return "", nil
	}
	state, err := g.k.Status(ctx)
	if err != nil || len(state.Root) == 0 {
		return "", err
	}
	return "the simulator takes the region's own authority for a public one", g.admin.TrustRoot(ctx, state.Root)
}

func setConnector(ctx context.Context, g *grant, all []act.Identity) (string, error) {
	i := coming(all, PurposeClient)
	if g.admin == nil || i == nil {
		return "", nil
	}
	before, _, err := g.connectors(ctx)
	if err != nil {
		return "", err
	}
	if err := g.accept(ctx, i.Name); err != nil {
		return "", err
	}
	switch {
	case before == nil:
		return "made the connector " + g.connectorName() + " for " + i.Name, nil
	case before.TlsSenderCertificateName == i.Name:
		return "the connector " + before.Name + " names " + i.Name, nil
	}
	return fmt.Sprintf("the connector %s names %s now; it named %s before", before.Name, i.Name, before.TlsSenderCertificateName), nil
}

func setKey(ctx context.Context, g *grant, all []act.Identity) (string, error) {
	i := active(all, PurposeApp)
	if i == nil || len(i.Chain) == 0 {
		return "", nil
	}
	if err := g.keepKeys(ctx, i.Chain[0]); err != nil {
		return "", err
	}
	return "the app registration " + g.e.AppID + " has our key alone, SHA-256 " + Fingerprint(i.SHA256), nil
}
