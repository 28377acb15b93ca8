package sim

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"github.com/google/uuid"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// AddressHeader names the address that a request is to be taken as coming
// from: on loopback everything has one address, and logs are about addresses.
// No real service has it.
const AddressHeader = "X-Simulated-Address"

// maxBody bounds a request's body.
const maxBody = 1 << 20

// request is one HTTP request with what every part needs of it.
type request struct {
	*http.Request
	sim  *Sim
	body []byte
	ip   netip.Addr
	id   uuid.UUID // the request id, which is also a token's
	path []string  // segments
}

// reply is an answer: a JSON body, or none.
type reply struct {
	status int
	body   any
	header map[string]string
}

// serveHTTP is the one port of login, Graph and the admin API. They are told
// apart by the first segment: a tenant's id is none of those words.
func (s *Sim) serveHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, sim: s, id: uuid.New(), path: strings.Split(strings.Trim(r.URL.Path, "/"), "/")}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		q.write(w, reply{status: http.StatusRequestEntityTooLarge, body: problem("RequestTooLarge", "the body is longer than a megabyte", q)})
		return
	}
	q.body = body
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.ip = peer.Addr().Unmap()
	}
	if said, err := netip.ParseAddr(r.Header.Get(AddressHeader)); err == nil {
		q.ip = said
	}
	q.write(w, s.dispatch(q))
}

func (s *Sim) dispatch(q *request) reply {
	switch q.path[0] {
	case "adminapi":
		return s.admin(q)
	case "v1.0", "beta":
		return s.graph(q)
	}
	return s.login(q)
}

func (q *request) write(w http.ResponseWriter, r reply) {
	h := w.Header()
	for k, v := range r.header {
		h.Set(k, v)
	}
	// Entra names it x-ms-request-id and Graph request-id; both carry the one.
	h.Set("x-ms-request-id", q.id.String())
	h.Set("request-id", q.id.String())
	if r.body == nil {
		w.WriteHeader(r.status)
		return
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(r.status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(r.body); err != nil {
		q.sim.cfg.Log.Debug("an answer could not be written", "error", err)
	}
}

// unknown refuses what is not modelled, loudly.
func (q *request) unknown(what string) reply {
	name := q.Method + " " + q.URL.Path
	if what != "" {
		name += ": " + what
	}
	q.sim.noteUnknown(name)
	return reply{status: http.StatusNotImplemented, body: problem("SimulatorUnknown", "the simulator does not know "+name, q)}
}

// problem is an error in Graph's shape.
func problem(code, message string, q *request) map[string]any {
	return map[string]any{"error": map[string]any{"code": code, "message": message, "innerError": map[string]any{
		"date":              q.sim.cfg.Now().UTC().Format("2006-01-02T15:04:05"),
		"request-id":        q.id.String(),
		"client-request-id": q.Header.Get("client-request-id"),
	}}}
}

// failed answers with an error of this room's kinds.
func (q *request) failed(err error) reply {
	status, code := http.StatusInternalServerError, "InternalServerError"
	switch fault.KindOf(err) {
	case fault.Invalid:
		status, code = http.StatusBadRequest, "Request_BadRequest"
	case fault.Denied:
		status, code = http.StatusForbidden, "Authorization_RequestDenied"
	case fault.Missing:
		status, code = http.StatusNotFound, "Request_ResourceNotFound"
	case fault.Conflict:
		status, code = http.StatusConflict, "Request_MultipleObjectsWithSameKeyValue"
	}
	text := fault.Sentence(err)
	var e *fault.Error
	if errors.As(err, &e) && e.Hint != "" {
		text += ". " + e.Hint
	}
	return reply{status: status, body: problem(code, text, q)}
}

// bearer is the token of the Authorization header, "" for none.
func (q *request) bearer() string {
	scheme, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
