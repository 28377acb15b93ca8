package act

// All are the acts, in the order in which they are listed above: what a
// gateway may ask for. Orders are among them, since a gateway carries what
// operators signed; the keeper believes the signatures and not the carrier.
func All() []Name {
	return []Name{
		HandshakeAsTenant, HandshakeAsHost, TenantCertificate, HostCertificate, SignDKIM, SealARC, AssertClient, ProvePossession,
		BindConnection, ReleaseConnection, IssueIdentity, MoveIdentity, ListIdentities, AcmeChallenge, OpenCredential, SetCredential, RemoveCredential,
		ListCredentials, ReportSighting, Order, EnterEvents, SearchLedger, ShowEntry, ProveEntry, ExportLedger, Checkpoint, Status,
	}
}
