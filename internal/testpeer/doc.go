// Package testpeer starts the real programs that suites talk to, and runs a
// suite on every kind of store.
//
// A peer runs on a free loopback port (or a Unix socket) with a directory of
// its own, as an unprivileged user where the program insists on one, and ends
// with the test. When a program is missing the test is skipped with the name
// of the Debian package; under CI=true it fails.
//
// It is imported by tests alone.
package testpeer
