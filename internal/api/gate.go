package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// rule is what the gate knows of a route.
type rule struct {
	need    need
	limit   int64         // of the body
	timeout time.Duration // of the handler
	secret  bool          // the answer holds a secret: it is remembered for minutes only
	stream  bool          // the answer is large: it is not remembered
	reading *turn         // taken before a large body is read; nil is none
	running *turn         // taken before the handler runs; nil is none
}

// remembers reports whether an answer can be had again by its key. Those to
// strangers are not kept: they would fill the store.
func (r *rule) remembers(method string) bool {
	return method == http.MethodPost && !r.stream && r.need != needNothing
}

// turn lets a few requests at a time do what needs much memory or disk; the
// others are told to come later rather than queued.
type turn struct{ places chan struct{} }

func newTurn(places int) *turn { return &turn{make(chan struct{}, places)} }

func (t *turn) take() (done func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	select {
	case t.places <- struct{}{}:
		return func() { <-t.places }, nil
	default:
		return nil, fault.New(fault.Later, "api", "another request of this kind is running").WithHint("Try again when it is done.")
	}
}

const (
	bodyLimit   = 1 << 20
	bodyTimeout = 30 * time.Second
	timeout     = 30 * time.Second
)

// outer is around every request: it recovers, sets the headers of every
// answer, and gives unknown paths and methods a problem document.
func (s *server) outer(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.unknown(mux, w, r) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		defer s.recovered(out, r)
		secure(out.Header())
		// The mux would answer an unclean path by a redirect in HTML.
		if p := r.URL.EscapedPath(); path.Clean("/"+p) != p {
			s.refuse(out, r, noRoute(p))
			return
		}
		mux.ServeHTTP(out, r)
	})
}

// secure sets headers for an API that no browser should embed, sniff or keep.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// recovered answers a panic by a problem, when nothing was answered yet.
func (s *server) recovered(w *response, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	id := newLogID()
	s.Log.ErrorContext(r.Context(), "api: panic", "log_id", id, "panic", v, "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler) // a torn answer must not look whole
	}
	p := newProblem(http.StatusInternalServerError, "something went wrong in the gateway", "")
	p.LogID = id
	p.write(w)
}

// response remembers whether an answer has begun.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// unknown answers what no route matches: 405 when another method would.
func (s *server) unknown(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := mux.Handler(other); pattern != "/" {
			allow = append(allow, m)
		}
	}
	if len(allow) == 0 {
		s.refuse(w, r, noRoute(r.URL.Path))
		return
	}
	p := newProblem(http.StatusMethodNotAllowed, r.Method+" is not possible here", "Use "+strings.Join(allow, " or ")+".")
	p.header.Set("Allow", strings.Join(allow, ", "))
	s.refuse(w, r, p)
}

func noRoute(p string) *Problem {
	return newProblem(http.StatusNotFound, "there is nothing at "+quoted(p), "See /openapi.json for what there is.")
}

// gate is huma's middleware before every route.
func (s *server) gate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	op := ctx.Operation()
	rule := op.Metadata["rule"].(rule)
	p, err := s.admit(r, rule.need)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	done, err := rule.reading.take()
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer done()
	body, err := readBody(w, r, rule.limit)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	run := func(c context.Context, w http.ResponseWriter) {
		done, err := rule.running.take()
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		defer done()
		c, cancel := context.WithTimeout(withCaller(c, p), rule.timeout)
		defer cancel()
		r := r.WithContext(c)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(&answer{inner: humago.NewContext(op, r, w)})
	}
	defer s.noted(r, op, p.Token, time.Now())
	key := r.Header.Get("Idempotency-Key")
	if !rule.remembers(r.Method) || key == "" {
		run(r.Context(), w)
		return
	}
	s.once(w, r, p.Token, key, body, rule, run)
}

// noted logs who asked for a change. The path has names in it, never secrets.
func (s *server) noted(r *http.Request, op *huma.Operation, token string, began time.Time) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	s.Log.InfoContext(r.Context(), "api: change", "method", op.Method, "path", r.URL.Path, "token", token, "ms", time.Since(began).Milliseconds())
}

// readBody reads a body whole, within its limit and time. The deadline is
// taken off afterwards: net/http would end the handler's context by it.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = rc.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, newProblem(http.StatusRequestEntityTooLarge, "the body is too large", "Send less at a time.")
	case err != nil:
		return nil, newProblem(http.StatusRequestTimeout, "the body did not arrive whole", "Send it again.")
	}
	return body, nil
}

// inner is huma.Context under a name that does not hide its method Context.
type inner = huma.Context

// answer is huma's context with the one change that its own 422 becomes the
// 400 of our problem document.
type answer struct {
	inner
	status int // of the problem that is to be written instead
}

// Unwrap is for humago.Unwrap.
func (a *answer) Unwrap() huma.Context { return a.inner }

func (a *answer) SetStatus(code int) {
	if a.status != 0 {
		code = a.status
	}
	a.inner.SetStatus(code)
}

// translate is a huma.Transformer: it sees every body before it is written.
func translate(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return tidy(v), nil
	}
	p := fromHuma(m)
	if a, ok := ctx.(*answer); ok {
		a.status = p.Status
	}
	return p, nil
}
