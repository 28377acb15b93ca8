package mail

// Summary is what the road needs to know of a header section, read in one
// pass over the bytes.
type Summary struct {
	MessageID string // with angle brackets, "" when absent
	Subject   string // decoded (RFC 2047), shortened to 500 bytes at a rune boundary
	From      string // the From field's value as written, shortened likewise
	Date      string
	Received  int  // how many Received fields
	Fields    int  // how many fields in all
	Own       int  // how many Received fields were written by us for the tenant asked about
	Bytes     int  // length of the header section with its closing empty line
	EightBit  bool // some byte of the header section is above 127
}

// Originator is one field that attributes a platform's mail to a tenant.
type Originator struct {
	Field, Value string
}

// ScanHeader reads the header section at the start of data (the first bytes of
// a message, at least its whole header section where that is below the limit
// the caller enforces). It never fails: what is malformed is counted as it
// stands. marks are substrings of which each Received field that has one adds
// to Own.
func ScanHeader(data []byte, mark string) Summary { panic("skeleton") }

// Values returns the unfolded values of every field of that name (case does
// not matter), in order. It is what asks for X-OriginatorOrg.
func Values(header []byte, name string) []string { panic("skeleton") }
