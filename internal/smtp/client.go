package smtp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// TLSMode is how a client uses TLS.
type TLSMode int

const (
	TLSNone          TLSMode = iota // never
	TLSOpportunistic                // STARTTLS when offered, the peer not verified; in clear when the handshake fails is the caller's retry
	TLSRequired                     // STARTTLS or fail; what is verified is in Config
	TLSImplicit                     // TLS from the first byte
)

// Target is one host to talk to.
type Target struct {
	Address  string     // host:port or unix path of the peer
	Network  string     // "tcp" when empty, or "unix"
	Local    netip.Addr // source address, zero for any
	Hello    string     // our EHLO name
	TLS      TLSMode
	Config   *tls.Config // with ServerName and whatever verifies the peer
	LMTP     bool        // LHLO and a reply per recipient (RFC 2033)
	Timeouts Timeouts
}

// Timeouts of a client, each with the minimum of RFC 5321 4.5.3.2 when zero.
type Timeouts struct {
	Dial, Greeting, Hello, Mail, Rcpt, DataInit, DataBlock, DataDone time.Duration
}

// Client is one connection to a server. It is for one goroutine at a time.
type Client struct {
	// unexported
}

// DialError says at which step a connection could not be had, with the
// server's reply when there was one.
type DialError struct {
	Step  string     // "dial", "greeting", "hello", "starttls", "tls", "auth"
	Reply mail.Reply // zero when the server said nothing
	Err   error
}

func (e *DialError) Error() string { panic("skeleton") }
func (e *DialError) Unwrap() error { return e.Err }

// Dial connects, reads the greeting, says EHLO (HELO when refused) and
// STARTTLS as the target asks. Failures are *DialError.
func Dial(ctx context.Context, t Target) (*Client, error) { panic("skeleton") }

// NewClient does the same over a connection that exists.
func NewClient(ctx context.Context, c net.Conn, t Target) (*Client, error) { panic("skeleton") }

// Extension returns the argument of an EHLO keyword and whether it is offered.
func (c *Client) Extension(keyword string) (string, bool) { panic("skeleton") }

// MaxSize is the server's SIZE, 0 when it names none.
func (c *Client) MaxSize() int64 { panic("skeleton") }

// TLSState is nil in clear.
func (c *Client) TLSState() *tls.ConnectionState { panic("skeleton") }

// Remote is the peer's address.
func (c *Client) Remote() string { panic("skeleton") }

// Auth authenticates with PLAIN, or LOGIN where only that is offered. It is
// refused in clear except to a loopback address.
func (c *Client) Auth(ctx context.Context, user, password string) error { panic("skeleton") }

// Content is a message's bytes to be sent: Prefix (trace header fields of
// ours) and then what Open yields. Both have CRLF line ends.
type Content struct {
	Prefix []byte
	Open   func() (io.ReadCloser, error)
	Bytes  []byte // instead of Open, when the body is in memory
	Size   int64  // of prefix and body
}

// Result is what the server said to one transaction.
type Result struct {
	Mail mail.Reply
	Rcpt []mail.Reply // in the order of the envelope's recipients
	Data []mail.Reply // one, or with LMTP one per accepted recipient; empty when DATA was not reached
	Sent bool         // the final dot was sent
}

// Send runs one transaction, pipelined where the server offers it (RFC 2920).
// Recipients that the server refuses do not stop the others. ready is called
// when the content has been sent except for its final dot, and again never; it
// may block, and when it fails the connection is closed without the dot: this
// is how at most one 250 is unrecorded per connection. A non-nil error means
// that the connection is of no more use; Result then holds what was heard
// until then. When Sent is true and Data is empty, nobody knows whether the
// message was delivered.
func (c *Client) Send(ctx context.Context, env mail.Envelope, body Content, ready func(context.Context) error) (Result, error) {
	panic("skeleton")
}

// Probe asks about recipients without sending anything (MAIL, RCPT…, RSET).
func (c *Client) Probe(ctx context.Context, from mail.Address, to []mail.Recipient) (Result, error) {
	panic("skeleton")
}

// Alive reports whether an idle connection can be used again: nothing to read
// on it, not closed by the peer. It costs one non-blocking read, no round trip.
func (c *Client) Alive() bool { panic("skeleton") }

// Quit says QUIT, waits briefly for 221 and closes.
func (c *Client) Quit() error { panic("skeleton") }

// Close closes without a word.
func (c *Client) Close() error { panic("skeleton") }
