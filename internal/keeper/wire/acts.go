package wire

import (
	"context"
	"io"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Acts does what is asked. Each method enters its act in the ledger before a
// key or a secret is used, and the outcome after.
type Acts interface {
	HandshakeAsTenant(context.Context, Peer, act.Handshake) (act.Signature, error)
	HandshakeAsHost(context.Context, Peer, act.HostHandshake) (act.Signature, error)
	TenantCertificate(context.Context, Peer, act.Which) (act.Certificate, error)
	HostCertificate(context.Context, Peer, act.Host) (act.Certificate, error)
	SignDKIM(context.Context, Peer, act.DKIM) (act.Field, error)
	SealARC(context.Context, Peer, act.ARC) (act.Set, error)
	AssertClient(context.Context, Peer, act.Assertion) (act.JWT, error)
	ProvePossession(context.Context, Peer, act.Assertion) (act.JWT, error)
	BindConnection(context.Context, Peer, act.Bind) (act.Done, error)
	ReleaseConnection(context.Context, Peer, act.Plain) (act.Done, error)
	IssueIdentity(context.Context, Peer, act.Issue) (act.Identity, error)
	MoveIdentity(context.Context, Peer, act.Move) (act.Identity, error)
	ListIdentities(context.Context, Peer, act.IdentityQuery) (act.IdentityList, error)
	// AcmeChallenge is the one that is not entered: anybody on the internet can
	// have it asked, and what it answers is public.
	AcmeChallenge(context.Context, Peer, act.Challenge) (act.KeyAuthorization, error)
	OpenCredential(context.Context, Peer, act.Plain) (act.Credential, error)
	SetCredential(context.Context, Peer, act.NewCredential) (act.Done, error)
	RemoveCredential(context.Context, Peer, act.Plain) (act.Done, error)
	ListCredentials(context.Context, Peer, act.Plain) (act.CredentialList, error)
	// ReportSighting enters what has a decoy's code, and nothing else: anybody on
	// the internet can send one.
	ReportSighting(context.Context, Peer, act.Sighting) (act.Done, error)
	Order(context.Context, Peer, act.SignedOrder) (act.Ordered, error)
	EnterEvents(context.Context, Peer, act.Events) (act.Done, error)
	SearchLedger(context.Context, Peer, act.Search) (act.Entries, error)
	ShowEntry(context.Context, Peer, act.Entry) (act.Document, error)
	ProveEntry(context.Context, Peer, act.Entry) (act.Document, error)
	// ExportLedger writes the export of docs/ledger.md, however long it is.
	ExportLedger(context.Context, Peer, act.Plain, io.Writer) error
	Checkpoint(context.Context, Peer, act.Plain) (act.Log, error)
	Status(context.Context, Peer, act.Plain) (act.State, error)
}

// scope is what a request must say.
type scope int

const (
	ofRegion     scope = iota // neither tenant nor connection
	ofTenant                  // a tenant
	ofConnection              // a tenant and its connection
	ofAny                     // whatever it narrows itself to
)

// Sizes of bodies.
const (
	small = 16 << 10
	large = 1 << 20 // header fields in JSON: 256 KB, each byte perhaps as \u00xx
)

// routes is the whole list of what can be asked.
func (s *Server) routes(a Acts) map[act.Name]route {
	return map[act.Name]route{
		act.HandshakeAsTenant: {ofConnection, small, serve(a.HandshakeAsTenant)},
		act.HandshakeAsHost:   {ofRegion, small, serve(a.HandshakeAsHost)},
		act.TenantCertificate: {ofConnection, small, serve(a.TenantCertificate)},
		act.HostCertificate:   {ofRegion, small, serve(a.HostCertificate)},
		act.SignDKIM:          {ofTenant, large, serve(a.SignDKIM)},
		act.SealARC:           {ofTenant, large, serve(a.SealARC)},
		act.AssertClient:      {ofConnection, small, serve(a.AssertClient)},
		act.ProvePossession:   {ofConnection, small, serve(a.ProvePossession)},
		act.BindConnection:    {ofConnection, small, serve(a.BindConnection)},
		act.ReleaseConnection: {ofConnection, small, serve(a.ReleaseConnection)},
		act.IssueIdentity:     {ofConnection, small, serve(a.IssueIdentity)},
		act.MoveIdentity:      {ofAny, small, serve(a.MoveIdentity)},
		act.ListIdentities:    {ofAny, small, serve(a.ListIdentities)},
		act.AcmeChallenge:     {ofRegion, small, serve(a.AcmeChallenge)},
		act.OpenCredential:    {ofConnection, small, serve(a.OpenCredential)},
		act.SetCredential:     {ofConnection, small, serve(a.SetCredential)},
		act.RemoveCredential:  {ofConnection, small, serve(a.RemoveCredential)},
		act.ListCredentials:   {ofTenant, small, serve(a.ListCredentials)},
		act.ReportSighting:    {ofRegion, small, serve(a.ReportSighting)},
		act.Order:             {ofRegion, large, serve(a.Order)},
		act.EnterEvents:       {ofRegion, large, serve(a.EnterEvents)},
		act.SearchLedger:      {ofAny, small, serve(a.SearchLedger)},
		act.ShowEntry:         {ofAny, small, serve(a.ShowEntry)},
		act.ProveEntry:        {ofAny, small, serve(a.ProveEntry)},
		act.ExportLedger:      {ofRegion, small, stream(a.ExportLedger)},
		act.Checkpoint:        {ofRegion, small, serve(a.Checkpoint)},
		act.Status:            {ofRegion, small, serve(a.Status)},
	}
}
