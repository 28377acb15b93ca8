package api_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document is as much of OpenAPI 3.1 as the tests look at.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct{ Title, Version string }
	Paths   map[string]map[string]operation
	// Components by kind and name.
	Components map[string]map[string]json.RawMessage
}

type operation struct {
	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Parameters  []struct {
		Name, In string
		Required bool
	}
	RequestBody *struct {
		Content map[string]json.RawMessage
	} `json:"requestBody"`
	Responses map[string]struct {
		Description string
		Content     map[string]json.RawMessage
	}
	Security []map[string][]string
}

func (r *rig) document() (d document, raw []byte) {
	r.t.Helper()
	a := r.ok("GET", "/openapi.json", "", nil)
	a.into(r.t, &d)
	return d, a.body
}

// TestDocument checks what a reader of OpenAPI relies on.
func TestDocument(t *testing.T) {
	r := newRig(t)
	d, raw := r.document()
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || d.Info.Title == "" || d.Info.Version != "test" {
		t.Errorf("openapi %q, info %+v", d.OpenAPI, d.Info)
	}
	ids := map[string]bool{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			name := strings.ToUpper(method) + " " + path
			for _, wrong := range op.flaws(method, path) {
				t.Errorf("%s: %s", name, wrong)
			}
			if ids[op.OperationID] {
				t.Errorf("%s: operationId %q is taken", name, op.OperationID)
			}
			ids[op.OperationID] = true
		}
	}
	if len(ids) < 50 {
		t.Errorf("only %d operations", len(ids))
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"#/components/([^/"]+)/([^"]+)"`).FindAllSubmatch(raw, -1) {
		if _, ok := d.Components[string(ref[1])][string(ref[2])]; !ok {
			t.Errorf("%s leads nowhere", ref[0])
		}
	}
	for name := range d.Components["schemas"] {
		if strings.HasPrefix(name, "Huma") || !strings.Contains(string(raw), "schemas/"+name+`"`) {
			t.Errorf("schema %s is used by nothing", name)
		}
	}
	if strings.Contains(string(raw), "$schema") {
		t.Error("a body has $schema")
	}
}

func (op operation) flaws(method, path string) (wrong []string) {
	if op.Summary == "" || op.OperationID == "" || len(op.Tags) == 0 || op.Tags[0] == "" {
		wrong = append(wrong, "no summary, operationId or tag")
	}
	success := 0
	for code, resp := range op.Responses {
		if resp.Description == "" {
			wrong = append(wrong, code+" has no description")
		}
		if code[0] == '2' {
			success++
			if len(resp.Content) == 0 {
				wrong = append(wrong, code+" has no content")
			}
		} else if _, ok := resp.Content["application/problem+json"]; !ok {
			wrong = append(wrong, code+" is no problem document")
		}
	}
	if success != 1 {
		wrong = append(wrong, fmt.Sprintf("%d successes", success))
	}
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
		declared := slices.ContainsFunc(op.Parameters, func(p struct {
			Name, In string
			Required bool
		}) bool {
			return p.Name == m[1] && p.In == "path" && p.Required
		})
		if !declared {
			wrong = append(wrong, "path parameter "+m[1]+" is not declared")
		}
	}
	open := path == "/healthz" || path == "/readyz" || path == "/v1/sightings"
	if open == (len(op.Security) > 0) {
		wrong = append(wrong, "security is wrong")
	}
	if method == "get" && op.RequestBody != nil {
		wrong = append(wrong, "a GET with a body")
	}
	return wrong
}

func TestNothingElseIsServed(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/docs", "/schemas/Tenant.json", "/openapi.yaml", "/openapi-3.0.json", "/openapi"} {
		if a := r.call("GET", path, r.operator, nil); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}
