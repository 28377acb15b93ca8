package smtp

import "github.com/sallyport-mail/sallyport/internal/mail"

// Helpers for the tests that need testpeer, which imports this room and so
// cannot be imported from within it.
type (
	Recorder = recorder
	Message  = message
)

var (
	StartServer    = startServer
	NewCertificate = newCertificate
	Trusting       = trusting
	GoodEnvelope   = envelope
)

func (r *recorder) Kept() []message       { return r.kept() }
func (r *recorder) SetPassword(p string)  { r.password = p }
func (m message) Body() string            { return string(m.body) }
func (m message) Envelope() mail.Envelope { return m.env }
