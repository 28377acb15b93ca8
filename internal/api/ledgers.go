package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	exportType = "application/jsonl"
	exports    = 4               // at a time: each is a connection to a keeper
	exportTime = 6 * time.Hour   // of a whole export
	exportWait = 2 * time.Minute // for a reader to take a piece of it
)

// Ledgers is how the ledgers of all regions stand.
type Ledgers struct {
	Regions []Ledger `json:"regions"`
}

// Ledger is how one region's ledger stands.
type Ledger struct {
	Region     string            `json:"region"`
	Size       *int64            `json:"size" doc:"Entries; null when the keeper did not answer, or can't read them"`
	Checkpoint *LedgerCheckpoint `json:"checkpoint" doc:"The newest; null before the first"`
	Keys       []string          `json:"keys" doc:"Verifier keys, the signer's first: keep them where the gateway is not"`
	Witnesses  []LedgerWitness   `json:"witnesses"`
	Error      *string           `json:"error" doc:"Why it is not known, or nothing is entered or signed"`
	Frozen     *string           `json:"frozen" doc:"Why the keeper does nothing: this may be an old copy, or another ledger. Null when it is not frozen"`
	ForGood    bool              `json:"frozen_for_good" doc:"No order thaws it, since the ledger does not open: size and checkpoint are what its database says, held against nothing"`
}

// LedgerCheckpoint is a signed statement of a ledger at a size.
type LedgerCheckpoint struct {
	Size      int64      `json:"size"`
	Hash      string     `json:"hash" doc:"Root of the tree, in hex"`
	Time      *time.Time `json:"time"`
	Signature string     `json:"signature"`
}

// LedgerWitness is a place outside that is shown each checkpoint.
type LedgerWitness struct {
	Name       string     `json:"name"`
	Size       int64      `json:"size" doc:"That it has last agreed to"`
	Time       *time.Time `json:"time"`
	Error      *string    `json:"error"`
	RolledBack bool       `json:"rolled_back" doc:"It knows more of this ledger than there is, or another one"`
}

// listLedgers asks all keepers at once: one that hangs keeps no other back.
func (s *server) listLedgers(ctx context.Context, _ *struct{}) (*out[Ledgers], error) {
	if _, err := s.region("", ""); err != nil {
		return nil, err
	}
	regions := s.Books.Regions()
	all := make([]Ledger, len(regions))
	var asked sync.WaitGroup
	for i, region := range regions {
		asked.Go(func() { all[i] = s.ledger(ctx, region) })
	}
	asked.Wait()
	return reply(Ledgers{all}), nil
}

func (s *server) ledger(ctx context.Context, region string) Ledger {
	l := Ledger{Region: region}
	now, err := s.Books.Status(ctx, region)
	if err == nil {
		err = fault.Wrap(fault.Internal, "api.ledger", json.Unmarshal(now.State, &l))
	}
	if err != nil {
		return Ledger{Region: region, Error: or(s.problem(ctx, err).Detail)}
	}
	l.Region, l.Keys, l.Frozen, l.ForGood = region, now.Keys, nil, now.ForGood
	if now.Frozen != "" {
		l.Frozen = &now.Frozen
	}
	return l
}

// exportLedger passes an export on as it comes. What fails before the first
// byte is a problem document; later the connection is broken off, which no
// reader takes for an end.
func (s *server) exportLedger(_ context.Context, in *struct {
	Region string `query:"region" doc:"The first when it is not given"`
}) (*huma.StreamResponse, error) {
	region, err := s.region(in.Region, "")
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		x := &exportWriter{w: w}
		defer x.end()
		err := s.Books.Export(r.Context(), region, x)
		switch {
		case err == nil:
		case x.begun:
			s.Log.WarnContext(r.Context(), "api: an export broke off", "region", region, "err", err)
			panic(http.ErrAbortHandler)
		default:
			s.refuse(w, r, err)
		}
	}}, nil
}

// exportWriter gives each piece its own time: a reader that stands still holds
// the keeper's retention back.
type exportWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (x *exportWriter) Write(b []byte) (int, error) {
	if !x.begun {
		x.begun = true
		x.w.Header().Set("Content-Type", exportType)
	}
	x.deadline(time.Now().Add(exportWait))
	return x.w.Write(b)
}

// deadline is for the connection; one that has none is a test's.
func (x *exportWriter) deadline(t time.Time) { _ = http.NewResponseController(x.w).SetWriteDeadline(t) }

// end takes the deadline off: the connection may serve another request.
func (x *exportWriter) end() { x.deadline(time.Time{}) }
