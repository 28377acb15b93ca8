package deliver

import (
	"context"
	"crypto"
	"crypto/tls"
	"io"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// ourSide is what a handshake shows of us. It is filled in by the goroutine
// that dials, before the dial returns.
type ourSide struct {
	dialled *dial            // nil where no identity is shown
	have    *tls.Certificate // asked for before the dial; nil for none
	shown   tls.Certificate  // once the handshake has asked for it
	failed  bool             // the certificate or its signature was not to be had
}

// identify begins a dial: it asks for our certificate. Whoever gets ourSide ends
// the dial by sessions.done.
func (d *Deliverer) identify(ctx context.Context, w way) (*ourSide, error) {
	o := &ourSide{dialled: d.sessions.begin(w.Candidate)}
	if w.Identity == nil {
		return o, nil
	}
	var err error
	// A server that does not ask for one is served without.
	if o.have, err = w.Identity(ctx); err != nil && !fault.Is(err, fault.Missing) {
		d.sessions.done(o.dialled, nil, nil)
		return nil, &smtp.DialError{Step: "tls", Err: err}
	}
	return o, nil
}

// watch makes a candidate's handshake show what was asked for, and notes what
// becomes of it.
func (o *ourSide) watch(c connection.Candidate) connection.Candidate {
	if c.Target.Config == nil || c.Target.Config.GetClientCertificate == nil {
		return c
	}
	choose := c.Target.Config.GetClientCertificate
	c.Target.Config = c.Target.Config.Clone()
	c.Target.Config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := o.have, error(nil)
		if cert == nil {
			cert, err = choose(i)
		}
		if err != nil || cert == nil {
			o.failed = err != nil
			return cert, err
		}
		watched := *cert
		if s, ok := cert.PrivateKey.(crypto.Signer); ok {
			watched.PrivateKey = watchedKey{s, o}
		}
		o.shown = *cert
		return &watched, nil
	}
	return c
}

// watchedKey is a key that tells when it does not sign: crypto/tls keeps of
// that error its words alone.
type watchedKey struct {
	crypto.Signer
	of *ourSide
}

// Sign is of crypto.Signer.
func (k watchedKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.note(k.Signer.Sign(rand, digest, opts))
}

// SignMessage is of crypto.MessageSigner: a keeper's key signs nothing else.
func (k watchedKey) SignMessage(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.note(crypto.SignMessage(k.Signer, rand, msg, opts))
}

func (k watchedKey) note(signature []byte, err error) ([]byte, error) {
	k.of.failed = k.of.failed || err != nil
	return signature, err
}
