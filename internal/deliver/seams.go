package deliver

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// work is the queue as this room uses it.
type work interface {
	Slot(ctx context.Context) (slot, error)
	Open(ctx context.Context, it *queue.Item) (io.ReadCloser, error)
	Bytes(it *queue.Item) []byte
	Report(ctx context.Context, it *queue.Item, a queue.Attempt) error
}

// slot is a *queue.Slot.
type slot interface {
	Next(ctx context.Context, idle time.Duration) (*queue.Item, bool)
	Release()
}

// routes is the part of *connection.Registry that is used here.
type routes interface {
	Candidates(ctx context.Context, tenant, destination, domain, hello string, local netip.Addr) ([]connection.Candidate, error)
	Dial(ctx context.Context, c connection.Candidate, trace string) (*smtp.Client, error)
	Offered(destination string, maxSize int64, utf8 bool)
	NoteHealth(tenant, name string, h connection.Health)
}

// tenants is the part of *tenant.Registry that is used here.
type tenants interface {
	Tenant(name string) (tenant.Tenant, bool)
}

// queueWork narrows Slot's result to the seam.
type queueWork struct{ *queue.Queue }

func (q queueWork) Slot(ctx context.Context) (slot, error) {
	s, err := q.Queue.Slot(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}
