// Package demo shows the gateway at work on loopback, and counts.
//
// It makes a temporary folder, runs the gateway as a process of its own,
// gives it a dozen tenants in seven regions whose mailboxes are in a simulated
// Microsoft 365 that lets in one certificate name each, and sends messages of
// many shapes through it. In the middle it replaces a tenant's identity, kills
// the gateway (-9) and starts it again, and calls another tenant's identity
// stolen. Then it says what the mailboxes really hold, and verifies the
// ledgers. It uses the gateway as a stranger would: by its command line, its
// API and SMTP.
//
// Callers: the roof's verb `demo`.
package demo
