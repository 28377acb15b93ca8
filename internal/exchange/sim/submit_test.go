package sim

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestSubmit sends out through a connector with each of the four TlsSettings,
// towards hosts that fit and hosts that do not.
func TestSubmit(t *testing.T) {
	r := startRig(t, Config{})
	sink := func(cert *testpeer.Cert) *testpeer.Sink {
		rules := testpeer.SinkRules{}
		if cert != nil {
			rules.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
		}
		return testpeer.StartSink(t, rules)
	}
	clear, good := sink(nil), sink(r.ca.Issue(t, nil, "mx.gw.example"))
	foreign := sink(testpeer.NewCA(t, "other").Issue(t, nil, "mx.gw.example"))
	gone := listen(t)
	gone.Close()
	text := "X-MS-Exchange-Organization-SCL: -1\r\nX-OriginatorOrg: other.test\r\n" + message
	submit := func() map[string]any {
		return r.admin("POST", "Submission", map[string]any{"From": "me@" + r.one.Domain, "To": "you@elsewhere.test", "Content": text})
	}
	r.admin("POST", "OutboundConnector", map[string]any{"Name": "out", "ConnectorType": "OnPremises", "RecipientDomains": []string{"*"},
		"UseMXRecord": false, "SmartHosts": []string{clear.Addr}})
	for _, c := range []struct {
		name, host, settings, domain, code, text string
	}{
		{"opportunistic in clear", clear.Addr, "", "", "250", ""},
		{"opportunistic, any certificate", foreign.Addr, "", "", "250", ""},
		{"encryption, none offered", clear.Addr, "EncryptionOnly", "", "450", "STARTTLS is required to send mail"},
		{"encryption, any certificate", foreign.Addr, "EncryptionOnly", "", "250", ""},
		{"chain", good.Addr, "CertificateValidation", "", "250", ""},
		{"another chain", foreign.Addr, "CertificateValidation", "", "450", "4.4.317"},
		{"name", good.Addr, "DomainValidation", "*.gw.example", "250", ""},
		{"another name", good.Addr, "DomainValidation", "*.contoso.com", "450", "SubjectMismatch Expected Subject: *.contoso.com. Presented Subject: CN=mx.gw.example"},
		{"nobody there", gone.Addr().String(), "EncryptionOnly", "", "450", "10061"},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := map[string]any{"SmartHosts": []string{c.host}, "TlsSettings": nil, "TlsDomain": c.domain}
			if c.settings != "" {
				change["TlsSettings"] = c.settings
			}
			r.admin("PATCH", "OutboundConnector/out", change)
			out := submit()
			said := fmt.Sprint(out["Code"], " ", out["Enhanced"], " ", out["Text"])
			if !strings.HasPrefix(said, c.code) || !strings.Contains(said, c.text) {
				t.Errorf("%s, expected %s … %s", said, c.code, c.text)
			}
		})
	}
	got := string(good.Messages()[0].Data)
	if !strings.HasPrefix(got, "X-OriginatorOrg: "+r.one.Domain+"\r\n") || strings.Contains(got, "SCL") || strings.Contains(got, "other.test") {
		t.Errorf("sent: %s", got)
	}
	status, out, _ := r.call("POST", "/adminapi/"+r.one.EntraTenant+"/Submission", r.one.AdminToken,
		map[string]any{"From": "me@stranger.test", "To": "you@elsewhere.test", "Content": text})
	if status != 400 {
		t.Errorf("a sender of nobody's: %d %v", status, out)
	}
}
