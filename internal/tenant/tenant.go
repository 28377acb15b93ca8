package tenant

import (
	"cmp"
	"context"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// Config of the registry.
type Config struct {
	DB      *store.DB // control
	Regions []string  // regions served by this process
	Log     *slog.Logger
	Now     func() time.Time
}

// Tenant is one customer organisation. Names are slugs: [a-z0-9-], 1 to 40.
type Tenant struct {
	Name      string    `json:"name"`
	Region    string    `json:"region"`
	CreatedAt time.Time `json:"created_at"`
	Settings  Settings  `json:"settings"`
}

// How a domain's recipients are known.
const (
	RecipientsList  = "list"  // only those that the directory lists
	RecipientsProbe = "probe" // those that the tenant's server accepts
	RecipientsNone  = "none"  // all
)

// Domain is a domain whose mail is a tenant's.
type Domain struct {
	Name       string    `json:"name"` // A-labels
	Tenant     string    `json:"tenant"`
	Recipients string    `json:"recipients"` // "list", "probe" or "none" (the default)
	PlusTags   bool      `json:"plus_tags"`  // user+tag is user, for the recipient check
	CreatedAt  time.Time `json:"created_at"`
}

// Actor is who asks for a change, for the audit event: "token:<id>" or
// "system".
type Actor string

// Registry answers from memory and changes the control database. What it
// returns is shared: slices in it are not to be changed.
type Registry struct {
	c     Config
	hooks []Hook
	// One tenant's changes come one after another, so that memory takes them
	// in the order in which the database did; those of different tenants share
	// commits.
	stripes [64]sync.Mutex

	mu       sync.RWMutex
	tenants  map[string]*holding
	gone     map[string]string // region of those that were removed since the start
	names    []string          // sorted
	domains  map[string]Domain
	tokens   map[string]*token
	users    map[string]*submitter
	lists    Lists
	operator *senderLists

	passwords *passwords
	uses      *uses
}

// holding is a tenant with what is asked of it on the road.
type holding struct {
	Tenant
	domains []string // sorted
	senders *senderLists
}

// New loads everything.
func New(ctx context.Context, c Config) (*Registry, error) {
	r := &Registry{
		c:       c,
		tenants: make(map[string]*holding),
		domains: make(map[string]Domain),
		tokens:  make(map[string]*token),
		users:   make(map[string]*submitter),
	}
	r.uses = newUses(r.writeUses)
	var err error
	if r.passwords, err = newPasswords(c.Now); err != nil {
		return nil, err
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Close writes down what is known only in memory: when tokens and passwords
// were last used.
func (r *Registry) Close(ctx context.Context) error { return r.uses.close(ctx) }

// lock serialises changes of one tenant ("" for those of no tenant).
func (r *Registry) lock(tenant string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	m := &r.stripes[h.Sum32()%uint32(len(r.stripes))]
	m.Lock()
	return m.Unlock
}

// Tenant looks a tenant up by its name.
func (r *Registry) Tenant(name string) (Tenant, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h := r.tenants[name]
	if h == nil {
		return Tenant{}, false
	}
	return h.Tenant, true
}

// RegionOf is a tenant's region, also that of one which was removed since the
// process began: what it left elsewhere is still of that region.
func (r *Registry) RegionOf(name string) (string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if h := r.tenants[name]; h != nil {
		return h.Region, true
	}
	region, ok := r.gone[name]
	return region, ok
}

// Tenants are in order of name, after the name given, at most limit.
func (r *Registry) Tenants(after string, limit int) []Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at, found := slices.BinarySearch(r.names, after)
	if found {
		at++
	}
	names := r.names[at:]
	names = names[:min(len(names), max(limit, 0))]
	list := make([]Tenant, len(names))
	for i, name := range names {
		list[i] = r.tenants[name].Tenant
	}
	return list
}

// Regions are those that this process serves.
func (r *Registry) Regions() []string { return slices.Clone(r.c.Regions) }

// Domain looks up exactly this domain: subdomains only if added. The name is
// in A-label form and lower case, as in mail.Address.
func (r *Registry) Domain(name string) (Domain, bool) {
	r.mu.RLock()
	d, ok := r.domains[name]
	r.mu.RUnlock()
	return d, ok
}

// Domains are a tenant's, in order of name.
func (r *Registry) Domains(tenant string) []Domain {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h := r.tenants[tenant]
	if h == nil {
		return []Domain{}
	}
	list := make([]Domain, len(h.domains))
	for i, name := range h.domains {
		list[i] = r.domains[name]
	}
	return list
}

// Count says how many tenants and domains there are.
func (r *Registry) Count() (tenants, domains int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.tenants), len(r.domains)
}

// insertSorted adds s to a sorted list that has it not yet.
func insertSorted[T cmp.Ordered](list []T, s T) []T {
	at, found := slices.BinarySearch(list, s)
	if found {
		return list
	}
	return slices.Insert(list, at, s)
}

func removeSorted[T cmp.Ordered](list []T, s T) []T {
	at, found := slices.BinarySearch(list, s)
	if !found {
		return list
	}
	return slices.Delete(list, at, at+1)
}
