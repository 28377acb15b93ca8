package wire

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// problem is a problem document (RFC 9457 3.1). The type ends in the fault's
// kind: the client makes the same fault of it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

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
	}
	return http.StatusInternalServerError
}

// problem answers with an error. What is our own mistake is logged here and
// not told: its text may quote what the keeper holds.
func (s *Server) problem(w http.ResponseWriter, err error) {
	k := fault.KindOf(err)
	p := problem{Type: "urn:sallyport:problem:" + k.String(), Title: k.String(), Status: statusOf(k)}
	if k == fault.Internal {
		s.c.Log.Error("an act failed", "error", err)
		p.Detail, p.Hint = "the keeper met an error of its own", "Look at the keeper's log."
	} else {
		p.Detail, p.Hint = fault.Sentence(err), fault.HintOf(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.Status)
	w.Write(b)
}
