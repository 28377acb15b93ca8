// Package admin is the client for a tenant's mail connectors in Exchange
// Online: list, get, make, change and remove them.
//
// Microsoft has no web API for connectors, only PowerShell cmdlets. This
// client speaks the plain stand-in that the simulator serves, with the
// cmdlets' parameter names; against the real service an administrator runs the
// same cmdlets. It decides nothing: which name a connector should have is the
// connection room's to say.
//
// Invariants: a change names only the parameters it changes; the client sees a
// bearer token for the time of a call and never a key.
//
// Callers: connection, incident.
package admin
