package mail

import "time"

// DSN is a delivery status notification (RFC 3464) to be written.
type DSN struct {
	Kind       string  // "failed", "delayed" or "delivered" (RFC 3464 2.3.3)
	Reporting  string  // our own name, Reporting-MTA
	From       string  // From field of the notification, a display form
	To         Address // the sender of the message that this is about
	MessageID  string  // of the notification itself
	EnvID      string  // Original-Envelope-Id
	Arrived    time.Time
	Now        time.Time
	WillRetry  time.Time // Will-Retry-Until, delayed only
	Recipients []DSNRecipient
	Original   []byte // the header section, or the whole message when Full
	Full       bool
	Boundary   string // unique per notification
}

// DSNRecipient is one recipient's part of a DSN.
type DSNRecipient struct {
	Address Address
	ORcpt   string
	Remote  string // host name of the remote MTA, may be empty
	Reply   Reply  // Diagnostic-Code and Status
	LastTry time.Time
}

// WriteDSN renders a multipart/report message with CRLF line ends. It is sent
// with the null reverse-path (RFC 3461 6.1).
func WriteDSN(d DSN) []byte { panic("skeleton") }
