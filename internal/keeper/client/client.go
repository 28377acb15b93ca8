package client

import (
	"context"
	"crypto/tls"
	"time"
)

// Signers gives certificates whose private key can sign but not be read.
type Signers interface {
	// ServerCertificate is the certificate of one of our host names. Kind
	// missing when there is none for exactly that name.
	ServerCertificate(host string) (*tls.Certificate, error)
	// ClientCertificate is the identity of a tenant's connection. Kind missing
	// when it has none.
	ClientCertificate(ctx context.Context, tenant, connection string) (*tls.Certificate, error)
}

// Use says for what a credential is opened.
type Use struct {
	Tenant, Connection string
	Purpose            string // "smtp-auth"
	Trace              string // the message on whose behalf, "" for a test
}

// Credential is a secret in clear, for one act.
type Credential struct {
	User, Password string
}

// CredentialInfo is what is known of a stored credential, without its secret.
type CredentialInfo struct {
	Connection string
	SetAt      time.Time
	LastOpened *time.Time // nil: never, or not known
	Opened     *int64     // nil: not known
}

// Credentials opens stored secrets.
type Credentials interface {
	// OpenCredential is of kind missing when none was set.
	OpenCredential(ctx context.Context, u Use) (Credential, error)
	// SetCredential stores or replaces one.
	SetCredential(ctx context.Context, tenant, connection string, c Credential) error
	// RemoveCredential is of kind missing when none was set.
	RemoveCredential(ctx context.Context, tenant, connection string) error
	// ListCredentials describes a tenant's in order of connection; it opens
	// none.
	ListCredentials(ctx context.Context, tenant string) ([]CredentialInfo, error)
}
