package client

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// FuzzProblem reads whatever a server answers a failure with: it becomes a
// Problem with a title, words, and a kind.
func FuzzProblem(f *testing.F) {
	f.Add(404, []byte(`{"type":"urn:sallyport:problem:missing","title":"Not Found","status":200,"detail":"gone","hint":"Look."}`))
	f.Add(400, []byte(`{"title":"Bad Request","errors":[{"location":"body.x","message":"no"},{}]}`))
	f.Add(502, []byte(`<html>`))
	f.Add(999, []byte(`null`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var err error = readProblem(&http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body))})
		var p *Problem
		var e *fault.Error
		if !errors.As(err, &p) || !errors.As(err, &e) || p.Status != status || err.Error() == "" {
			t.Fatalf("%d %q: %v", status, body, err)
		}
	})
}
