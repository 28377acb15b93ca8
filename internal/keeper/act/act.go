package act

import (
	"encoding/json"
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
	BindConnection    Name = "bind-connection"
	ReleaseConnection Name = "release-connection"
	IssueIdentity     Name = "issue-identity"
	MoveIdentity      Name = "move-identity"
	ListIdentities    Name = "list-identities"
	AcmeChallenge     Name = "acme-challenge"
	OpenCredential    Name = "open-credential"
	SetCredential     Name = "set-credential"
	RemoveCredential  Name = "remove-credential"
	ListCredentials   Name = "list-credentials"
	ReportSighting    Name = "report-sighting"
	Order             Name = "order"
	EnterEvents       Name = "enter-events"
	SearchLedger      Name = "search-ledger"
	ShowEntry         Name = "show-entry"
	ProveEntry        Name = "prove-entry"
	ExportLedger      Name = "export-ledger"
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

// Plain is a request that says nothing more: release, list, open, remove,
// checkpoint, export, status.
type Plain struct{ Context }

// Binding is the partner that a connection's keys and secrets may be shown to.
// A connection has one, given once when it is made; after that only an order
// changes it.
type Binding struct {
	Host        string `json:"host"` // partner's mail host, name or address
	Port        uint16 `json:"port"`
	ServerName  string `json:"server_name,omitempty"` // "" for Host
	CA          string `json:"ca,omitempty"`          // hex of the SHA-256 of the PEM of its CA, "" for the system's roots
	Pin         string `json:"pin,omitempty"`         // hex of the SHA-256 of its certificate
	Authority   string `json:"authority,omitempty"`   // host, or host:port, of Entra's token endpoint
	EntraTenant string `json:"entra_tenant,omitempty"`
	App         string `json:"app,omitempty"`        // application (client) id
	AppObject   string `json:"app_object,omitempty"` // object id of the application
}

// Bind gives a new connection its partner. It changes nothing: a connection
// that is bound to another partner already is a conflict, one that is bound to
// the same is not.
type Bind struct {
	Context
	Binding Binding `json:"binding"`
}

// Which asks for the certificate of a tenant's connection: of the identity of
// that id or SHA-256, or of the active one of the purpose when it is empty.
type Which struct {
	Context
	Identity string `json:"identity,omitempty"`
}

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
	// Compromised, of a host name, are the SHA-256 (hex) of the certificates that
	// it had and whose keys are somebody else's too, the last ones first: what was
	// opened with them is to end.
	Compromised []string `json:"compromised,omitempty"`
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
// of the connection's binding. The key is the active one's, or that of the
// identity named by id or certificate, so that a staged one can be tried.
type Assertion struct {
	Context
	Identity    string `json:"identity,omitempty"`
	LifeSeconds int    `json:"life_s"`
}

// JWT is a token of one act.
type JWT struct {
	Token string `json:"token"`
}

// Issue asks for an identity: epoch 0 is a new key and certificate under the
// name of the newest epoch (renewal), or the first of all; any other is the
// newest epoch plus one, with a name that nobody has seen. Renew names the
// epoch whose name is kept, where that is not the newest: a standby of the next
// epoch is there while the one in use is renewed. It goes with epoch 0 alone. For
// the purposes dkim and arc the connection is the signing domain, and each issue
// is a new epoch with a selector of its own.
type Issue struct {
	Context
	Epoch       uint64 `json:"epoch,omitempty"`
	Renew       uint64 `json:"renew,omitempty"`
	LifeSeconds int    `json:"life_s,omitempty"` // 0: the issuer's usual
	Issuer      string `json:"issuer,omitempty"` // "" or "builtin": the region's own CA; "acme"
	// Standby: it is made ahead, and its key is sealed under the KEK of standbys
	// where the keeper has one.
	Standby bool `json:"standby,omitempty"`
}

// IdentityState is where an identity stands in its life (docs/states.md).
type IdentityState string

// The states. Staged, active and retiring are the ones a partner may accept.
const (
	Wanted      IdentityState = "wanted"
	Issued      IdentityState = "issued"
	Staged      IdentityState = "staged"
	Active      IdentityState = "active"
	Retiring    IdentityState = "retiring"
	Retired     IdentityState = "retired"
	Compromised IdentityState = "compromised"
)

// Identity is one key and certificate of one connection for one purpose.
type Identity struct {
	ID         string        `json:"id"` // ULID
	Tenant     string        `json:"tenant"`
	Connection string        `json:"connection"`
	Purpose    string        `json:"purpose"` // smtp-client, smtp-server, entra-app, dkim, arc
	Epoch      uint64        `json:"epoch"`
	Name       string        `json:"name"`
	State      IdentityState `json:"state"`
	NotBefore  time.Time     `json:"not_before"`
	NotAfter   time.Time     `json:"not_after"`
	SHA256     string        `json:"sha256"` // of the certificate, hex
	Issuer     string        `json:"issuer"` // "builtin" or "acme"
	Driver     string        `json:"driver"` // where the key is: "software" or "pkcs11"
	Chain      [][]byte      `json:"chain"`  // leaf first, DER; none of dkim and arc
	// Public is the key of a dkim or arc identity as SubjectPublicKeyInfo, for
	// the record of its name.
	Public      []byte     `json:"public,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	ChangedAt   time.Time  `json:"changed_at"`
	Announced   *time.Time `json:"announced,omitempty"` // when the issuer advises renewal (ARI), if it says
	Explanation string     `json:"explanation,omitempty"`
	// Apart: its key is sealed under the KEK of standbys, and is taken out of
	// there by the move to staged or active.
	Apart bool `json:"apart,omitempty"`
}

// IdentityList is in order of tenant, connection, purpose, epoch and id.
type IdentityList struct {
	Identities []Identity `json:"identities"`
	Next       string     `json:"next,omitempty"` // hand it in for the next page, "" at the end
}

// IdentityQuery asks for identities; what is empty asks for all of the region.
type IdentityQuery struct {
	Context
	Identity string `json:"identity,omitempty"`
	After    string `json:"after,omitempty"`
	Limit    int    `json:"limit,omitempty"` // 0 means 200, which is the most
}

// Move brings an identity into another state. The move to active makes the one
// that was active retiring, in the same step. None leads back from retired or
// compromised.
type Move struct {
	Context
	Identity string        `json:"identity"` // id
	To       IdentityState `json:"to"`
}

// Challenge asks what to answer to an ACME HTTP-01 challenge, RFC 8555 8.3.
type Challenge struct {
	Context
	Token string `json:"token"`
}

// KeyAuthorization is the body of that answer. It is no secret.
type KeyAuthorization struct {
	KeyAuthorization string `json:"key_authorization"`
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
	Purpose    string     `json:"purpose"` // smtp-auth, m365-admin
	SetAt      time.Time  `json:"set_at"`
	LastOpened *time.Time `json:"last_opened,omitempty"`
	Opened     *int64     `json:"opened,omitempty"`
}

// CredentialList is a tenant's, in order of connection and purpose.
type CredentialList struct {
	Credentials []CredentialInfo `json:"credentials"`
}

// Sighting reports that a decoy was used at its partner. The code came with the
// order that planted it; the rest is the partner's word.
type Sighting struct {
	Context
	Code string    `json:"code"`
	At   time.Time `json:"at,omitzero"`    // of the use
	From string    `json:"from,omitempty"` // address that it came from
	Note string    `json:"note,omitempty"`
}

// SignedOrder carries an operators' order, as keeper/operator reads it.
type SignedOrder struct {
	Context
	Order []byte `json:"order"`
}

// Event is an audit event of the gateway on its way into the ledger.
type Event struct {
	Key        string    `json:"key"` // names the event for ever: it is entered once, however often it comes
	Time       time.Time `json:"time"`
	Actor      string    `json:"actor"`
	Act        string    `json:"act"`
	Tenant     string    `json:"tenant,omitempty"`
	Connection string    `json:"connection,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Purpose    string    `json:"purpose,omitempty"`
	Outcome    string    `json:"outcome,omitempty"`
}

// Events are entered as asserted: the gateway's word, not the keeper's.
type Events struct {
	Context
	Events []Event `json:"events"` // at most 500
}

// Search asks the ledger; Context's tenant and connection narrow it too.
type Search struct {
	Context
	Act   string    `json:"act,omitempty"`
	Actor string    `json:"actor,omitempty"`
	Of    string    `json:"of,omitempty"` // a trace id
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	From  int64     `json:"from,omitempty"`  // the first index
	Limit int       `json:"limit,omitempty"` // 0 means 100; at most 1000
}

// Entries are ledger entries in the order of their indexes, as docs/ledger.md
// shows them. They may be fewer than were asked for although there are more:
// Next tells.
type Entries struct {
	Entries []json.RawMessage `json:"entries"`
	Next    int64             `json:"next,omitempty"` // the index to go on from, 0 at the end
}

// Entry asks for one entry or its proof.
type Entry struct {
	Context
	Index int64 `json:"index"`
}

// Document is one JSON document: an entry, or a proof.
type Document struct {
	Document json.RawMessage `json:"document"`
}

// Log is a signed checkpoint of the ledger.
type Log struct {
	Note string `json:"note"`
}

// Alarm is something that a person should look at.
type Alarm struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"` // "rate", "refused", "decoy", "breaker", "rotation", "issuer", "renewal", "import", "witness", "frozen", "disk"
	Tenant string    `json:"tenant,omitempty"`
	Text   string    `json:"text"`
}

// State is how the keeper is.
type State struct {
	Region    string   `json:"region"`
	Custody   string   `json:"custody"`    // "none" while everything lies under one user on one host, else "kept"
	Why       []string `json:"why"`        // what doctor says about it
	KEK       string   `json:"kek"`        // id of the one in force
	KEKDriver string   `json:"kek_driver"` // file, transit, pkcs11
	KeyDriver string   `json:"key_driver"` // software, pkcs11
	// Of the KEK of standbys: its id ("" while a file that holds it was not seen),
	// its driver ("" for none), and "" or why it can't be used.
	StandbyKEK    string `json:"standby_kek"`
	StandbyDriver string `json:"standby_kek_driver"`
	StandbyAway   string `json:"standby_away"`

	Rotation   string          `json:"rotation"`    // "", or how far a KEK rotation is: "12000 of 36100"
	Frozen     string          `json:"frozen"`      // "", or why nothing is done
	ForGood    bool            `json:"for_good"`    // no order thaws it: the ledger does not open, and a database from before has to be put back
	Breaker    string          `json:"breaker"`     // watching, campaign, tripped
	BreakerWhy string          `json:"breaker_why"` // why it is tripped, when not for too many openings
	Identities int64           `json:"identities"`  // those that may be shown
	Spares     int64           `json:"spares"`      // RSA keys made ahead
	Ledger     json.RawMessage `json:"ledger"`      // ledger.Status
	LedgerKeys []string        `json:"ledger_keys"` // verifier keys (package note)
	Root       []byte          `json:"root"`        // DER of the region's root certificate
	Alarms     []Alarm         `json:"alarms"`      // of this process, newest first, at most 100
}

// Ordered is the answer to an order that was carried out.
type Ordered struct {
	Text   string `json:"text"`             // what was done, for the operator
	Secret string `json:"secret,omitempty"` // a decoy's password, to be made known to its partner; told once
	Report string `json:"report,omitempty"` // a decoy's code, with which its partner tells of a use
}

// Done is the answer of an act that gives nothing.
type Done struct{}
