package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// A certificate is asked for before the host is; what is not to be had ends the
// dial, but for an identity that there is not.
func TestIdentify(t *testing.T) {
	d := &Deliverer{sessions: newSessions()}
	have := &tls.Certificate{Certificate: [][]byte{{1}}}
	for _, c := range []struct {
		cert *tls.Certificate
		err  error
		ok   bool
	}{
		{have, nil, true},
		{nil, fault.New(fault.Missing, "keeper", "there is none"), true},
		{nil, fault.New(fault.Later, "keeper", "the keeper is away"), false},
	} {
		w := newWay(connection.Candidate{Tenant: "acme", Connection: "mailbox", Rule: connection.TLSMutual,
			Target:   smtp.Target{Config: &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, c.err }}},
			Identity: func(context.Context) (*tls.Certificate, error) { return c.cert, c.err }})
		o, err := d.identify(t.Context(), w)
		var dial *smtp.DialError
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &dial) || dial.Step != "tls" || len(d.sessions.dials) != 0) {
			t.Errorf("%v: %v, %d dials", c.err, err, len(d.sessions.dials))
		}
		if err != nil {
			continue
		}
		got, err := o.watch(w.Candidate).Target.Config.GetClientCertificate(new(tls.CertificateRequestInfo))
		if c.cert != nil && (err != nil || len(got.Certificate) != 1 || o.failed || len(o.shown.Certificate) != 1) {
			t.Errorf("%v %v %+v", got, err, o)
		}
		if c.cert == nil && (!fault.Is(err, fault.Missing) || !o.failed) {
			t.Errorf("%v %v %+v", got, err, o)
		}
		d.sessions.done(o.dialled, nil, nil)
	}
}
