package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Problem is a problem document (RFC 9457 3.1) with two members of ours: what
// to do next, and the id of the log line for what is our own mistake.
type Problem struct {
	Type   string         `json:"type" doc:"urn:sallyport:problem: and the kind of failure"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Hint   string         `json:"hint,omitempty" doc:"What to do next"`
	LogID  string         `json:"log_id,omitempty" doc:"Look for this id in the gateway's log"`
	Errors []ProblemError `json:"errors,omitempty" doc:"Each thing that is wrong with the request"`

	header http.Header
}

// ProblemError is one thing that is wrong with a request.
type ProblemError struct {
	Location string `json:"location" doc:"Where, as body.addresses[3]"`
	Message  string `json:"message"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus, GetHeaders and ContentType are how huma asks.
func (p *Problem) GetStatus() int { return p.Status }

func (p *Problem) GetHeaders() http.Header { return p.header }

func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// retryAfter is what a Later says in Retry-After, in seconds.
const retryAfter = 5

// statusOf is the one translation of a fault's kind to HTTP.
func statusOf(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Denied:
		return http.StatusForbidden
	case fault.Missing:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Later:
		return http.StatusServiceUnavailable
	case fault.Never:
		return http.StatusUnprocessableEntity
	default:
		return http.StatusInternalServerError
	}
}

// kindName names a status in a problem's type; statuses that are no fault's
// kind are HTTP's own.
func kindName(status int) string {
	for k := fault.Internal; k <= fault.Never; k++ {
		if statusOf(k) == status {
			return k.String()
		}
	}
	return strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "-")
}

func newProblem(status int, detail, hint string) *Problem {
	return &Problem{
		Type:   "urn:sallyport:problem:" + kindName(status),
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
		Hint:   hint,
		header: http.Header{},
	}
}

// unauthorized is a request without a good token: 401 rather than 403.
type unauthorized struct{ text string }

func (u *unauthorized) Error() string { return u.text }

// flaws is a request with several mistakes.
type flaws []ProblemError

func (f flaws) Error() string { return "validation failed" }

// problem turns any error into the document that the caller sees.
func (s *server) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	var u *unauthorized
	var f flaws
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &u):
		p = newProblem(http.StatusUnauthorized, u.text, "Send the header Authorization: Bearer <token>.")
		p.header.Set("WWW-Authenticate", `Bearer realm="sallyport"`)
		return p
	case errors.As(err, &f):
		p = newProblem(http.StatusBadRequest, f.Error(), "")
		p.Errors = f
		return p
	}
	return s.fromFault(ctx, err)
}

func (s *server) fromFault(ctx context.Context, err error) *Problem {
	kind := fault.KindOf(err)
	if kind == fault.Internal && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		kind = fault.Later
		err = fault.New(kind, "api", "the request took too long").WithHint("Try again, or ask for less at a time.")
	}
	p := newProblem(statusOf(kind), fault.Sentence(err), fault.HintOf(err))
	if kind == fault.Later {
		p.header.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if kind == fault.Internal || kind == fault.Later && fromStore(err) {
		p.LogID = s.logged(ctx, kind, err)
		p.Detail = "something went wrong in the gateway"
		if kind == fault.Later {
			p.Detail = "the store can't answer right now"
		}
	}
	return p
}

// fromStore reports whether an error came out of the store: its words are a
// database driver's and no caller's business.
func fromStore(err error) bool {
	var e *fault.Error
	for errors.As(err, &e) {
		if strings.HasPrefix(e.Op, "store.") {
			return true
		}
		err = e.Err
	}
	return false
}

// logged writes what the caller is not told and returns the id that he is.
func (s *server) logged(ctx context.Context, kind fault.Kind, err error) string {
	id := newLogID()
	s.Log.ErrorContext(ctx, "api: request failed", "log_id", id, "kind", kind.String(), "err", err)
	return id
}

func newLogID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// refuse writes a problem outside of huma.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.problem(r.Context(), err).write(w)
}

func (p *Problem) write(w http.ResponseWriter) {
	for k, v := range p.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // a client that has gone needs no answer
}

// fromHuma translates huma's own errors, all of which are about the request.
// The values that it would echo are left out: they may be secrets.
func fromHuma(m *huma.ErrorModel) *Problem {
	status := m.Status
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest // 422 is a Never here
	}
	p := newProblem(status, m.Detail, "Compare the request with /openapi.json.")
	for _, e := range m.Errors {
		if e != nil {
			p.Errors = append(p.Errors, ProblemError{e.Location, e.Message})
		}
	}
	return p
}

// quoted shows a caller's own word, shortened.
func quoted(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}
