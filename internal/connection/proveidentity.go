package connection

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crypto/sha256"

	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// soon is when a certificate that is about to end is a finding.
const soon = 21 * 24 * time.Hour

// proveIdentity goes on where the mail of a test ended: with the identities of
// the connection, and for Microsoft 365 with what the customer's side knows of
// them.
func (p *proof) proveIdentity(ctx context.Context) {
	if p.r.c.Keepers == nil || !p.e.hasIdentity() {
		return
	}
	begin := time.Now()
	k, all, err := p.r.identities(ctx, p.e)
	if err != nil {
		p.step("certificate", begin, fault.Sentence(err), orText(fault.HintOf(err), "See that the keeper runs: mail waits meanwhile."))
		return
	}
	mail := active(all, PurposeClient)
	if mail == nil {
		p.step("certificate", begin, "the connection has no active identity", p.r.fixNoIdentity(ctx, p.e))
		return
	}
	p.certificate(*mail)
	if p.e.Kind == KindM365 {
		p.customer(ctx, p.r.microsoftOf(p.e, k), all)
	}
}

// fixNoIdentity is what to do about a connection that has no identity to show
// now: nothing, where a change that is under way gives it one.
func (r *Registry) fixNoIdentity(ctx context.Context, e *entry) string {
	if r.c.Keepers == nil {
		return "This connection has no identity yet: put its certificate and key where custody looks for them, or give --tls verified."
	}
	status := "sallyport connection replace " + e.Tenant + " " + e.Name + " --status"
	switch p, err := r.underWay(ctx, e.Tenant, e.Name); {
	case err == nil && p != nil && p.Kind == KindCompromise:
		return "A compromise waits, and mail with it. For what, and who has to do what: " + status + "."
	case err == nil && p != nil:
		return "A change of its identities waits. For what: " + status + "."
	case e.Kind == KindM365:
		return "Give it one: sallyport connection setup " + e.Tenant + " " + e.Name + "."
	}
	return "It is given one by itself. What has become of that: sallyport identity list --tenant " + e.Tenant + ", and the log of the keeper."
}

// certificate says what we show, and what it is good for.
func (p *proof) certificate(i act.Identity) {
	begin := time.Now()
	if len(i.Chain) == 0 {
		p.step("certificate", begin, "the keeper gives no certificate for identity "+i.ID, "Look at the keeper's log.")
		return
	}
	leaf, err := x509.ParseCertificate(i.Chain[0])
	if err != nil {
		p.step("certificate", begin, err.Error(), "Renew it: sallyport identity rotate "+i.ID+".")
		return
	}
	detail := fmt.Sprintf("we show %s, SHA-256 %s, for %s, issued by %s, good until %s", i.Name, Fingerprint(i.SHA256), usages(i.Chain), leaf.Issuer, i.NotAfter.UTC().Format(time.DateOnly))
	fix := ""
	if left := i.NotAfter.Sub(p.r.now()); left < min(soon, i.NotAfter.Sub(i.NotBefore)/4) {
		fix = "It should have been renewed by now: see what its replacement waits for with sallyport connection replace " + p.e.Tenant + " " + p.e.Name + " --status."
	}
	if i.Issuer == "builtin" && p.e.Kind == KindM365 && isMicrosoft(p.e.Graph) {
		fix = "Exchange Online takes certificates of public authorities alone, and this one is the region's own: have the keeper issue by ACME."
	}
	p.step("certificate", begin, detail, fix)
}

// usages are what a certificate is for, and which CA above it takes which
// purpose away: public authorities give up clientAuth, and not every partner
// wants it.
func usages(chain [][]byte) string {
	good, limits := act.Purposes(chain)
	words := orText(strings.Join(good, " and "), "no purpose that is known")
	for _, l := range limits {
		words += " (" + l.Purpose + " is not allowed by " + l.By + ")"
	}
	return words
}

// customer proves the customer's Microsoft 365: what its administrator's grant
// lets us see, and the application's sign-in.
func (p *proof) customer(ctx context.Context, m *microsoft, all []act.Identity) {
	begin := time.Now()
	g, err := m.granted(ctx, "")
	switch {
	case fault.Is(err, fault.Missing):
		// Nothing is granted: the message has shown what mail can show.
	case err != nil:
		p.step("connector", begin, fault.Sentence(err), orText(fault.HintOf(err), "See that the keeper runs."))
	case g.admin != nil:
		p.domains(ctx, g)
		p.connector(ctx, g, all)
	}
	if app := active(all, PurposeApp); app != nil {
		p.application(ctx, m, all, *app)
	}
}

func (p *proof) domains(ctx context.Context, g *grant) {
	begin := time.Now()
	detail, err := p.r.acceptedDomains(ctx, g)
	if err != nil {
		p.step("domains", begin, fault.Sentence(err), grantFix(p.e, err, "Try again in some minutes."))
		return
	}
	p.step("domains", begin, detail, "")
}

// connector compares the names that the customer's connectors let in with
// those that we show.
func (p *proof) connector(ctx context.Context, g *grant, all []act.Identity) {
	begin := time.Now()
	first, _, err := g.connectors(ctx)
	names := map[string]string{}
	if err == nil {
		names, err = g.admitted(ctx)
	}
	if err != nil {
		p.step("connector", begin, fault.Sentence(err), grantFix(p.e, err, "Have the administrator's token renewed: sallyport connection setup "+p.e.Tenant+" "+p.e.Name+" --admin-token-file FILE."))
		return
	}
	want := active(all, PurposeClient).Name
	setup := "Run sallyport connection setup " + p.e.Tenant + " " + p.e.Name + ", or have the administrator run:\n"
	switch at := admittedBy(names, want); {
	case at == "" && first == nil:
		p.step("connector", begin, "the tenant has no inbound connector for this gateway, expected one for "+want, setup+strings.TrimSpace(makeScript(p.e, want)))
		return
	case at == "":
		p.step("connector", begin, "the connector "+first.Name+" still names "+first.TlsSenderCertificateName+", expected "+want,
			setup+"Set-InboundConnector -Identity "+quotePS(first.Name)+" -TlsSenderCertificateName "+quotePS(want))
		return
	default:
		p.step("connector", begin, "the connector "+at+" names "+want, "")
	}
	for _, i := range ofPurpose(all, PurposeClient) {
		if at := admittedBy(names, i.Name); at != "" && i.Name != want && (i.State == act.Compromised || i.State == act.Retired) {
			p.step("connector", begin, "the connector "+at+" still lets in "+i.Name+", which is "+string(i.State), "Have it removed or renamed in the Exchange admin centre.")
		}
	}
}

// admittedBy is the connector that lets a name in, "" for none.
func admittedBy(names map[string]string, name string) string {
	for _, connector := range slices.Sorted(maps.Keys(names)) {
		if covers(names[connector], name) {
			return connector
		}
	}
	return ""
}

// application signs in and reads its own registration.
func (p *proof) application(ctx context.Context, m *microsoft, all []act.Identity, app act.Identity) {
	begin := time.Now()
	fix := "Register the connection's current certificate: sallyport connection setup " + p.e.Tenant + " " + p.e.Name + "."
	g, err := m.asApp(app.ID)
	var seen graph.Application
	if err == nil {
		seen, err = g.Application(ctx, p.e.AppID)
	}
	if err != nil {
		p.step("token", begin, fault.Sentence(err), orText(fault.HintOf(err), fix))
		return
	}
	p.step("token", begin, "signed in as "+seen.DisplayName+" ("+p.e.AppID+") with SHA-256 "+Fingerprint(app.SHA256)+", and Graph answers", "")
	p.keyList(seen, all)
}

// keyList names certificates on the customer's app registration that are none
// of ours: who has their keys can sign in as this application.
func (p *proof) keyList(seen graph.Application, all []act.Identity) {
	begin := time.Now()
	ours := map[string]act.IdentityState{}
	for _, i := range ofPurpose(all, PurposeApp) {
		ours[i.SHA256] = i.State
	}
	var bad []string
	for _, k := range seen.Keys {
		sum := sha256.Sum256(k.Key)
		state, known := ours[hex.EncodeToString(sum[:])]
		name := k.DisplayName
		if c, err := x509.ParseCertificate(k.Key); err == nil {
			name = c.Subject.String()
		}
		switch {
		case !known:
			bad = append(bad, fmt.Sprintf("%s (key id %s) is none of ours", name, k.KeyID))
		case state == act.Compromised || state == act.Retired:
			bad = append(bad, fmt.Sprintf("%s (key id %s) is %s", name, k.KeyID, state))
		}
	}
	if len(bad) > 0 {
		p.step("keys", begin, strings.Join(bad, "; "), "Whoever has that key can sign in as this application: have the administrator remove it, or run sallyport connection setup "+p.e.Tenant+" "+p.e.Name+".")
		return
	}
	p.step("keys", begin, fmt.Sprintf("%d registered, each of them ours", len(seen.Keys)), "")
}
