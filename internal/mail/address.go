package mail

// Address is a mailbox (RFC 5321 4.1.2). Local is kept as it was written, for
// it travels unchanged; Domain is the A-label form in lower case, or an
// address literal in brackets. The zero Address is the null path <>.
type Address struct {
	Local  string `json:"local"`
	Domain string `json:"domain"`
}

// IsNull reports the null reverse-path <>.
func (a Address) IsNull() bool { return a.Local == "" && a.Domain == "" }

// ParseAddress reads a mailbox without angle brackets, "local@domain".
// Source routes, "%" and "!" are not interpreted (RFC 5321 3.6.1). The error
// is of kind invalid.
func ParseAddress(s string) (Address, error) { panic("skeleton") }

// ParseDomain returns a domain name in A-label form and lower case (RFC 5891),
// without a trailing dot; invalid names give an error of kind invalid.
func ParseDomain(s string) (string, error) { panic("skeleton") }

// String is the address as SMTP writes it between angle brackets.
func (a Address) String() string { panic("skeleton") }

// Key is the form in which two addresses of the same mailbox compare equal
// here: local part folded to lower case, unquoted where it needs no quotes.
func (a Address) Key() string { panic("skeleton") }

// NeedsUTF8 reports whether the address can travel only with SMTPUTF8.
func (a Address) NeedsUTF8() bool { panic("skeleton") }
