// Package dns is the seam through which mail authentication and routing ask
// the DNS (RFC 1035), with a resolver over the network and a fake for tests.
//
// Names are A-labels. Callers: connection and deliver (MX), doctor, and the
// rooms of mailauth.
package dns
