package wire

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Prefix is where the routes of the acts are.
const Prefix = "/v1/acts/"

// Config is what a server is made from.
type Config struct {
	Region string
	Acts   Acts
	Allow  []Grant
	// Refused is told of every request that was refused before it reached
	// Acts. It must not block.
	Refused func(Refusal)
	// ActTime is how long an act may take; 0 means 10 s.
	ActTime time.Duration
	// Connections at a time on each listener; 0 means 512.
	Connections int
	Log         *slog.Logger
}

// Refusal is a request that nobody should have made.
type Refusal struct {
	Peer    Peer
	Act     act.Name // as asked for, at most 100 bytes
	Context act.Context
	Reason  string
}

// Server serves the acts.
type Server struct {
	c    Config
	all  map[act.Name]route
	http *http.Server

	larges  chan struct{} // a slot for each large body that is read
	streams chan struct{} // and for each long answer under way
}

const (
	idleTime   = 2 * time.Minute
	headerTime = 5 * time.Second
	maxName    = 100
	maxContext = 256
	atOnce     = 16 // large bodies, and long answers
)

// New makes a server; it listens when Serve is called.
func New(c Config) (*Server, error) {
	const op = "wire.New"
	if c.Region == "" || c.Acts == nil || c.Refused == nil {
		return nil, fault.New(fault.Invalid, op, "the keeper's server needs a region, its acts, and somebody to tell of refusals").
			WithHint("Give all three.")
	}
	if c.ActTime == 0 {
		c.ActTime = 10 * time.Second
	}
	if c.Connections == 0 {
		c.Connections = 512
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, larges: make(chan struct{}, atOnce), streams: make(chan struct{}, atOnce)}
	s.all = s.routes(c.Acts)
	s.http = &http.Server{
		Handler: s, ConnContext: withPeer,
		ReadHeaderTimeout: headerTime, ReadTimeout: c.ActTime + headerTime,
		WriteTimeout: 2*c.ActTime + headerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// ServeUnix serves a Unix socket until Shutdown.
func (s *Server) ServeUnix(l *net.UnixListener) error {
	return served(s.http.Serve(&peerListener{UnixListener: l, server: s, slots: make(chan struct{}, s.c.Connections)}))
}

// ServeTLS serves TCP with mutual TLS until Shutdown. The configuration must
// name the CA of the clients; TLS 1.3 and a client certificate are demanded
// here.
func (s *Server) ServeTLS(l net.Listener, t *tls.Config) error {
	const op = "wire.ServeTLS"
	if t == nil || t.ClientCAs == nil {
		return fault.New(fault.Invalid, op, "no CA of the clients was given").WithHint("Name the CA that issues the gateways' certificates.")
	}
	t = t.Clone()
	t.MinVersion, t.ClientAuth = tls.VersionTLS13, tls.RequireAndVerifyClientCert
	t.NextProtos = []string{"http/1.1"}
	limited := &slotListener{Listener: l, slots: make(chan struct{}, s.c.Connections)}
	return served(s.http.Serve(tls.NewListener(limited, t)))
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.Wrap(fault.Internal, "wire.Serve", err)
}

// Shutdown ends the listeners and waits for the acts under way.
func (s *Server) Shutdown(ctx context.Context) error {
	return fault.Wrap(fault.Later, "wire.Shutdown", s.http.Shutdown(ctx))
}

// slotListener bounds the connections of a TCP listener: one more waits in
// the kernel's queue.
type slotListener struct {
	net.Listener
	slots chan struct{}
}

func (l *slotListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotConn{Conn: c, gone: onlyOnce(func() { <-l.slots })}, nil
}

type slotConn struct {
	net.Conn
	gone func()
}

func (c *slotConn) Close() error {
	c.gone()
	return c.Conn.Close()
}

func onlyOnce(f func()) func() {
	var once sync.Once
	return func() { once.Do(f) }
}

// route is an act's scope, the bound of its body, and its doing.
type route struct {
	scope scope
	limit int64
	do    func(s *Server, ctx context.Context, r rawRequest) (any, error)
}

// streamed is the answer of an act that has written it already.
type streamed struct{}

// rawRequest is a request whose sender may ask for it.
type rawRequest struct {
	name  act.Name
	scope scope
	peer  Peer
	body  io.Reader
	limit int64
	out   *streamWriter
}

// serve makes a route's doing from the method of Acts.
func serve[Q act.Request, A any](f func(context.Context, Peer, Q) (A, error)) func(*Server, context.Context, rawRequest) (any, error) {
	return func(s *Server, ctx context.Context, r rawRequest) (any, error) {
		q, err := read[Q](ctx, s, r)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, s.c.ActTime)
		defer cancel()
		return f(ctx, r.peer, q)
	}
}

// stream makes a route's doing from a method that writes its answer bit by
// bit. It may take as long as somebody reads: each write has its own time.
func stream[Q act.Request](f func(context.Context, Peer, Q, io.Writer) error) func(*Server, context.Context, rawRequest) (any, error) {
	return func(s *Server, ctx context.Context, r rawRequest) (any, error) {
		q, err := read[Q](ctx, s, r)
		if err != nil {
			return nil, err
		}
		select {
		case s.streams <- struct{}{}:
			defer func() { <-s.streams }()
		default:
			return nil, busy("as much is given out already as is at a time")
		}
		err = f(ctx, r.peer, q, r.out)
		if err != nil && r.out.begun {
			// What was sent can't be taken back. The reader sees a body that breaks
			// off, which no export is.
			panic(http.ErrAbortHandler)
		}
		return streamed{}, err
	}
}

// streamWriter gives each write of a long answer its own time.
type streamWriter struct {
	w     http.ResponseWriter
	time  time.Duration
	begun bool
}

func (w *streamWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.w.Header().Set("Content-Type", "application/jsonl")
	}
	if err := http.NewResponseController(w.w).SetWriteDeadline(time.Now().Add(w.time)); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}

// stated refuses a request that does not say for whom, says another region, or
// names what can be no name.
func (s *Server) stated(c act.Context, r rawRequest) error {
	const op = "wire.Stated"
	kind, reason, hint := fault.Denied, "", "State region, purpose and trace, and what the act is of."
	switch {
	case c.Region != s.c.Region:
		reason = "the request is for another region than this keeper's"
	case c.Purpose == "" || c.Trace == "":
		reason = "the request states no purpose or no trace id"
	case r.scope == ofAny:
	case r.scope >= ofTenant && c.Tenant == "", r.scope == ofConnection && c.Connection == "":
		reason = "the request does not say for which tenant and connection"
	case r.scope == ofRegion && (c.Tenant != "" || c.Connection != ""):
		reason = "the act is of the region, and the request names a tenant"
	}
	// No entry can have such a name, so that the act would leave none.
	for _, t := range []*string{&c.Region, &c.Tenant, &c.Connection, &c.Purpose, &c.Trace} {
		if len(*t) > maxContext || strings.ContainsFunc(*t, isOdd) {
			kind, reason = fault.Invalid, "a name in the request has more than 256 bytes, or characters that are not printed"
			hint = "Shorten it, and leave those characters out."
		}
		*t = (*t)[:min(len(*t), maxContext)]
	}
	if reason == "" {
		return nil
	}
	s.refuse(Refusal{Peer: r.peer, Act: r.name, Context: c, Reason: reason})
	return fault.New(kind, op, reason).WithHint(hint)
}

// isOdd is what a name has no use for: what moves a cursor, turns the direction
// of a text, or is not seen.
func isOdd(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }

// refuse tells of a refusal. Who is refused may come back as often as he likes,
// so the log is told by those who sum it up.
func (s *Server) refuse(r Refusal) {
	r.Act = r.Act[:min(len(r.Act), maxName)]
	s.c.Log.Debug("keeper refused a request", "peer", r.Peer.String(), "act", string(r.Act), "reason", r.Reason)
	s.c.Refused(r)
}

// ServeHTTP is every route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const op = "wire.Serve"
	peer := peerOf(r)
	path, ours := strings.CutPrefix(r.URL.Path, Prefix)
	name := act.Name(path)
	rt, known := s.all[name]
	switch {
	case !ours || !known || r.Method != http.MethodPost:
		s.refuse(Refusal{Peer: peer, Act: act.Name(strings.TrimPrefix(r.URL.Path, Prefix)), Reason: "there is no such act"})
		s.answer(w, nil, fault.New(fault.Missing, op, "there is no such act").WithHint("Use the client of the same version as the keeper."))
		return
	case !s.may(peer, name):
		s.refuse(Refusal{Peer: peer, Act: name, Context: said(w, r, rt.limit), Reason: "the act is beyond what this peer may ask for"})
		s.answer(w, nil, fault.New(fault.Denied, op, "this peer may not ask for "+string(name)).
			WithHint("Add the act to the peer's grant in the keeper's settings, if it should."))
		return
	}
	got, err := rt.do(s, r.Context(), rawRequest{name: name, scope: rt.scope, peer: peer, body: http.MaxBytesReader(w, r.Body, rt.limit),
		limit: rt.limit, out: &streamWriter{w: w, time: 2 * s.c.ActTime}})
	if _, done := got.(streamed); done && err == nil {
		return
	}
	s.answer(w, got, err)
}

// said is the tenant that a request names, which is not to be done: whose
// connection somebody is after is worth an entry. What is no slug is not told, nor
// anything else of the request.
func said(w http.ResponseWriter, r *http.Request, limit int64) (c act.Context) {
	var q struct {
		Tenant string `json:"tenant"`
	}
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, min(limit, small))).Decode(&q) == nil && isSlug(q.Tenant) {
		c.Tenant = q.Tenant
	}
	return c
}

// isSlug reports whether s can be a tenant's name: [a-z0-9-], 1 to 40.
func isSlug(s string) bool {
	other := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }
	return s != "" && len(s) <= 40 && !strings.ContainsFunc(s, other)
}

// answer writes what came out. The bytes may be a credential: they are wiped.
func (s *Server) answer(w http.ResponseWriter, got any, err error) {
	if err != nil {
		s.problem(w, err)
		return
	}
	b, err := json.Marshal(got)
	if err != nil {
		s.problem(w, err)
		return
	}
	defer clear(b)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b) // nobody is left to be told of a failure
}
