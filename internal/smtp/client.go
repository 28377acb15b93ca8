package smtp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// TLSMode is how a client uses TLS.
type TLSMode int

const (
	TLSNone          TLSMode = iota // never
	TLSOpportunistic                // STARTTLS when offered, the peer not verified; in clear when the handshake fails is the caller's retry
	TLSRequired                     // STARTTLS or fail; what is verified is in Config
	TLSImplicit                     // TLS from the first byte; what is verified is in Config
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

// orDefaults fills in what is zero.
func (t Timeouts) orDefaults() Timeouts {
	for _, d := range []struct {
		of      *time.Duration
		minimum time.Duration
	}{
		{&t.Dial, 30 * time.Second}, // RFC 5321 names none
		{&t.Greeting, 5 * time.Minute},
		{&t.Hello, 5 * time.Minute},
		{&t.Mail, 5 * time.Minute},
		{&t.Rcpt, 5 * time.Minute},
		{&t.DataInit, 2 * time.Minute},
		{&t.DataBlock, 3 * time.Minute},
		{&t.DataDone, 10 * time.Minute},
	} {
		if *d.of <= 0 {
			*d.of = d.minimum
		}
	}
	return t
}

// Client is one connection to a server. It is for one goroutine at a time.
type Client struct {
	target Target
	wire
	hello     string // text of the reply to EHLO: extensions from line 2 on
	greeting  mail.Reply
	offers    offers
	tls       *tls.ConnectionState
	mechanism string // of AUTH, the last that was begun
	needReset bool   // the server may still be in a transaction
}

// offers are the extensions that Send looks at for every message.
type offers struct {
	pipelining, eightBit, utf8, size, dsn bool
	maxSize                               int64
}

// DialError says at which step a connection could not be had, with the
// server's reply when there was one.
type DialError struct {
	Step  string     // "dial", "greeting", "hello", "starttls", "tls", "auth"
	Reply mail.Reply // zero when the server said nothing
	Err   error
}

func (e *DialError) Error() string {
	if e.Reply.Code != 0 {
		return "smtp " + e.Step + ": " + e.Reply.String()
	}
	return "smtp " + e.Step + ": " + e.Err.Error()
}

func (e *DialError) Unwrap() error { return e.Err }

// refusedAt is the DialError for a reply that was not the hoped-for one.
func refusedAt(step string, r mail.Reply) *DialError {
	return &DialError{Step: step, Reply: r, Err: errRefused}
}

// Dial connects, reads the greeting, says EHLO (HELO when refused) and
// STARTTLS as the target asks. Failures are *DialError.
func Dial(ctx context.Context, t Target) (*Client, error) {
	nc, err := Connect(ctx, t)
	if err != nil {
		return nil, &DialError{Step: "dial", Err: err}
	}
	return NewClient(ctx, nc, t)
}

// Connect opens a target's connection, for NewClient.
func Connect(ctx context.Context, t Target) (net.Conn, error) {
	t.Timeouts = t.Timeouts.orDefaults()
	// Keep-alive probes are of no use to a connection with timeouts of its
	// own, and setting them up is four system calls.
	d := net.Dialer{Timeout: t.Timeouts.Dial, KeepAlive: -1}
	if t.Local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: t.Local.AsSlice(), Zone: t.Local.Zone()}
		d.Control = func(_, _ string, raw syscall.RawConn) error { return bindLate(raw) }
	}
	network := t.Network
	if network == "" {
		network = "tcp"
	}
	return d.DialContext(ctx, network, t.Address)
}

// NewClient is the rest of Dial, over a connection that exists.
func NewClient(ctx context.Context, nc net.Conn, t Target) (*Client, error) {
	t.Timeouts = t.Timeouts.orDefaults()
	c := &Client{target: t}
	c.attach(nc)
	stop := c.watch(ctx)
	err := c.open()
	stop()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// open does everything up to the first transaction.
func (c *Client) open() error {
	if c.target.TLS == TLSImplicit {
		if err := c.handshake(); err != nil {
			return err
		}
	}
	r, err := c.readReply(c.target.Timeouts.Greeting)
	if err != nil {
		return &DialError{Step: "greeting", Err: err}
	}
	if r.Code != 220 {
		return refusedAt("greeting", r)
	}
	c.greeting = r
	if err := c.sayHello(); err != nil {
		return err
	}
	return c.maybeStartTLS()
}

// sayHello says EHLO, and HELO to those who do not know it (RFC 5321 3.2).
func (c *Client) sayHello() error {
	verb := "EHLO "
	if c.target.LMTP {
		verb = "LHLO "
	}
	r, err := c.ask(verb+c.helloName(), c.target.Timeouts.Hello)
	if err == nil && r.Permanent() && !c.target.LMTP {
		r, err = c.ask("HELO "+c.helloName(), c.target.Timeouts.Hello)
		r.Text, _, _ = strings.Cut(r.Text, "\n") // HELO knows no extensions
	}
	if err != nil {
		return &DialError{Step: "hello", Err: err}
	}
	if r.Code != 250 {
		return refusedAt("hello", r)
	}
	c.hello = r.Text
	c.readOffers()
	return nil
}

// helloName is our name, in a form that can be sent.
func (c *Client) helloName() string {
	if isHelloName([]byte(c.target.Hello)) {
		return c.target.Hello
	}
	return "localhost"
}

func (c *Client) readOffers() {
	c.offers = offers{}
	_, c.offers.pipelining = c.Extension("PIPELINING")
	_, c.offers.eightBit = c.Extension("8BITMIME")
	_, c.offers.utf8 = c.Extension("SMTPUTF8")
	_, c.offers.dsn = c.Extension("DSN")
	var size string
	if size, c.offers.size = c.Extension("SIZE"); size != "" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err == nil && n > 0 {
			c.offers.maxSize = n
		}
	}
}

// maybeStartTLS upgrades the connection as the target wants it.
func (c *Client) maybeStartTLS() error {
	required := c.target.TLS == TLSRequired
	if !required && c.target.TLS != TLSOpportunistic {
		return nil
	}
	if _, offered := c.Extension("STARTTLS"); !offered {
		if required {
			return &DialError{Step: "starttls", Err: errNotOffered}
		}
		return nil
	}
	r, err := c.ask("STARTTLS", c.target.Timeouts.Hello)
	if err != nil {
		return &DialError{Step: "starttls", Err: err}
	}
	if r.Code != 220 {
		if required || c.dead != nil {
			return refusedAt("starttls", r)
		}
		return nil
	}
	if c.w > c.r {
		// Replies behind the 220 came in clear, perhaps from somebody else
		// (CVE-2011-0411, the client's side of it).
		return &DialError{Step: "tls", Err: errUnasked}
	}
	if err := c.handshake(); err != nil {
		return err
	}
	return c.sayHello()
}

// handshake begins TLS.
func (c *Client) handshake() error {
	conn := tls.Client(c.socket, c.tlsConfig())
	if err := c.arm(c.target.Timeouts.Hello); err != nil {
		return &DialError{Step: "tls", Err: err}
	}
	if err := conn.Handshake(); err != nil {
		return &DialError{Step: "tls", Err: err}
	}
	c.secure(conn)
	state := conn.ConnectionState()
	c.tls = &state
	return nil
}

// tlsConfig is the target's, with what its mode means.
func (c *Client) tlsConfig() *tls.Config {
	config := &tls.Config{}
	if c.target.Config != nil {
		config = c.target.Config.Clone()
	}
	if config.ServerName == "" && config.VerifyConnection == nil {
		host, _, err := net.SplitHostPort(c.target.Address)
		if err == nil {
			config.ServerName = host
		}
	}
	if c.target.TLS == TLSOpportunistic {
		config.InsecureSkipVerify = true
	}
	// Small first records are for browsers that render while they read; here
	// they would make one message eight writes.
	config.DynamicRecordSizingDisabled = true
	return config
}

// Extension returns the argument of an EHLO keyword and whether it is offered.
func (c *Client) Extension(keyword string) (string, bool) {
	_, rest, _ := strings.Cut(c.hello, "\n")
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		word, arg, _ := strings.Cut(line, " ")
		if strings.EqualFold(word, keyword) {
			return arg, true
		}
	}
	return "", false
}

// MaxSize is the server's SIZE, 0 when it names none.
func (c *Client) MaxSize() int64 { return c.offers.maxSize }

// TLSState is nil in clear.
func (c *Client) TLSState() *tls.ConnectionState { return c.tls }

// Remote is the peer's address.
func (c *Client) Remote() string { return c.socket.RemoteAddr().String() }

// Greeting is what the server said first.
func (c *Client) Greeting() mail.Reply { return c.greeting }

// Content is a message's bytes to be sent: Prefix (trace header fields of
// ours) and then what Open yields. Both have CRLF line ends; anything else is
// refused with ErrBareLine and the connection closed before the dot.
type Content struct {
	Prefix []byte
	Open   func() (io.ReadCloser, error)
	Bytes  []byte // instead of Open, when the body is in memory
	Size   int64  // of prefix and body
}

// Result is what the server said to one transaction.
type Result struct {
	Mail mail.Reply
	// Rcpt is in the order of the envelope's recipients. Where MAIL was
	// refused, or the server took leave with 421, the reply holds for all that
	// were not answered. Code 0 is a recipient about whom nothing was heard.
	Rcpt []mail.Reply
	Data []mail.Reply // one, or with LMTP one per accepted recipient; empty when DATA was not reached
	Sent bool         // the final dot was sent
}

// Alive reports whether an idle connection can be used again: nothing to read
// on it, not closed by the peer. It costs one non-blocking read, no round trip.
func (c *Client) Alive() bool {
	if c.dead != nil || c.w > c.r {
		return false
	}
	return c.raw == nil || isQuiet(c.raw)
}

// quitTimeout is how long the 221 is waited for.
const quitTimeout = 5 * time.Second

// Quit says QUIT, waits briefly for 221 and closes.
func (c *Client) Quit() error {
	if c.dead != nil {
		return c.Close()
	}
	_, err := c.ask("QUIT", quitTimeout)
	if closing := c.Close(); err == nil {
		err = closing
	}
	return err
}

// Close closes without a word.
func (c *Client) Close() error {
	if c.dead == nil {
		c.dead = errClosed
	}
	return c.socket.Close()
}
