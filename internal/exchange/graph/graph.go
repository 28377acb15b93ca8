package graph

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Config says where Graph is and who asks.
type Config struct {
	Base  string // https://host[:port], without a path
	Token func(ctx context.Context) (string, error)
	HTTP  *http.Client
	Now   func() time.Time
}

// Proof signs a proof of possession for an object id, as a JWT that lives at
// most ten minutes (audience [ProofAudience]).
type Proof func(ctx context.Context, objectID string) (string, error)

// ProofAudience is what a proof of possession is made out to.
const ProofAudience = "00000002-0000-0000-c000-000000000000"

// Client asks Graph for one tenant.
type Client struct {
	base string
	call wire.Caller
}

// New makes a client; it calls nobody yet.
func New(c Config) *Client {
	return &Client{base: strings.TrimSuffix(c.Base, "/"), call: wire.Caller{Token: c.Token, HTTP: c.HTTP, Now: c.Now}}
}

// Key is one certificate of an application. Key holds the certificate (DER)
// where it is set or was asked for.
type Key struct {
	KeyID       string    `json:"keyId,omitempty"`
	Type        string    `json:"type"`
	Usage       string    `json:"usage"`
	DisplayName string    `json:"displayName,omitempty"`
	CustomID    string    `json:"customKeyIdentifier,omitempty"`
	Start       time.Time `json:"startDateTime,omitzero"`
	End         time.Time `json:"endDateTime,omitzero"`
	Key         []byte    `json:"key,omitempty"`
}

// Application is an app registration of the tenant's own.
type Application struct {
	ID          string `json:"id"` // the object id, which proofs are issued by
	AppID       string `json:"appId"`
	DisplayName string `json:"displayName"`
	Keys        []Key  `json:"keyCredentials"`
}

// Application finds an app registration by its client id, with its
// certificates.
func (c *Client) Application(ctx context.Context, appID string) (Application, error) {
	var out Application
	address := c.base + "/v1.0/applications(appId='" + url.PathEscape(appID) + "')?$select=id,appId,displayName,keyCredentials"
	err := c.call.Do(ctx, "graph.Application", http.MethodGet, address, nil, &out)
	return out, err
}

// Applications are the tenant's app registrations, without their certificates.
func (c *Client) Applications(ctx context.Context) ([]Application, error) {
	var all []Application
	err := pages(ctx, c, "graph.Applications", "/v1.0/applications", "", 0, func(a Application) error {
		all = append(all, a)
		return nil
	})
	return all, err
}

// SetKeys replaces the whole list of certificates: what is not in it goes. Keys
// that stay are sent with their KeyID and without Key. It needs an
// administrator's consent, and is the way where no valid key is left.
func (c *Client) SetKeys(ctx context.Context, objectID string, keys []Key) error {
	if keys == nil {
		keys = []Key{}
	}
	in := map[string]any{"keyCredentials": keys}
	return c.call.Do(ctx, "graph.SetKeys", http.MethodPatch, c.object(objectID), in, nil)
}

func (c *Client) object(id string) string { return c.base + "/v1.0/applications/" + url.PathEscape(id) }

// AddKey registers a certificate beside those that are there, on the strength
// of one that is.
func (c *Client) AddKey(ctx context.Context, objectID string, certificate []byte, proof Proof) (Key, error) {
	var out Key
	text, err := proof(ctx, objectID)
	if err != nil {
		return out, err
	}
	in := map[string]any{
		"keyCredential": map[string]string{"type": "AsymmetricX509Cert", "usage": "Verify",
			"key": base64.StdEncoding.EncodeToString(certificate)},
		"passwordCredential": nil, "proof": text,
	}
	err = c.call.Do(ctx, "graph.AddKey", http.MethodPost, c.object(objectID)+"/addKey", in, &out)
	return out, err
}

// RemoveKey takes a certificate off the list.
func (c *Client) RemoveKey(ctx context.Context, objectID, keyID string, proof Proof) error {
	text, err := proof(ctx, objectID)
	if err != nil {
		return err
	}
	in := map[string]string{"keyId": keyID, "proof": text}
	return c.call.Do(ctx, "graph.RemoveKey", http.MethodPost, c.object(objectID)+"/removeKey", in, nil)
}

// SignIn is one row of the sign-in log of applications.
type SignIn struct {
	ID            string    `json:"id"`
	Time          time.Time `json:"createdDateTime"`
	AppID         string    `json:"appId"`
	PrincipalID   string    `json:"servicePrincipalId"`
	IP            string    `json:"ipAddress"`
	UserAgent     string    `json:"userAgent"`
	CorrelationID string    `json:"correlationId"`
	ResourceID    string    `json:"resourceId"`
	KeyID         string    `json:"servicePrincipalCredentialKeyId"`
	Thumbprint    string    `json:"servicePrincipalCredentialThumbprint"`
	UTI           string    `json:"uniqueTokenIdentifier"` // of the token, case-sensitive
	Status        struct {
		ErrorCode int    `json:"errorCode"` // 0: a token was issued
		Reason    string `json:"failureReason"`
	} `json:"status"`
}

// Audit is one row of the directory audit log.
type Audit struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"activityDateTime"`
	Activity    string    `json:"activityDisplayName"`
	Result      string    `json:"result"`
	InitiatedBy struct {
		User *struct {
			Name string `json:"userPrincipalName"`
			IP   string `json:"ipAddress"`
		} `json:"user"`
		App *struct {
			AppID string `json:"appId"`
			Name  string `json:"displayName"`
		} `json:"app"`
	} `json:"initiatedBy"`
	Targets []struct {
		ID       string `json:"id"`
		Name     string `json:"displayName"`
		Type     string `json:"type"`
		Modified []struct {
			Name string `json:"displayName"`
			Old  string `json:"oldValue"`
			New  string `json:"newValue"`
		} `json:"modifiedProperties"`
	} `json:"targetResources"`
}

// Query says which rows of a log. The zero Query asks for all.
type Query struct {
	Since time.Time // rows from then on
	AppID string    // sign-ins of this application alone
	Page  int       // rows a page, 0: the service's own
}

// SignIns calls each for every row, newest first, until it errs.
func (c *Client) SignIns(ctx context.Context, q Query, each func(SignIn) error) error {
	// Without this condition only people's interactive sign-ins are listed.
	filter := "signInEventTypes/any(t:t eq 'servicePrincipal')"
	if q.AppID != "" {
		filter += " and appId eq '" + quote(q.AppID) + "'"
	}
	if !q.Since.IsZero() {
		filter += " and createdDateTime ge " + q.Since.UTC().Format(time.RFC3339Nano)
	}
	return pages(ctx, c, "graph.SignIns", "/beta/auditLogs/signIns", filter, q.Page, each)
}

// DirectoryAudits calls each for every row, newest first, until it errs.
func (c *Client) DirectoryAudits(ctx context.Context, q Query, each func(Audit) error) error {
	filter := ""
	if !q.Since.IsZero() {
		filter = "activityDateTime ge " + q.Since.UTC().Format(time.RFC3339Nano)
	}
	return pages(ctx, c, "graph.DirectoryAudits", "/v1.0/auditLogs/directoryAudits", filter, q.Page, each)
}

// quote doubles the quotes of a text in a filter.
func quote(s string) string { return strings.ReplaceAll(s, "'", "''") }

// mostPages bounds one reading of a log: a million rows at the largest page.
const mostPages = 1000

// pages follows a listing.
func pages[T any](ctx context.Context, c *Client, op, path, filter string, top int, each func(T) error) error {
	query := url.Values{}
	if filter != "" {
		query.Set("$filter", filter)
	}
	if top > 0 {
		query.Set("$top", strconv.Itoa(top))
	}
	next := c.base + path
	if len(query) > 0 {
		next += "?" + query.Encode()
	}
	for range mostPages {
		var out struct {
			Value []T    `json:"value"`
			Next  string `json:"@odata.nextLink"`
		}
		if err := c.call.Do(ctx, op, http.MethodGet, next, nil, &out); err != nil {
			return err
		}
		for _, row := range out.Value {
			if err := each(row); err != nil {
				return err
			}
		}
		if out.Next == "" {
			return nil
		}
		// The token goes where the link points: nowhere but to the service.
		if !strings.HasPrefix(out.Next, c.base+"/") {
			return fault.New(fault.Never, op, "the next page is said to be at another host")
		}
		next = out.Next
	}
	return fault.New(fault.Never, op, "the log has more pages than are read at once").WithHint("Ask for a shorter time.")
}
