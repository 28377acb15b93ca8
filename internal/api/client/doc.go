// Package client is the Go client of the HTTP API: it knows addresses, tokens,
// pages and problem documents, and no room but fault.
//
// Callers: the command line, the demo, tests.
package client
