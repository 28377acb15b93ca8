package entra

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Assert signs a client assertion (a JWT of RFC 7523) for a token endpoint,
// good for so long.
type Assert func(ctx context.Context, audience string, life time.Duration) (string, error)

// Config says which application, in which tenant, and who signs for it.
type Config struct {
	Base     string // https://login.microsoftonline.com, or the simulator
	Tenant   string // the Entra tenant id
	ClientID string // the application id
	Assert   Assert
	// CorrelationID names each request, so that the sign-in log has a mark of
	// ours; it must be a UUID. nil leaves it to MSAL, which draws one.
	CorrelationID func(ctx context.Context) (string, error)
	HTTP          *http.Client
}

// assertionLife is how long an assertion is good: what Microsoft advises at
// most.
const assertionLife = 10 * time.Minute

// Client gets tokens for one application.
type Client struct {
	cfg  Config
	msal confidential.Client
}

// Token is an access token with what the ledger keeps of it.
type Token struct {
	Value   string
	Expires time.Time
	UTI     string // the token's identifier, "" where the token does not say
}

// New makes a client; it asks nobody yet.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg}
	if c.cfg.HTTP == nil {
		c.cfg.HTTP = http.DefaultClient
	}
	cred := confidential.NewCredFromAssertionCallback(func(ctx context.Context, o confidential.AssertionRequestOptions) (string, error) {
		return cfg.Assert(ctx, o.TokenEndpoint, assertionLife)
	})
	var err error
	c.msal, err = confidential.New(strings.TrimSuffix(cfg.Base, "/")+"/"+cfg.Tenant, cfg.ClientID, cred,
		confidential.WithHTTPClient(c), confidential.WithInstanceDiscovery(false))
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Invalid, Op: "entra.New", Err: err}).
			WithHint("The login address must begin with https:// and the tenant be its id.")
	}
	return c, nil
}

// maxAnswer bounds what the token endpoint may answer.
const maxAnswer = 1 << 20

// Do carries one request of MSAL's; it is MSAL's HTTPClient.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	if c.cfg.CorrelationID != nil && r.Method == http.MethodPost {
		id, err := c.cfg.CorrelationID(r.Context())
		if err != nil {
			return nil, err
		}
		r.Header.Set("client-request-id", id)
	}
	answer, err := c.cfg.HTTP.Do(r)
	if err == nil {
		answer.Body = bounded{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// bounded reads no more of a body than it may.
type bounded struct {
	io.Reader
	io.Closer
}

// CloseIdleConnections is part of MSAL's HTTPClient.
func (c *Client) CloseIdleConnections() { c.cfg.HTTP.CloseIdleConnections() }

// Token is a token for a scope ("https://graph.microsoft.com/.default"), a kept
// one while it is good.
func (c *Client) Token(ctx context.Context, scope string) (Token, error) {
	result, err := c.msal.AcquireTokenByCredential(ctx, []string{scope})
	if err != nil {
		return Token{}, refusal(err)
	}
	return Token{Value: result.AccessToken, Expires: result.ExpiresOn, UTI: utiOf(result.AccessToken)}, nil
}

// utiOf reads a token's identifier. The token is opaque by contract and not
// verified here: only the ledger's comparison uses it.
func utiOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		UTI string `json:"uti"`
	}
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return ""
	}
	return c.UTI
}

// Refusal is what Entra answered instead of a token.
type Refusal struct {
	Code string // "AADSTS700027", "" where there was none
	Text string
}

// Error is Entra's own text.
func (r *Refusal) Error() string { return r.Text }

// refusal puts an error of MSAL's into our kinds and the customer's words.
func refusal(err error) error {
	var own *fault.Error
	if errors.As(err, &own) { // from the callback: the keeper said why
		return err
	}
	var call msalerrors.CallErr
	text := err.Error()
	if errors.As(err, &call) && call.Resp != nil && call.Resp.Body != nil {
		// MSAL puts the body back after it has read it.
		if raw, e := io.ReadAll(io.LimitReader(call.Resp.Body, maxAnswer)); e == nil && len(raw) > 0 {
			text = describe(raw, text)
		}
	}
	var unasked *url.Error
	if call.Resp == nil && errors.As(err, &unasked) { // nobody answered: MSAL's words are of two lines
		text = "the login service can't be asked: " + unasked.Err.Error()
	}
	text = strings.Join(strings.Fields(text), " ")
	code := regexp.MustCompile(`AADSTS[0-9]+`).FindString(text)
	kind, hint := advice(code)
	if code == "" && call.Resp == nil {
		kind, hint = fault.Later, wire.ReachHint(err)
	}
	return &fault.Error{Kind: kind, Op: "entra.Token", Err: &Refusal{Code: code, Text: text}, Hint: hint}
}

// describe takes the description out of an answer of the token endpoint.
func describe(raw []byte, otherwise string) string {
	var in struct {
		Description string `json:"error_description"`
	}
	if json.Unmarshal(raw, &in) != nil || in.Description == "" {
		return otherwise
	}
	return in.Description
}

// advice is what to do about a code. Microsoft says not to depend on codes:
// one that is not here is denied, with its text.
func advice(code string) (fault.Kind, string) {
	switch code {
	case "AADSTS90002":
		return fault.Missing, "There is no such Entra tenant: check the tenant id of the connection."
	case "AADSTS700016":
		return fault.Missing, "The tenant has no application with this id: check the application id, or register the application again."
	case "AADSTS7000229":
		return fault.Missing, "The application has no service principal in the tenant: have the administrator consent to it again."
	case "AADSTS700027", "AADSTS50012":
		return fault.Denied, "The certificate is not registered on the application, or has expired: register the connection's current certificate."
	case "AADSTS700024":
		return fault.Denied, "The clocks differ by more than five minutes: set this machine's."
	case "AADSTS7000112":
		return fault.Denied, "The application is disabled in the tenant: ask the administrator why."
	case "AADSTS53003":
		return fault.Denied, "A Conditional Access policy keeps this address out: have the administrator add our addresses to it."
	case "AADSTS90055":
		return fault.Later, "The tenant is throttled: try again in some minutes."
	case "AADSTS70011", "AADSTS28002", "AADSTS700022":
		return fault.Invalid, "Ask for one resource, with /.default."
	}
	return fault.Denied, ""
}
