package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// RemoteConfig says where the keeper of a region is.
type RemoteConfig struct {
	Region string
	Socket string // path of its Unix socket, or
	// Address is its host:port, with TLS our certificate and its CA.
	Address string
	TLS     *tls.Config
	// Timeout of one act; 0 means 5 s.
	Timeout time.Duration
	// Silence is how long a long answer may pause, once it has begun; 0 means 30 s.
	Silence time.Duration
	// Idle connections kept; 0 means 64.
	Idle int
	// Wake is called before each connection is made; nil does nothing. It
	// starts a keeper that is started when it is needed.
	Wake func(context.Context) error
	// HostEnded is told the SHA-256 (hex) of each certificate of one of our host
	// names that was compromised, as soon as it is known: with the move that was
	// asked for here, and, whoever asked for it, with the next answer about that
	// host's certificate. It is told the same ones again, and must not block; nil
	// does nothing.
	HostEnded func(sha256 string)
	Now       func() time.Time
}

// Remote asks the keeper process. It fulfils Signers and Credentials. It is
// safe for concurrent use.
type Remote struct {
	c    RemoteConfig
	base string
	http *http.Client
	// answered is when it last did, in microseconds; 0 after it did not.
	answered atomic.Int64

	mu    sync.Mutex
	hosts map[string]hostEntry // certificates of our host names, for a while
}

const (
	maxAnswer  = 1 << 20
	hostsKept  = 1000
	hostsFresh = 10 * time.Second
)

// NewRemote prepares a client; it connects when it is asked for something.
func NewRemote(c RemoteConfig) (*Remote, error) {
	const op = "client.NewRemote"
	if c.Region == "" || (c.Socket == "") == (c.Address == "") || c.Address != "" && c.TLS == nil {
		return nil, fault.New(fault.Invalid, op, "a keeper has a region and either a socket or an address with TLS").
			WithHint("Name the region, and one of the two.")
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Silence == 0 {
		c.Silence = 30 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = 64
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.HostEnded == nil {
		c.HostEnded = func(string) {}
	}
	t := &http.Transport{
		MaxIdleConns: c.Idle, MaxIdleConnsPerHost: c.Idle, IdleConnTimeout: time.Minute,
		DisableCompression: true, ResponseHeaderTimeout: c.Timeout,
	}
	r := &Remote{c: c, base: "http://keeper/v1/acts/", hosts: map[string]hostEntry{}}
	t.DialContext = r.dial
	if c.Socket == "" {
		r.base = "https://" + c.Address + "/v1/acts/"
		t.TLSClientConfig = c.TLS.Clone()
		t.TLSClientConfig.MinVersion = tls.VersionTLS13
	}
	r.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return r, nil
}

func (r *Remote) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if r.c.Wake != nil {
		if err := r.c.Wake(ctx); err != nil {
			return nil, err
		}
	}
	d := &net.Dialer{Timeout: r.c.Timeout}
	if r.c.Socket != "" {
		return d.DialContext(ctx, "unix", r.c.Socket)
	}
	return d.DialContext(ctx, "tcp", r.c.Address)
}

// RegionName is the region that this is the keeper of.
func (r *Remote) RegionName() string { return r.c.Region }

// reachFresh is how long an answer vouches for the next.
const reachFresh = time.Second

// Reachable reports whether the keeper can be asked now: whether a connection
// to its socket can be made. Over TCP, where a connection alone says little, it
// has answered within the last second or does so now.
func (r *Remote) Reachable(ctx context.Context) bool {
	if r.c.Address != "" {
		if age := r.c.Now().Sub(time.UnixMicro(r.answered.Load())); age >= 0 && age < reachFresh {
			return true
		}
		_, err := r.Status(ctx)
		return err == nil
	}
	c, err := r.dial(ctx, "", "")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Close closes the idle connections.
func (r *Remote) Close() { r.http.CloseIdleConnections() }

type traceKey struct{}

// WithTrace says on whose behalf the acts under ctx are: a message's id.
func WithTrace(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, traceKey{}, id)
}

// about is the context that a request states. An act of no message gets an id
// of its own, so that its entry can be found.
func (r *Remote) about(ctx context.Context, tenant, connection, purpose string) act.Context {
	id, _ := ctx.Value(traceKey{}).(string)
	if id == "" {
		id = ulid.Make().String()
	}
	return act.Context{Region: r.c.Region, Tenant: tenant, Connection: connection, Purpose: purpose, Trace: id}
}

// ask makes one request. What was sent and what came back is wiped: either may
// hold a secret.
func ask[A any](ctx context.Context, r *Remote, name act.Name, q act.Request) (A, error) {
	op := "keeper." + string(name)
	var got A
	body, err := json.Marshal(q)
	if err != nil {
		return got, fault.Wrap(fault.Internal, op, err)
	}
	defer clear(body)
	ctx, cancel := context.WithTimeout(ctx, r.c.Timeout)
	defer cancel()
	resp, err := r.post(ctx, op, name, body)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(answer)
	if err != nil {
		return got, fault.Wrap(fault.Later, op, err)
	}
	err = decode(op, resp.StatusCode, answer, &got)
	return got, err
}

func (r *Remote) post(ctx context.Context, op string, name act.Name, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+string(name), bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.http.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			r.answered.Store(0)
		}
		var asked *url.Error // its text is the request, which tells nobody anything
		if errors.As(err, &asked) {
			err = asked.Err
		}
		return nil, (&fault.Error{Kind: fault.Later, Op: op, Err: fmt.Errorf("the keeper of region %s does not answer: %w", r.c.Region, err)}).
			WithHint("Check that the keeper runs; mail that needs it waits in the queue.")
	}
	r.answered.Store(r.c.Now().UnixMicro())
	return resp, nil
}

// decode reads an answer, whoever gave it.
func decode(op string, status int, answer []byte, into any) error {
	if len(answer) > maxAnswer {
		return fault.New(fault.Later, op, "the keeper answered with more than 1 MB").WithHint("Check what listens on its socket.")
	}
	if status != http.StatusOK {
		return faultOf(op, status, answer)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fault.New(fault.Later, op, "the keeper's answer is not the JSON of this act").
			WithHint("Run a keeper of the same version as the gateway.")
	}
	return nil
}

// faultOf makes the fault that the keeper met of its problem document. One
// that is not known is of kind later: mail waits until somebody has looked.
func faultOf(op string, status int, answer []byte) error {
	var p struct{ Type, Detail, Hint string }
	_ = json.Unmarshal(answer, &p) // an answer that is no problem document has no type
	kind, ok := kindOf(strings.TrimPrefix(p.Type, "urn:sallyport:problem:"))
	if !ok || p.Detail == "" {
		return fault.New(fault.Later, op, "the keeper answered with status "+strconv.Itoa(status)).
			WithHint("Check what listens on its socket.")
	}
	return (&fault.Error{Kind: kind, Op: op, Err: errors.New(p.Detail)}).WithHint(p.Hint)
}

func kindOf(word string) (fault.Kind, bool) {
	for _, k := range []fault.Kind{fault.Internal, fault.Invalid, fault.Denied, fault.Missing, fault.Conflict, fault.Later, fault.Never} {
		if k.String() == word {
			return k, true
		}
	}
	return fault.Internal, false
}
