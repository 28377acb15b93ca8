package dns

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Fake answers from literals; a missing name gives kind missing, a name in
// Fail gives kind later (for PTR the address as a string). Its zero value
// knows nothing. Names are written in lower case without a dot at the end.
type Fake struct {
	MXs   map[string][]MX
	Hosts map[string][]netip.Addr
	TXTs  map[string][]string
	PTRs  map[netip.Addr][]string
	Fail  map[string]bool
}

// MX implements [Resolver].
func (f Fake) MX(ctx context.Context, domain string) ([]MX, error) {
	name := plainName(domain)
	return fakeAnswer(ctx, f, "dns.MX", name, f.MXs[name])
}

// Addrs implements [Resolver].
func (f Fake) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	name := plainName(host)
	return fakeAnswer(ctx, f, "dns.Addrs", name, f.Hosts[name])
}

// TXT implements [Resolver].
func (f Fake) TXT(ctx context.Context, name string) ([]string, error) {
	name = plainName(name)
	return fakeAnswer(ctx, f, "dns.TXT", name, f.TXTs[name])
}

// PTR implements [Resolver].
func (f Fake) PTR(ctx context.Context, a netip.Addr) ([]string, error) {
	return fakeAnswer(ctx, f, "dns.PTR", a.String(), f.PTRs[a.Unmap()])
}

func fakeAnswer[T any](ctx context.Context, f Fake, op, name string, found []T) ([]T, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Later, op, err)
	}
	if f.Fail[name] {
		return nil, fault.New(fault.Later, op, name+": the server failed")
	}
	if len(found) == 0 {
		return nil, fault.New(fault.Missing, op, name+": no records")
	}
	return slices.Clone(found), nil
}
