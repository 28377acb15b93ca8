package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// TransitConfig says which key of an OpenBao or Vault Transit engine is the
// KEK. The key must be of an AEAD type (aes256-gcm96, chacha20-poly1305) and
// not derived.
type TransitConfig struct {
	Address   string // https://bao.example:8200
	Mount     string // "" for transit
	Key       string
	Namespace string
	TokenFile string // read anew for each request: an agent renews it
	CAFile    string // PEM; "" for the system's roots
	// Tries and Pause: a request that met a service in trouble is repeated.
	// 0 means 3 tries, and 200 ms doubled between them.
	Tries int
	Pause time.Duration
}

const (
	transitTimeout = 5 * time.Second
	maxTransit     = 64 << 10
	maxTokenFile   = 16 << 10
)

// transit is the KEK behind the HTTP API.
type transit struct {
	c    TransitConfig
	base string
	http *http.Client
}

// NewTransit prepares the driver; it asks nothing of the service yet.
func NewTransit(c TransitConfig) (KEK, error) {
	const op = "seal.NewTransit"
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, op, "the transit address is no https URL").
			WithHint("Write it as https://host:8200: the data keys travel in clear inside it.")
	}
	if c.Key == "" || c.TokenFile == "" {
		return nil, fault.New(fault.Invalid, op, "the transit driver needs a key and a token file").WithHint("Name both.")
	}
	if c.Mount == "" {
		c.Mount = "transit"
	}
	if c.Tries == 0 {
		c.Tries = 3
	}
	if c.Pause == 0 {
		c.Pause = 200 * time.Millisecond
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		if t.RootCAs, err = readPool(c.CAFile); err != nil {
			return nil, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint("Give the CA's certificate as PEM.")
		}
	}
	return &transit{
		c:    c,
		base: strings.TrimRight(c.Address, "/") + "/v1/" + strings.Trim(c.Mount, "/") + "/",
		http: &http.Client{
			Timeout:   transitTimeout,
			Transport: &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
			// A redirect would carry the data key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New(path + " holds no certificate")
	}
	return pool, nil
}

func (t *transit) ID() string {
	id := "transit-" + t.c.Mount + "/" + t.c.Key
	if t.c.Namespace != "" {
		id = "transit-" + t.c.Namespace + "/" + t.c.Mount + "/" + t.c.Key
	}
	return id
}

func (t *transit) Describe() Description {
	return Description{Driver: "transit", ID: t.ID(), Detail: t.c.Address}
}

// transitBody is what encrypt and decrypt take and give; byte slices are
// base64 in JSON, as the API has them.
type transitBody struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Associated []byte `json:"associated_data,omitempty"`
}

func (t *transit) Wrap(ctx context.Context, clearKey Secret, associated []byte) ([]byte, error) {
	const op = "seal.Wrap"
	bound := bindKey(clearKey, associated)
	defer bound.Wipe()
	got, err := t.ask(ctx, op, encrypt, transitBody{Plaintext: bound.Bytes(), Associated: associated})
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(got.Ciphertext, "vault:v") {
		return nil, fault.New(fault.Internal, op, "the transit service answered without a ciphertext").
			WithHint("Check that the address is an OpenBao or Vault server and the mount is of type transit.")
	}
	return []byte(got.Ciphertext), nil
}

func (t *transit) Unwrap(ctx context.Context, blob, associated []byte) (Secret, error) {
	const op = "seal.Unwrap"
	got, err := t.ask(ctx, op, decrypt, transitBody{Ciphertext: string(blob), Associated: associated})
	if err != nil {
		return Secret{}, err
	}
	bound := NewSecret(got.Plaintext)
	defer bound.Wipe()
	return unbindKey(op, bound, associated)
}

// bindKey puts the digest of what a data key is bound to before it. A server
// from before Vault 1.9, or a key of a type that is no AEAD, takes
// associated_data and ignores it: without this one tenant's data key would open
// in another's row there.
func bindKey(clearKey Secret, associated []byte) Secret {
	sum := sha256.Sum256(associated)
	return NewSecret(append(sum[:], clearKey.Bytes()...))
}

func unbindKey(op string, bound Secret, associated []byte) (Secret, error) {
	sum := sha256.Sum256(associated)
	b := bound.Bytes()
	if len(b) <= len(sum) || subtle.ConstantTimeCompare(b[:len(sum)], sum[:]) != 1 {
		return Secret{}, refused(op, "what the transit service opened is not the data key of this place")
	}
	return NewSecret(bytes.Clone(b[len(sum):])), nil
}

// The two things that the service is asked for.
const (
	encrypt = "encrypt"
	decrypt = "decrypt"
)

// ask makes one request, and repeats it while the service is in trouble.
func (t *transit) ask(ctx context.Context, op, verb string, body transitBody) (transitBody, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return transitBody{}, fault.Wrap(fault.Internal, op, err)
	}
	defer clear(raw)
	pause := t.c.Pause
	for try := 1; ; try++ {
		got, err := t.once(ctx, op, verb, raw)
		if err == nil || !fault.Is(err, fault.Later) || try >= t.c.Tries {
			return got, err
		}
		select {
		case <-ctx.Done():
			return transitBody{}, fault.Wrap(fault.Later, op, ctx.Err())
		case <-time.After(pause):
		}
		pause *= 2
	}
}

func (t *transit) once(ctx context.Context, op, verb string, raw []byte) (transitBody, error) {
	token, err := readToken(t.c.TokenFile)
	if err != nil {
		return transitBody{}, (&fault.Error{Kind: fault.Later, Op: op, Err: err}).
			WithHint("Put a token of the transit service at " + t.c.TokenFile + ".")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.base+verb+"/"+url.PathEscape(t.c.Key), bytes.NewReader(raw))
	if err != nil {
		return transitBody{}, fault.Wrap(fault.Invalid, op, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Vault-Token", token)
	if t.c.Namespace != "" {
		r.Header.Set("X-Vault-Namespace", t.c.Namespace)
	}
	resp, err := t.http.Do(r)
	if err != nil {
		return transitBody{}, (&fault.Error{Kind: fault.Later, Op: op, Err: err}).
			WithHint("Check that the transit service at " + t.c.Address + " runs and its certificate is of the CA given.")
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTransit+1))
	defer clear(answer)
	if err != nil {
		return transitBody{}, fault.Wrap(fault.Later, op, err)
	}
	return transitAnswer(op, verb, resp.StatusCode, answer)
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	token := strings.TrimSpace(string(b))
	if err == nil && token == "" {
		err = errors.New("the token file is empty")
	}
	return token, err
}

// transitAnswer reads what the service said, whoever it was.
func transitAnswer(op, verb string, status int, answer []byte) (transitBody, error) {
	if len(answer) > maxTransit {
		return transitBody{}, fault.New(fault.Later, op, "the transit service answered with more than 64 KB").
			WithHint("Check what answers at its address.")
	}
	if status != http.StatusOK {
		return transitBody{}, transitFault(op, verb, status, answer)
	}
	var got struct{ Data transitBody }
	if err := json.Unmarshal(answer, &got); err != nil {
		return transitBody{}, fault.New(fault.Later, op, "the transit service answered with something that is not its JSON").
			WithHint("Check what answers at its address.")
	}
	return got.Data, nil
}

// transitFault maps the status codes that the API documents: 400 for a blob that
// is not of this key, and for a key that is not there or may not open it any
// more; 403 for the token, 404 for the mount, 412, 429, 472, 473 and 5xx for a
// node that is sealed, standing by, or has too much to do. Only a
// blob that does not open is denied: to the keeper that is a row which somebody
// edited. A service that is set up wrongly is away until an operator has mended
// it, and mail waits.
func transitFault(op, verb string, status int, answer []byte) error {
	var said struct{ Errors []string }
	_ = json.Unmarshal(answer, &said) // a service that says nothing is judged by its status
	text := strings.Join(said.Errors, "; ")
	if len(text) > 300 {
		text = text[:300]
	}
	err := &fault.Error{Kind: fault.Later, Op: op, Err: fmt.Errorf("the transit service answered %d %s", status, text)}
	switch {
	case status == http.StatusForbidden:
		err.Hint = "Give the keeper's token the policy for encrypt and decrypt with this key, or renew it."
	case status == http.StatusNotFound || strings.Contains(text, "key not found"):
		err.Hint = "Check the mount and the key's name."
	case strings.Contains(text, "disallowed by policy"):
		err.Hint = "The row is under a version of the key below its min_decryption_version: lower that, order a rotation to another key, and raise it again."
	case status == http.StatusBadRequest && verb == decrypt:
		err.Kind, err.Hint = fault.Denied, "The blob or its associated data is not of this key: compare the row with the ledger."
	case status == http.StatusBadRequest:
		err.Hint = "Check that the key is there and of an AEAD type, aes256-gcm96 or chacha20-poly1305, and not derived."
	default:
		err.Hint = "Check that the transit service is unsealed and active."
	}
	return err
}
