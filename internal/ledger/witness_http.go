package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxAnswer bounds what a witness may answer.
const maxAnswer = 64 << 10

// HTTPWitness is a witness that speaks c2sp.org/tlog-witness.
type HTTPWitness struct {
	name   string
	url    string // prefix of both calls
	client *http.Client
	key    note.Verifier
}

// NewHTTPWitness makes a witness at a URL, with the verifier key of its
// cosignatures. To the URL "/add-checkpoint" is appended, and for what it has
// seen "/<hex of the SHA-256 of the origin>/checkpoint".
func NewHTTPWitness(url, vkey string, client *http.Client) (*HTTPWitness, error) {
	key, err := NewCosignatureVerifier(vkey)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return nil, fault.New(fault.Invalid, "ledger.NewHTTPWitness", fmt.Sprintf("the witness's address is %q", url)).
			WithHint("Give it as https://host/path.")
	}
	if client == nil {
		client = &http.Client{Timeout: witnessTime}
	}
	return &HTTPWitness{name: key.Name(), url: strings.TrimSuffix(url, "/"), client: client, key: key}, nil
}

// Name is the name of the witness's key.
func (w *HTTPWitness) Name() string { return w.name }

// Add posts a checkpoint with its proof.
func (w *HTTPWitness) Add(ctx context.Context, s Submission) (string, error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", s.Old)
	for _, h := range s.Proof {
		fmt.Fprintf(&body, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	fmt.Fprintf(&body, "\n%s", s.Checkpoint.Note)
	response, answer, err := w.call(ctx, http.MethodPost, "/add-checkpoint", &body)
	if err != nil {
		return "", err
	}
	return w.answer(response, string(answer), s.Checkpoint)
}

// Newest is of Prover. c2sp.org/tlog-witness leaves open how what a witness has
// is had of it; this is a GET of the checkpoint, below its URL.
func (w *HTTPWitness) Newest(ctx context.Context, origin string) ([]byte, error) {
	sum := sha256.Sum256([]byte(origin))
	response, answer, err := w.call(ctx, http.MethodGet, "/"+hex.EncodeToString(sum[:])+"/checkpoint", nil)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fault.New(fault.Later, "ledger.Witness", fmt.Sprintf("the witness %s, asked for its newest checkpoint, answers %d", w.name, response.StatusCode))
	}
	return answer, err
}

// call asks the witness and reads its answer, which is bounded.
func (w *HTTPWitness) call(ctx context.Context, method, path string, body io.Reader) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, "ledger.Witness", err)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Later, "ledger.Witness", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil || len(answer) > maxAnswer {
		return nil, nil, fault.New(fault.Later, "ledger.Witness", "the answer of the witness "+w.name+" breaks off or does not end")
	}
	return response, answer, nil
}

// answer reads a response by its status.
func (w *HTTPWitness) answer(r *http.Response, answer string, c Checkpoint) (string, error) {
	switch r.StatusCode {
	case http.StatusOK:
		return w.cosignatures(answer, c)
	case http.StatusConflict:
		size, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
		if err != nil || size < 0 {
			return "", fault.New(fault.Later, "ledger.Witness", "the witness "+w.name+" answers 409 without a size")
		}
		return "", &Elsewhere{Size: size}
	case http.StatusUnprocessableEntity: // the proof leads elsewhere
		return "", tampered("ledger.Witness", "the witness "+w.name+" has seen another ledger under this name")
	case http.StatusForbidden, http.StatusNotFound:
		return "", fault.New(fault.Denied, "ledger.Witness", "the witness "+w.name+" does not know this ledger or its key").
			WithHint("Give the witness the ledger's origin and verifier key.")
	case http.StatusBadRequest:
		return "", fault.New(fault.Invalid, "ledger.Witness", "the witness "+w.name+" cannot read what it is shown")
	}
	return "", fault.New(fault.Later, "ledger.Witness", fmt.Sprintf("the witness %s answers %d", w.name, r.StatusCode))
}

// cosignatures keeps the lines that the witness's own key has signed.
func (w *HTTPWitness) cosignatures(lines string, c Checkpoint) (string, error) {
	bad := fault.New(fault.Invalid, "ledger.Witness", "the witness "+w.name+" gave no cosignature of its key").
		WithHint("Check the witness's verifier key.")
	text, _, _ := strings.Cut(string(c.Note), "\n\n")
	n, err := note.Open([]byte(text+"\n\n"+lines), note.VerifierList(w.key))
	if err != nil {
		return "", bad
	}
	var own strings.Builder
	for _, s := range n.Sigs {
		fmt.Fprintf(&own, "— %s %s\n", s.Name, s.Base64)
	}
	return own.String(), nil
}
