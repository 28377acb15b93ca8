// Package demo shows the gateway at work on loopback, and counts.
//
// It makes a temporary folder, runs the gateway as a process of its own,
// gives it a dozen tenants in seven regions with SMTP servers of ours as
// their mailboxes, sends messages of many shapes through it, kills it (-9)
// and restarts it in the middle, and says what the mailboxes really hold. It
// uses the gateway as a stranger would: by its command line, its API and SMTP.
//
// Callers: the roof's verb `demo`.
package demo
