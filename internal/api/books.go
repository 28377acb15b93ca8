package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Books are the ledgers of the regions, which keepers hold and write. What
// comes from them is JSON as docs/ledger.md has it. A keeper that is away is an
// error of kind later.
type Books interface {
	// Regions that have a ledger, in the order of the settings.
	Regions() []string
	// Search returns entries in the order of their indexes, at most q.Limit, and
	// the index to go on from, 0 when these are all that there are.
	Search(ctx context.Context, region string, q BookQuery) (found []json.RawMessage, next int64, err error)
	// Entry and Proof are of one entry; kind missing when there is none.
	Entry(ctx context.Context, region string, index int64) (json.RawMessage, error)
	Proof(ctx context.Context, region string, index int64) (json.RawMessage, error)
	// Export writes the whole ledger as it comes.
	Export(ctx context.Context, region string, w io.Writer) error
	// Status is how a ledger stands.
	Status(ctx context.Context, region string) (BookStatus, error)
	// Order hands an order that operators signed to the keeper, which alone
	// decides whether it counts.
	Order(ctx context.Context, region string, order []byte) (Ordered, error)
	// ReportSighting hands on that a decoy was used; kind missing when the code
	// is none.
	ReportSighting(ctx context.Context, region string, s Sighting) error
}

// BookStatus is how a ledger stands, as its keeper says.
type BookStatus struct {
	State   json.RawMessage
	Keys    []string // verifier keys
	Frozen  string   // why the keeper does nothing: it may be an old copy; "" when it does
	ForGood bool     // no order thaws it: the ledger does not open
}

// BookQuery narrows a search; what is empty matches everything.
type BookQuery struct {
	Tenant, Connection, Act, Actor, Trace string
	Since, Until                          time.Time // from, and before
	From                                  int64     // the first index
	Limit                                 int
}

// EntryQuery is how entries are searched.
type EntryQuery struct {
	Tenant     string `query:"tenant"`
	Connection string `query:"connection"`
	Act        string `query:"act" doc:"What was done, as key.sign"`
	Actor      string `query:"actor" doc:"Who did it, as keeper or token:<id>"`
	Trace      string `query:"trace" doc:"The message that it was done for"`
	Since      string `query:"since" doc:"RFC 3339, or how long ago as 24h"`
	Until      string `query:"until" doc:"Before this: RFC 3339, or how long ago as 1h"`
	Region     string `query:"region" doc:"The tenant's, or the first, when it is not given"`
	Paging
}

// OneEntry names an entry of a region's ledger.
type OneEntry struct {
	Index  int64  `path:"index" minimum:"0" doc:"Counted from 0"`
	Region string `query:"region" doc:"The caller's tenant's, or the first, when it is not given"`
}

// LedgerEntry is an entry as the contract shows it: absent is null.
type LedgerEntry struct {
	Index      int64      `json:"index"`
	Time       *time.Time `json:"time"`
	Source     *string    `json:"source" doc:"witnessed by the keeper, or asserted by the gateway"`
	Actor      *string    `json:"actor"`
	Act        *string    `json:"act"`
	Tenant     *string    `json:"tenant"`
	Connection *string    `json:"connection"`
	Subject    *string    `json:"subject"`
	Purpose    *string    `json:"purpose"`
	Trace      *string    `json:"trace"`
	Outcome    *string    `json:"outcome"`
	Of         *int64     `json:"of" doc:"The entry whose outcome this one tells"`
	Count      *int64     `json:"count" doc:"How many uses it stands for, null for one"`
	Key        *string    `json:"key"`
	Hash       string     `json:"hash" doc:"Of the leaf, in hex"`
	Removed    bool       `json:"removed" doc:"Past its retention: only index and hash are left"`
}

// LedgerProof shows that an entry stands in the ledger; docs/ledger.md tells
// how it is checked.
type LedgerProof struct {
	Format     string   `json:"format"`
	Index      int64    `json:"index"`
	Entry      string   `json:"entry" doc:"The leaf, byte for byte"`
	Hashes     []string `json:"hashes" doc:"From the leaf to the root, in base64"`
	Checkpoint string   `json:"checkpoint"`
	Keys       []string `json:"keys" doc:"Verifier keys of the ledger: compare them with those you know"`
}

func books(r *router) {
	on(r, http.MethodGet, "/v1/ledger", "Show how the ledger of each region stands", r.listLedgers)
	on(r, http.MethodGet, "/v1/ledger/entries", "Search a region's ledger, oldest first", r.searchLedger)
	on(r, http.MethodGet, "/v1/ledger/entries/{index}", "Show an entry", r.showEntry)
	on(r, http.MethodGet, "/v1/ledger/entries/{index}/proof", "Prove that an entry stands in the ledger", r.proveEntry)
	on(r, http.MethodGet, "/v1/ledger/export", "Stream a region's whole ledger", r.exportLedger, within(exportTime), streams(exportType), atOnce(exports))
	on(r, http.MethodPost, "/v1/orders", "Hand a signed order to a region's keeper", r.order, secretAnswer)
}

// region is the one asked for, or else the tenant's, or else the first.
func (s *server) region(asked, of string) (string, error) {
	if s.Books == nil || len(s.Books.Regions()) == 0 {
		return "", fault.New(fault.Later, "api.region", "no keeper: this gateway has none, so it has no ledger").
			WithHint("Configure a keeper for the region.")
	}
	all := s.Books.Regions()
	if asked == "" {
		if t, ok := s.Tenants.Tenant(of); ok {
			asked = t.Region
		} else {
			asked = all[0]
		}
	}
	if !slices.Contains(all, asked) {
		return "", fault.New(fault.Missing, "api.region", "there is no ledger of region "+quoted(asked)).
			WithHint("Name one of " + strings.Join(all, ", ") + ".")
	}
	return asked, nil
}

func (s *server) searchLedger(ctx context.Context, in *EntryQuery) (*out[Page[LedgerEntry]], error) {
	q := BookQuery{Connection: in.Connection, Act: in.Act, Actor: in.Actor, Trace: in.Trace, Limit: in.Limit}
	var err error
	if q.Tenant, err = scope(ctx, in.Tenant); err != nil {
		return nil, err
	}
	if q.Since, err = moment("since", in.Since, s.Now()); err != nil {
		return nil, err
	}
	if q.Until, err = moment("until", in.Until, s.Now()); err != nil {
		return nil, err
	}
	if born := s.born(ctx); q.Since.Before(born) {
		q.Since = born
	}
	if q.From, err = position(in.After); err != nil {
		return nil, err
	}
	region, err := s.region(in.Region, q.Tenant)
	if err != nil {
		return nil, err
	}
	found, from, err := s.Books.Search(ctx, region, q)
	if err != nil {
		return nil, err
	}
	items := make([]LedgerEntry, len(found))
	for i, raw := range found {
		if items[i], err = readEntry(raw); err != nil {
			return nil, err
		}
	}
	next := ""
	if from > 0 {
		next = strconv.FormatInt(from, 10)
	}
	return paged(items, next), nil
}

// born is when the caller's tenant came to be. What the ledger has of that
// name from before is of another customer, who has left.
func (s *server) born(ctx context.Context) time.Time {
	t, _ := s.Tenants.Tenant(caller(ctx).Tenant)
	return t.CreatedAt
}

// position reads the next of a page: an index.
func position(after string) (int64, error) {
	if after == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(after, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "api", "after is no index: "+quoted(after)).WithHint("Give the next of the page before.")
	}
	return n, nil
}

func readEntry(raw json.RawMessage) (e LedgerEntry, err error) {
	err = json.Unmarshal(raw, &e)
	return e, fault.Wrap(fault.Internal, "api.readEntry", err)
}

// entry is one that the caller may see; another tenant's is missing in the
// words of one that there is not.
func (s *server) entry(ctx context.Context, in *OneEntry) (LedgerEntry, string, error) {
	own, err := scope(ctx, "")
	if err != nil {
		return LedgerEntry{}, "", err
	}
	region, err := s.region(in.Region, own)
	if err != nil {
		return LedgerEntry{}, "", err
	}
	raw, err := s.Books.Entry(ctx, region, in.Index)
	if fault.Is(err, fault.Missing) {
		err = noEntry(in.Index)
	}
	if err != nil {
		return LedgerEntry{}, "", err
	}
	e, err := readEntry(raw)
	if err == nil && own != "" && !s.owns(ctx, own, e) {
		err = noEntry(in.Index)
	}
	return e, region, err
}

func (s *server) owns(ctx context.Context, own string, e LedgerEntry) bool {
	return e.Tenant != nil && *e.Tenant == own && e.Time != nil && !e.Time.Before(s.born(ctx))
}

func noEntry(index int64) error {
	return fault.New(fault.Missing, "api.entry", "there is no entry "+strconv.FormatInt(index, 10)).
		WithHint("Search the ledger for those there are; each region counts its own from 0.")
}

func (s *server) showEntry(ctx context.Context, in *OneEntry) (*out[LedgerEntry], error) {
	e, _, err := s.entry(ctx, in)
	return reply(e), err
}

func (s *server) proveEntry(ctx context.Context, in *OneEntry) (*out[LedgerProof], error) {
	e, region, err := s.entry(ctx, in)
	if err != nil {
		return nil, err
	}
	raw, err := s.Books.Proof(ctx, region, e.Index)
	if err != nil {
		return nil, err
	}
	var p LedgerProof
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fault.Wrap(fault.Internal, "api.proveEntry", err)
	}
	return reply(p), nil
}

// Ordered is what a keeper answers to an order.
type Ordered struct {
	Text   *string `json:"text" doc:"What was done"`
	Secret *string `json:"secret" doc:"A secret that is shown this once"`
	Report *string `json:"report" doc:"The code with which a decoy's partner reports its use"`
}

func (s *server) order(ctx context.Context, in *struct {
	Body struct {
		Region string          `json:"region" required:"true" minLength:"1"`
		Order  json.RawMessage `json:"order" required:"true" doc:"The order as sallyport order make and order sign wrote it"`
	}
}) (*out[Ordered], error) {
	region, err := s.region(in.Body.Region, "")
	if err != nil {
		return nil, err
	}
	got, err := s.Books.Order(ctx, region, in.Body.Order)
	return reply(got), err
}
