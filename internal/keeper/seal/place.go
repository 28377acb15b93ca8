package seal

import (
	"encoding/binary"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Kind says what lies in a blob.
type Kind string

// The kinds of sealed things.
const (
	PrivateKey Kind = "private-key" // PKCS#8
	Password   Kind = "password"
	Token      Kind = "token"
	Marker     Kind = "marker" // which rows are decoys
	Uses       Kind = "uses"   // how often a credential was opened, and when last
)

// Binding is the partner that a secret may be shown to. It changes only by an
// order that an operator's key signed, and then the secret is sealed anew.
type Binding struct {
	Host        string // partner's host name or address
	Port        uint16
	ServerName  string // the name its certificate must have, "" for Host
	CA          string // hex of the SHA-256 of its CA's certificate, "" for the system's roots
	Pin         string // hex of the SHA-256 of its public key, "" for none
	Authority   string // host, or host:port, of Entra's token endpoint
	EntraTenant string
	App         string // Entra application id
	AppObject   string // object id of the application
}

// Place is where a sealed thing belongs, and what it is for.
type Place struct {
	Region, Tenant, Connection string
	Purpose                    string // smtp-client, smtp-server, entra-app, dkim, arc, smtp-auth…
	Kind                       Kind
	Epoch                      uint64
	Binding                    Binding
}

// placeLabel begins every encoding, so that no other use of associated data
// in this project can have the same bytes.
const placeLabel = "sallyport sealed thing 1\x00"

// maxField bounds a text of a place.
const maxField = 1 << 10

// Bytes is the canonical encoding: a label, then each field in a fixed order,
// texts after their length (8 bytes, big-endian), numbers as 8 bytes. The
// lengths make it unambiguous: it can be read back in one way only.
func (p Place) Bytes() []byte {
	b := []byte(placeLabel)
	for _, s := range p.texts() {
		b = appendText(b, s)
	}
	b = binary.BigEndian.AppendUint64(b, p.Epoch)
	return binary.BigEndian.AppendUint64(b, uint64(p.Binding.Port))
}

func (p Place) texts() []string {
	return []string{
		p.Region, p.Tenant, p.Connection, p.Purpose, string(p.Kind),
		p.Binding.Host, p.Binding.ServerName, p.Binding.CA, p.Binding.Pin,
		p.Binding.Authority, p.Binding.EntraTenant, p.Binding.App, p.Binding.AppObject,
	}
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// check refuses a place that says too little to be a boundary.
func (p Place) check(op string) error {
	if p.Region == "" || p.Tenant == "" || p.Purpose == "" || p.Kind == "" {
		return fault.New(fault.Invalid, op, "a sealed thing needs a region, a tenant, a purpose and a kind").
			WithHint("Name all four before sealing or opening.")
	}
	for _, s := range p.texts() {
		if len(s) > maxField {
			return fault.New(fault.Invalid, op, "a field of the place is longer than 1024 bytes").
				WithHint("Shorten the name.")
		}
	}
	return nil
}
