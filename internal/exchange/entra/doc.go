// Package entra is the client for app-only access tokens of a tenant's Entra
// ID, through MSAL for Go with client assertions from a callback.
//
// It holds no key and cannot make an assertion; it says for which endpoint and
// for how long one is wanted. Tokens are kept by MSAL until they expire.
//
// Invariants: one client asks for one application in one tenant; the token's
// identifier and the request's correlation id come back with the token, for
// they are what the ledger is compared by.
//
// Callers: connection, incident.
package entra
