package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Problem is a problem document (RFC 9457). As an error it is also a
// *fault.Error of the kind its status says (errors.As finds both).
type Problem struct {
	Type   string  `json:"type"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail"`
	Hint   string  `json:"hint,omitempty"`
	LogID  string  `json:"log_id,omitempty"`
	Errors []Error `json:"errors,omitempty"`
}

// Error is one thing that is wrong with a request.
type Error struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// Error is what went wrong in one line; the hint is left to who shows it.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	parts := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		parts[i] = strings.TrimPrefix(e.Location+": "+e.Message, ": ")
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, "; ")
	}
	if p.LogID != "" {
		text += " (log id " + p.LogID + ")"
	}
	return text
}

// As lets errors.As find the fault that the document tells of.
func (p *Problem) As(target any) bool {
	f, ok := target.(**fault.Error)
	if ok {
		*f = &fault.Error{Kind: p.Kind(), Err: errors.New(p.Error()), Hint: p.Hint}
	}
	return ok
}

// Kind is the fault's kind that the status stands for.
func (p *Problem) Kind() fault.Kind {
	switch p.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Denied
	case http.StatusNotFound:
		return fault.Missing
	case http.StatusConflict:
		return fault.Conflict
	case http.StatusUnprocessableEntity:
		return fault.Never
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fault.Later
	}
	if p.Status >= 400 && p.Status < 500 {
		return fault.Invalid
	}
	return fault.Internal
}

// readProblem makes a Problem of any answer that is no success: what stands
// between us and the gateway may speak another language.
func readProblem(resp *http.Response) *Problem {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, problemSize)) // what came is enough
	p := &Problem{}
	if json.Unmarshal(data, p) != nil || p.Title == "" {
		p = &Problem{
			Type: "about:blank", Title: http.StatusText(resp.StatusCode),
			Detail: fmt.Sprintf("the answer was %s and no problem document", resp.Status),
			Hint:   "Is this the address of the gateway's API?",
		}
	}
	p.Status = resp.StatusCode
	return p
}
