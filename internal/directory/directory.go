package directory

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Config of the directory.
type Config struct {
	DB          *store.DB // control
	Tenants     *tenant.Registry
	Connections *connection.Registry
	Hello       string // EHLO name for probes
	Log         *slog.Logger
	Now         func() time.Time
}

// Answer is what is known of an address.
type Answer int

const (
	Unknown Answer = iota // it does not exist: 550 5.1.1
	Known
	Later // nobody can tell now: 451 4.1.1... the server is away and the address was never seen
)

// Entry is one listed address.
type Entry struct {
	Address   string    `json:"address"`
	Tenant    string    `json:"tenant"`
	CreatedAt time.Time `json:"created_at"`
}

// Directory knows recipients.
type Directory struct { /* unexported */
}

func New(ctx context.Context, c Config) (*Directory, error) { panic("skeleton") }

// Check answers for an address of domain d. text is the far end's words for a
// probe that said no.
func (x *Directory) Check(ctx context.Context, d tenant.Domain, a mail.Address) (ans Answer, text string) {
	panic("skeleton")
}

func (x *Directory) Add(ctx context.Context, a tenant.Actor, tenant string, addr mail.Address) (Entry, error) {
	panic("skeleton")
}

// Import replaces nothing: it adds every address, in batches, and says how
// many were new.
func (x *Directory) Import(ctx context.Context, a tenant.Actor, tenant string, addrs []mail.Address) (added int, err error) {
	panic("skeleton")
}
func (x *Directory) Remove(ctx context.Context, a tenant.Actor, tenant string, addr mail.Address) error {
	panic("skeleton")
}
func (x *Directory) List(ctx context.Context, tenant, after string, limit int) ([]Entry, error) {
	panic("skeleton")
}
