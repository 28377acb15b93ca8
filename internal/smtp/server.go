package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Conn is what a session knows of its connection. The server fills it in and
// keeps it current; a session only reads it, from within its own calls.
type Conn struct {
	ID        string         // short, for logs
	Listener  string         // the Listener's Name
	Remote    netip.AddrPort // the client, behind PROXY the address that it names
	Local     netip.AddrPort
	Hello     string               // argument of the last EHLO or HELO
	ESMTP     bool                 // EHLO rather than HELO
	TLS       *tls.ConnectionState // nil in clear
	User      string               // authenticated user, "" before AUTH
	StartedAt time.Time
}

// Backend makes a session for each connection.
type Backend interface {
	// Connect is called before the greeting. A nil reply greets with 220; a
	// non-nil one (421, 554) is sent instead and the connection closed. It
	// must not block: a slow answer is a slow greeting.
	Connect(ctx context.Context, c *Conn) (Session, *mail.Reply)
}

// Session is one client's connection as the product sees it: the seam between
// protocol and product. Calls come one at a time, in an order that RFC 5321
// allows (the server answers 503 itself). A nil *mail.Reply means the ordinary
// positive reply. Replies of code 421 close the connection.
type Session interface {
	// Hello is told of EHLO or HELO; Conn has the name.
	Hello(ctx context.Context) *mail.Reply
	// Mail opens a transaction (RFC 5321 4.1.1.2).
	Mail(ctx context.Context, from mail.Address, p mail.FromParams) *mail.Reply
	// Rcpt adds a recipient (4.1.1.3).
	Rcpt(ctx context.Context, to mail.Recipient) *mail.Reply
	// Data receives the content: r yields it unstuffed, with CRLF line ends,
	// and io.EOF at its end; any other error of r (ErrTooLong, ErrBareLine,
	// ErrLineLength, a network error) must end the transaction without
	// keeping anything, and the server replies for those by itself. The
	// server drains what Data leaves unread. The reply is sent only after
	// Data returned: 250 promises that the message is kept.
	Data(ctx context.Context, r io.Reader) mail.Reply
	// Reset ends the transaction: RSET, a new EHLO, or after Data.
	Reset()
	// Refused is told of each negative reply the server gave on its own
	// account (syntax, sequence, limits), so that it can be counted and traced.
	// command is the verb alone, "" where there was none.
	Refused(command string, r mail.Reply)
	// Close is the last call, whatever happened.
	Close()
}

// Authenticator is implemented by sessions of listeners with AUTH.
type Authenticator interface {
	// Auth checks a user's password (RFC 4954, RFC 4616). nil accepts.
	Auth(ctx context.Context, user, password string) *mail.Reply
}

// Listener is one listening address's rules.
type Listener struct {
	Name     string
	Hostname func(c *Conn) string // greeting and EHLO name
	// TLS is nil for no STARTTLS. No session is resumed, whatever it says
	// (Server.EndShown).
	TLS *tls.Config
	// TLSReady is asked before a STARTTLS is taken; false is answered with 454,
	// and the client may go on or come again. nil: always.
	TLSReady     func(context.Context) bool
	ImplicitTLS  bool           // TLS from the first byte (RFC 8314 3)
	RequireTLS   bool           // 530 5.7.0 before STARTTLS for AUTH and MAIL
	Auth         bool           // offer AUTH, only within TLS
	InsecureAuth bool           // offer AUTH in clear too: loopback tests only
	Proxy        []netip.Prefix // PROXY protocol is expected from these peers, and from nobody else believed
	MaxSize      int64          // SIZE, bytes
	MaxRcpt      int            // recipients in a transaction, then 452 4.5.3
	MaxLine      int            // bytes of a content line with CRLF, 0: no limit
	MaxErrors    int            // negative replies before 421
	MaxConns     int            // concurrent connections on this listener, then 421 4.3.2
	// EvictSilent lets a new connection into a full listener at the cost of
	// the oldest one that has said nothing for at least this long. 0: never.
	EvictSilent time.Duration
	// EvictIdle does the same at the cost of the oldest one that has talked
	// for at least this long without sending mail, when no silent one gives
	// way. 0: never.
	EvictIdle time.Duration
	// FirstCommandTimeout is how long a client may be silent after the
	// greeting while the listener is more than half full. 0: 30 seconds.
	FirstCommandTimeout time.Duration
	CommandTimeout      time.Duration // RFC 5321 4.5.3.2.7: 5 minutes
	DataTimeout         time.Duration // between two reads of content, 0: 3 minutes
	MinDataRate         int64         // bytes a second, averaged after the first 30 s, below which 421 4.4.2; 0: none
	TransactionTimeout  time.Duration // the longest a connection may take for one transaction, 0: no limit
}

// What a Listener means by zero, where no limit at all would let a peer hold a
// connection for ever.
const (
	defaultCommandTimeout = 5 * time.Minute
	defaultDataTimeout    = 3 * time.Minute
	defaultFirstTimeout   = 30 * time.Second
	defaultMaxErrors      = 100
)

func (l Listener) orDefaults() Listener {
	l.CommandTimeout = cmp.Or(l.CommandTimeout, defaultCommandTimeout)
	l.DataTimeout = cmp.Or(l.DataTimeout, defaultDataTimeout)
	l.FirstCommandTimeout = cmp.Or(l.FirstCommandTimeout, min(defaultFirstTimeout, l.CommandTimeout))
	l.MaxErrors = cmp.Or(l.MaxErrors, defaultMaxErrors)
	return l
}
