package mail

import "strconv"

// Envelope is what SMTP says about a message beside its content (RFC 5321
// 2.3.1): where it comes from and for whom it is.
type Envelope struct {
	From   Address // the zero Address is the null reverse-path <>
	Params FromParams
	To     []Recipient
}

// FromParams are the parameters of MAIL FROM.
type FromParams struct {
	Size  int64  `json:"size,omitempty"`  // SIZE=, bytes, 0 when not declared (RFC 1870)
	Body  string `json:"body,omitempty"`  // BODY=: "", "7BIT" or "8BITMIME" (RFC 6152)
	UTF8  bool   `json:"utf8,omitempty"`  // SMTPUTF8 (RFC 6531 3.4)
	Ret   string `json:"ret,omitempty"`   // RET=: "", "FULL" or "HDRS" (RFC 3461 4.3)
	EnvID string `json:"envid,omitempty"` // ENVID=, decoded xtext (RFC 3461 4.4)
}

// Recipient is one RCPT TO with its parameters.
type Recipient struct {
	Address
	Notify string `json:"notify,omitempty"` // NOTIFY=: "", "NEVER" or a list of SUCCESS,FAILURE,DELAY (RFC 3461 4.1)
	ORcpt  string `json:"orcpt,omitempty"`  // ORCPT=, "rfc822;..." with the xtext decoded (RFC 3461 4.2)
}

// Reply is an SMTP reply (RFC 5321 4.2) with its enhanced code (RFC 2034).
type Reply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"` // "5.1.1", without the space
	Text     string `json:"text"`               // lines parted by \n, codes taken off
}

// Positive reports a 2xx or 3xx reply.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Temporary reports a 4xx reply.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent reports a 5xx reply.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// String is the reply in one line, for people. A Code of 0 means that no
// server said it: then it is only the text.
func (r Reply) String() string {
	if r.Code == 0 {
		return r.Text
	}
	s := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		s += " " + r.Enhanced
	}
	return s + " " + r.Text
}
