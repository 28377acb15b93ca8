package api

import (
	"context"
	"encoding/json"
	"net/http"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// router registers routes: huma's API with the rules of the access table.
type router struct {
	*server
	api huma.API
}

// register adds every route to the mux and returns the OpenAPI document.
func (s *server) register(mux *http.ServeMux) []byte {
	r := &router{server: s, api: humago.New(mux, s.humaConfig())}
	r.api.UseMiddleware(s.gate)
	for _, subject := range []func(*router){
		health, tenants, domains, recipients, connections, replacements, identities, credentials, tokens,
		messages, queued, bulk, held, destinations, stops, lists, status, backup, books, sightings,
	} {
		subject(r)
	}
	schemas := r.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "HumaErrorModel") // replaced by Problem in every answer
	delete(schemas, "HumaErrorDetail")
	doc, err := json.Marshal(r.api.OpenAPI())
	if err != nil {
		panic("api: the OpenAPI document: " + err.Error()) // only its types decide that
	}
	return doc
}

// humaConfig turns off what huma would serve by itself: a page with scripts
// from the internet, YAML, OpenAPI 3.0, schemas and $schema in bodies.
func (s *server) humaConfig() huma.Config {
	version := s.Version
	if version == "" {
		version = "dev"
	}
	c := huma.DefaultConfig("Sallyport", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	c.RejectUnknownQueryParameters = true
	c.FieldsOptionalByDefault = true
	c.Transformers = []huma.Transformer{translate}
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "A token as sallyport token add prints it"},
	}
	return c
}

// schemaName is a type's name with its room's before it, so that two rooms may
// have a Stats each; huma's own name for what is generic or has no name.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	room := path.Base(t.PkgPath())
	if t.Name() == "" || t.PkgPath() == "" || room == "api" {
		return name
	}
	if room == "v2" {
		room = "huma"
	}
	return strings.ToUpper(room[:1]) + room[1:] + name
}

// option changes the rule or the description of a route.
type option func(*rule, *huma.Operation)

func within(d time.Duration) option { return func(r *rule, _ *huma.Operation) { r.timeout = d } }

// upTo takes larger bodies, from so many callers at a time: each is in memory
// several times over while it is read.
func upTo(bytes int64, callers int) option {
	t := newTurn(callers)
	return func(r *rule, _ *huma.Operation) { r.limit, r.reading = bytes, t }
}

// alone runs once at a time.
func alone() option { return atOnce(1) }

// atOnce runs for so many callers at a time.
func atOnce(callers int) option {
	t := newTurn(callers)
	return func(r *rule, _ *huma.Operation) { r.running = t }
}

// secretAnswer is for a route that shows a secret once.
func secretAnswer(r *rule, _ *huma.Operation) {
	r.secret = true
}

// streams is for a route whose answer is no JSON.
func streams(contentType string) option {
	return func(r *rule, op *huma.Operation) {
		r.stream = true
		op.Responses["200"] = &huma.Response{
			Description: http.StatusText(http.StatusOK),
			Content:     map[string]*huma.MediaType{contentType: {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
		}
	}
}

// creates is for a route that answers 201, or 200 when the thing was there.
func creates(_ *rule, op *huma.Operation) { op.DefaultStatus = http.StatusCreated }

// on registers a route. Its need comes from the access table and nowhere else.
func on[I, O any](r *router, method, path, summary string, h func(context.Context, *I) (*O, error), opts ...option) {
	need, ok := r.needs[method+" "+path]
	if !ok {
		panic("api: no row in the access table for " + method + " " + path)
	}
	rule := rule{need: need, limit: bodyLimit, timeout: timeout}
	op := huma.Operation{
		OperationID: operationID(method, path),
		Method:      method,
		Path:        path,
		Summary:     summary,
		Tags:        []string{tag(path)},
		Responses:   r.responses(need, method),
	}
	if need != needNothing {
		op.Security = []map[string][]string{{"token": {}}}
	}
	for _, o := range opts {
		o(&rule, &op)
	}
	if rule.remembers(method) {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: "string"},
			Description: "The same key with the same body gets the stored answer, for 24 hours",
		})
	}
	op.MaxBodyBytes = rule.limit + 1 // the gate has read it and kept the limit
	op.BodyReadTimeout = -1
	op.Metadata = map[string]any{"rule": rule}
	huma.Register(r.api, op, func(ctx context.Context, in *I) (*O, error) {
		answer, err := h(ctx, in)
		if err != nil {
			return nil, r.problem(ctx, err)
		}
		return answer, nil
	})
}

// responses describes the problems that any route may answer.
func (r *router) responses(n need, method string) map[string]*huma.Response {
	codes := map[string]string{
		"400": "The request is malformed",
		"404": "There is no such thing, or it is not yours to see",
		"500": "Our own mistake",
		"503": "Try again later",
	}
	if n != needNothing {
		codes["401"] = "There is no valid token"
		codes["403"] = "The token's role does not allow it"
	}
	if method != http.MethodGet {
		codes["409"] = "It exists already, or is in use"
		codes["413"] = "The body is too large"
		codes["422"] = "The outside world said no for good"
	}
	schema := r.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	all := map[string]*huma.Response{}
	for code, text := range codes {
		all[code] = &huma.Response{Description: text, Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
	}
	return all
}

// operationID is "get-v1-tenants-tenant" for GET /v1/tenants/{tenant}.
func operationID(method, path string) string {
	return strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path)
}

// tag groups routes by subject: what follows /v1, and below a tenant what
// follows that.
func tag(path string) string {
	parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/"), "/")
	if parts[0] == "tenants" && len(parts) > 2 {
		return parts[2]
	}
	return parts[0]
}

func serveJSON(contentType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // a client that has gone needs no answer
	}
}
