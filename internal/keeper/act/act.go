package act

import (
	"time"
)

// Name is the name of an act, and the last part of its route.
type Name string

// The acts.
const (
	HandshakeAsTenant Name = "handshake-as-tenant"
	HandshakeAsHost   Name = "handshake-as-host"
	TenantCertificate Name = "tenant-certificate"
	HostCertificate   Name = "host-certificate"
	SignDKIM          Name = "sign-dkim"
	SealARC           Name = "seal-arc"
	AssertClient      Name = "assert-client"
	ProvePossession   Name = "prove-possession"
	IssueIdentity     Name = "issue-identity"
	OpenCredential    Name = "open-credential"
	SetCredential     Name = "set-credential"
	RemoveCredential  Name = "remove-credential"
	ListCredentials   Name = "list-credentials"
	Order             Name = "order"
	Checkpoint        Name = "checkpoint"
	Status            Name = "status"
)

// Context is what every request states. The keeper holds it against what it
// knows of the tenant and the connection.
type Context struct {
	Region     string `json:"region"`
	Tenant     string `json:"tenant,omitempty"`
	Connection string `json:"connection,omitempty"`
	Purpose    string `json:"purpose"`
	Trace      string `json:"trace"`
}

// Stated is the context itself: what a request embeds, it has.
func (c Context) Stated() Context { return c }

// Request is any act's request.
type Request interface{ Stated() Context }

// Plain is a request that says nothing more: certificates of a tenant's
// connection, list, remove, checkpoint, status.
type Plain struct{ Context }

// Handshake asks for a TLS 1.3 CertificateVerify as a tenant's client
// identity.
type Handshake struct {
	Context
	Identity   string `json:"identity"` // SHA-256 of the certificate, hex: which of two that are accepted
	Scheme     uint16 `json:"scheme"`
	Transcript []byte `json:"transcript"`
}

// HostHandshake asks for a server's signature as one of our host names: a TLS
// 1.3 CertificateVerify when there is a transcript, else a TLS 1.2
// ServerKeyExchange.
type HostHandshake struct {
	Context
	Host       string       `json:"host"`
	Identity   string       `json:"identity"`
	Scheme     uint16       `json:"scheme"`
	Transcript []byte       `json:"transcript,omitempty"`
	Exchange   *KeyExchange `json:"exchange,omitempty"`
}

// KeyExchange are the parts of a ServerKeyExchange.
type KeyExchange struct {
	ClientRandom []byte `json:"client_random"`
	ServerRandom []byte `json:"server_random"`
	Curve        uint16 `json:"curve"`
	Public       []byte `json:"public"`
}

// Signature is the answer to a handshake.
type Signature struct {
	Signature []byte `json:"signature"`
}

// Host asks for the certificate of one of our host names.
type Host struct {
	Context
	Host string `json:"host"`
}

// Certificate is a chain, leaf first, DER.
type Certificate struct {
	Chain [][]byte `json:"chain"`
}

// Field is a header field: what follows the colon, without the last CRLF.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Mail is what a message signature covers.
type Mail struct {
	Fields   []Field   `json:"fields"`
	Absent   []string  `json:"absent,omitempty"`
	BodyHash []byte    `json:"body_hash"`
	Time     time.Time `json:"time"`
	Expire   time.Time `json:"expire,omitzero"`
}

// DKIM asks for a DKIM-Signature. The identity gives domain and selector.
type DKIM struct {
	Context
	Identity string `json:"identity"`
	Mail     Mail   `json:"mail"`
}

// Set is one ARC set.
type Set struct {
	Results Field `json:"results"`
	Message Field `json:"message"`
	Seal    Field `json:"seal"`
}

// ARC asks for the next ARC set.
type ARC struct {
	Context
	Identity   string `json:"identity"`
	Validation string `json:"validation"`
	Results    string `json:"results"`
	Previous   []Set  `json:"previous,omitempty"`
	Mail       Mail   `json:"mail"`
}

// Assertion asks for a client assertion. Authority, tenant and app are those
// of the connection's binding.
type Assertion struct {
	Context
	LifeSeconds int `json:"life_s"`
}

// JWT is a token of one act.
type JWT struct {
	Token string `json:"token"`
}

// Issue asks for the identity of a connection's next epoch, or for a new
// certificate of the present one.
type Issue struct {
	Context
	Epoch       uint64 `json:"epoch"`
	LifeSeconds int    `json:"life_s"`
}

// Issued is an identity.
type Issued struct {
	Identity string   `json:"identity"`
	Name     string   `json:"name"`
	Chain    [][]byte `json:"chain"`
}

// NewCredential stores a secret.
type NewCredential struct {
	Context
	User     string `json:"user"`
	Password string `json:"password"`
}

// Credential is a secret in clear, for one act.
type Credential struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// CredentialInfo is what is known of a stored credential.
type CredentialInfo struct {
	Connection string     `json:"connection"`
	SetAt      time.Time  `json:"set_at"`
	LastOpened *time.Time `json:"last_opened,omitempty"`
	Opened     *int64     `json:"opened,omitempty"`
}

// CredentialList is a tenant's, in order of connection.
type CredentialList struct {
	Credentials []CredentialInfo `json:"credentials"`
}

// SignedOrder carries an operators' order, as keeper/operator reads it.
type SignedOrder struct {
	Context
	Order []byte `json:"order"`
}

// Log is a signed checkpoint of the ledger.
type Log struct {
	Note string `json:"note"`
}

// State is how the keeper is.
type State struct {
	Region  string `json:"region"`
	Custody string `json:"custody"` // what doctor says of the KEK
	Frozen  bool   `json:"frozen"`
	Tripped bool   `json:"tripped"` // the breaker
}

// Done is the answer of an act that gives nothing.
type Done struct{}
