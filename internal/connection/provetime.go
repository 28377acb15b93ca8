package connection

import (
	"net"
	"time"
)

// until is step for one that was over before now.
func (p *proof) until(name string, begin, end time.Time, detail string) {
	p.report.note(name, begin, detail, "")
	p.report.Steps[len(p.report.Steps)-1].MS = end.Sub(begin).Milliseconds()
}

// greeted notes when its peer first said something: what was waited for until
// then is the connection, and what comes after it TLS.
type greeted struct {
	net.Conn
	at time.Time
}

// Read is of net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if g.at.IsZero() {
		g.at = time.Now()
	}
	return n, err
}
