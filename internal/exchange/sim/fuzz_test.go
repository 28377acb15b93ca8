package sim

import (
	"strings"
	"testing"
	"time"
)

// FuzzAssertion: no text breaks the parser, and none passes for signed but
// what the key has signed.
func FuzzAssertion(f *testing.F) {
	k := newAppKey(f, time.Now(), time.Hour)
	signed := map[string]bool{}
	for _, text := range []string{
		k.jwt(f, "PS256", map[string]any{"x5t": "AAAA"}, map[string]any{"iss": "a", "aud": []string{"b"}, "exp": 1}),
		k.jwt(f, "RS256", map[string]any{}, map[string]any{"iss": "a"}),
	} {
		signed[text[:strings.LastIndexByte(text, '.')]] = true
		f.Add(text)
	}
	f.Add("e30.e30.")
	f.Add("e30=.e30.e30")
	f.Add(`eyJhbGciOiJub25lIn0.eyJhdWQiOnt9fQ.`)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseJWT(text)
		if err != nil {
			return
		}
		if token.signed != text[:strings.LastIndexByte(text, '.')] {
			t.Errorf("signed %q of %q", token.signed, text)
		}
		token.claims.timely(time.Now())
		if token.signedBy(k.cert) && !signed[token.signed] {
			t.Errorf("%q is signed by a key that never signed it", text)
		}
	})
}

// FuzzFilter: every filter is refused as invalid or answers yes or no, and
// its negation the other.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		"appId eq 'x'", "not (status/errorCode ne 0) and isInteractive eq false", "signInEventTypes/any(t:t eq 'servicePrincipal')",
		"startswith(appId,'a') or createdDateTime ge 2026-01-01T00:00:00Z", "appId eq 'it''s'", "userId eq null", "((((((", "not not not appId eq 1",
	} {
		f.Add(s)
	}
	row := (&SignIn{AppID: "x", Time: time.Now()}).rich("t")
	knows := func(path string) bool { return has(row, path) }
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseFilter(text, knows)
		if err != nil {
			return
		}
		if opposite, err := parseFilter("not ("+text+")", knows); err == nil && opposite.match(row) == parsed.match(row) {
			t.Errorf("%q and its negation agree", text)
		}
	})
}

// FuzzConnector: a connector that is accepted passes its own check and names
// one certificate at most; what it was made from is untouched.
func FuzzConnector(f *testing.F) {
	f.Add([]byte(`{"Name":"a","ConnectorType":"Partner","SenderDomains":["*"],"RestrictDomainsToCertificate":true,"TlsSenderCertificateName":"*.x.test"}`))
	f.Add([]byte(`{"ConnectorType":"OnPremises","SenderIPAddresses":["192.0.2.0/24"],"CloudServicesMailEnabled":true}`))
	f.Add([]byte(`{"SenderDomains":null}`))
	f.Add([]byte(`{"EFSkipIPs":["203.0.113.5"],"EFUsers":["other@x.test"]}`))
	f.Add([]byte(`{"Name":"a"}{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		base := newInbound()
		base.Name, base.ConnectorType, base.SenderDomains = "base", partner, []string{"keep.test"}
		base.EFSkipIPs, base.EFUsers = []string{"192.0.2.1"}, []string{"keep@keep.test"}
		got, err := parseInbound(body, base)
		if base.SenderDomains[0] != "keep.test" || base.EFSkipIPs[0] != "192.0.2.1" || base.EFUsers[0] != "keep@keep.test" {
			t.Error("the base was written into")
		}
		if err != nil {
			return
		}
		if got.check() != nil || strings.ContainsAny(got.TlsSenderCertificateName, ", ;") || got.Name == "" {
			t.Errorf("accepted %+v", got)
		}
		if _, err := parseOutbound(body, newOutbound()); err == nil && got.TlsSenderCertificateName != "" {
			t.Errorf("%s is both kinds", body)
		}
	})
}

// TestFilter holds the filters that are documented for the logs.
func TestFilter(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := (&SignIn{AppID: "AbC", Time: at, ErrorCode: 700027}).rich("t")
	knows := func(path string) bool { return has(row, path) }
	for text, want := range map[string]bool{
		"appId eq 'abc'": true,
		"appId ne 'abc'": false,
		"createdDateTime ge 2026-03-01T12:00:00Z":                    true,
		"createdDateTime gt 2026-03-01T12:00:00Z":                    false,
		"createdDateTime lt 2026-03-01T12:00:00.1Z":                  true,
		"status/errorCode eq 700027":                                 true,
		"status/errorCode eq 0 or startswith(appId,'ab')":            true,
		"appId eq 'x' and appId eq 'y' or appId eq 'abc'":            true,
		"appId eq 'x' and (appId eq 'y' or appId eq 'abc')":          false,
		"not (appId eq 'x')":                                         true,
		"signInEventTypes/any(t:t eq 'servicePrincipal')":            true,
		"signInEventTypes/any(t: t eq 'nonInteractiveUser')":         false,
		"userDisplayName eq null":                                    true,
		"isInteractive eq false":                                     true,
		"appId eq 'abc' and createdDateTime ge 2026-01-01T00:00:00Z": true,
	} {
		f, err := parseFilter(text, knows)
		if err != nil || f.match(row) != want {
			t.Errorf("%s: %v, %v expected", text, err, want)
		}
	}
	for _, text := range []string{"", "nope eq 'x'", "appId", "appId eq", "appId like 'x'", "appId eq 'x", "(appId eq 'x'", "appId eq 'x' junk",
		"signInEventTypes/any(t:u eq 'x')", strings.Repeat("(", 30) + "appId eq 'x'", strings.Repeat("not ", 30) + "appId eq 'x'"} {
		if _, err := parseFilter(text, knows); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
