package demo

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// tenantOf is one of the demonstration's customers.
type tenantOf struct{ name, region string }

func (t tenantOf) domain() string { return t.name + ".test" }

// regions are the seven cells.
func regions() []string { return []string{"us", "uk", "de", "ca", "za", "au", "je"} }

// tenants are a dozen customers over all regions.
func tenants() []tenantOf {
	return []tenantOf{{"acme", "us"}, {"borealis", "us"}, {"cobalt", "us"}, {"dunmore", "uk"}, {"elbe", "de"}, {"fjord", "de"},
		{"garnet", "ca"}, {"heron", "ca"}, {"impala", "za"}, {"jarrah", "au"}, {"kelpie", "au"}, {"lillie", "je"}}
}

// copyKey names one copy: a message for a recipient.
type copyKey struct {
	seq string // the X-Demo-Sequence field
	to  string
}

// postOffice is every tenant's mailbox server.
type postOffice struct {
	boxes map[string]*mailbox

	mu       sync.Mutex
	arrivals map[copyKey][]time.Time
	byRegion map[string]int
}

// mailbox is one tenant's SMTP server.
type mailbox struct {
	tenant tenantOf
	post   *postOffice
	ln     net.Listener
	server *smtp.Server
}

func openPostOffice() (*postOffice, error) {
	p := &postOffice{boxes: map[string]*mailbox{}, arrivals: map[copyKey][]time.Time{}, byRegion: map[string]int{}}
	for _, t := range tenants() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.close()
			return nil, err
		}
		b := &mailbox{tenant: t, post: p, ln: ln}
		b.server = &smtp.Server{Backend: b, Log: slog.New(slog.DiscardHandler), Now: time.Now}
		p.boxes[t.name] = b
		go b.server.Serve(ln, smtp.Listener{Name: t.name, Hostname: func(*smtp.Conn) string { return "mail." + t.domain() },
			MaxSize: 64 << 20, MaxRcpt: 1000, MaxConns: 1000})
	}
	return p, nil
}

func (p *postOffice) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, b := range p.boxes {
		b.server.Shutdown(ctx)
		b.ln.Close()
	}
}

func (b *mailbox) port() int { return b.ln.Addr().(*net.TCPAddr).Port }

// arrived notes one copy.
func (p *postOffice) arrived(region string, k copyKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrivals[k] = append(p.arrivals[k], time.Now())
	p.byRegion[region]++
}

// distinct is how many different copies have arrived.
func (p *postOffice) distinct() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.arrivals)
}

// regionCounts are copies by region, for the live figures.
func (p *postOffice) regionCounts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]int{}
	for k, v := range p.byRegion {
		out[k] = v
	}
	return out
}

// Connect makes a session: a mailbox takes from anybody.
func (b *mailbox) Connect(context.Context, *smtp.Conn) (smtp.Session, *mail.Reply) {
	return &delivery{box: b}, nil
}

// delivery is one connection to a mailbox.
type delivery struct {
	box *mailbox
	to  []string
}

func (d *delivery) Hello(context.Context) *mail.Reply { return nil }

func (d *delivery) Mail(context.Context, mail.Address, mail.FromParams) *mail.Reply { return nil }

// Rcpt takes only the tenant's own domain: a copy that strays would be refused
// and counted as lost.
func (d *delivery) Rcpt(_ context.Context, to mail.Recipient) *mail.Reply {
	if to.Domain != d.box.tenant.domain() {
		return &mail.Reply{Code: 550, Enhanced: "5.7.1", Text: "not ours"}
	}
	d.to = append(d.to, to.Address.String())
	return nil
}

func (d *delivery) Data(_ context.Context, r io.Reader) mail.Reply {
	raw, err := io.ReadAll(r)
	if err != nil {
		return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "content not read"}
	}
	end := bytes.Index(raw, []byte("\r\n\r\n"))
	if end < 0 {
		end = len(raw)
	}
	seq := strings.Join(mail.Values(raw[:end], "X-Demo-Sequence"), "")
	for _, to := range d.to {
		d.box.post.arrived(d.box.tenant.region, copyKey{seq, to})
	}
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "kept"}
}

func (d *delivery) Reset()                     { d.to = nil }
func (d *delivery) Refused(string, mail.Reply) {}
func (d *delivery) Close()                     {}
