package edge

import (
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Unproven is a client certificate that a tenant registered, and that a client
// held, but that counted as no proof. The tenant's mail is refused as a
// stranger's then, which no reply can say: it would tell strangers whose
// certificate that is.
type Unproven struct {
	Tenant, Connection string
	SHA256             string
	Why                string
	Times              uint64 // handshakes since start
	Last               time.Time
}

// remindEvery is how often the log says the same of a certificate.
const remindEvery = time.Hour

// unprovens remembers them: at most as many as there are registered ones,
// since each was found in the registry, and its key used, when it was noted.
type unprovens struct {
	mu   sync.Mutex
	book map[string]*unproven // by fingerprint
}

type unproven struct {
	Unproven
	logged time.Time
}

// unfit says why a certificate cannot be the proof of a client, "" when it
// can.
func unfit(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(leaf.NotBefore):
		return "it is valid only from " + leaf.NotBefore.UTC().Format(time.RFC3339)
	case now.After(leaf.NotAfter):
		return "it ended at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case !forClients(leaf):
		return "clientAuth is not among its extended key usages"
	}
	return ""
}

// unprove notes a registered certificate that is no proof, and logs it.
func (e *Edge) unprove(tenant, connection, sum, why string) {
	e.unproven.Add(1)
	if !e.unprovens.note(Unproven{Tenant: tenant, Connection: connection, SHA256: sum, Why: why, Times: 1, Last: e.c.Now()}) {
		return
	}
	e.c.Log.Warn("a registered client certificate is no proof", slog.String("tenant", tenant),
		slog.String("connection", connection), slog.String("sha256", sum), slog.String("why", why))
}

// note is true when the log is due to say it (again).
func (u *unprovens) note(now Unproven) (due bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.book[now.SHA256]
	if known == nil {
		known = &unproven{}
		u.book[now.SHA256] = known
	}
	now.Times += known.Times
	due = known.Why != now.Why || now.Last.Sub(known.logged) >= remindEvery
	known.Unproven = now
	if due {
		known.logged = now.Last
	}
	return due
}

// prove forgets what was noted of a certificate that is proof by now.
func (u *unprovens) prove(sum string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.book, sum)
}

// Unproven lists those that are still registered, by tenant and connection.
func (e *Edge) Unproven() []Unproven {
	u := &e.unprovens
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Unproven
	for sum, known := range u.book {
		name, conn, ok := e.c.Connections.ByClientCert(sum)
		if !ok || name != known.Tenant || conn != known.Connection {
			delete(u.book, sum)
			continue
		}
		all = append(all, known.Unproven)
	}
	slices.SortFunc(all, func(a, b Unproven) int {
		return strings.Compare(a.Tenant+"\x00"+a.Connection+"\x00"+a.SHA256, b.Tenant+"\x00"+b.Connection+"\x00"+b.SHA256)
	})
	return all
}
