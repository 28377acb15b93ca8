package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Sighting is a decoy's partner telling that the decoy was used.
type Sighting struct {
	Code string     `json:"code" required:"true" minLength:"1" maxLength:"1024" doc:"The report code that came with the decoy, REGION.CODE"`
	At   *time.Time `json:"at" doc:"When it was used; now when it is not given"`
	From string     `json:"from" maxLength:"64" doc:"The address that it was used from"`
	Note string     `json:"note" maxLength:"200" doc:"What else the partner knows"`
}

// Sighted is the answer to a report.
type Sighted struct {
	Reported bool `json:"reported"`
}

// sightingsAtOnce bounds what strangers can make a keeper do.
const sightingsAtOnce = 4

// sightings has the one route that changes something and needs no token: the
// code is the proof, and a partner's hook is to hold nothing that opens more.
func sightings(r *router) {
	on(r, http.MethodPost, "/v1/sightings", "Report that a decoy was used at its partner", r.reportSighting, atOnce(sightingsAtOnce))
}

func (s *server) reportSighting(ctx context.Context, in *struct{ Body Sighting }) (*out[Sighted], error) {
	region, _, _ := strings.Cut(in.Body.Code, ".")
	// A stranger is not told which regions there are.
	if _, err := s.region(region, ""); region == "" || fault.Is(err, fault.Missing) {
		return nil, fault.New(fault.Missing, "api.reportSighting", "no decoy has this report code").
			WithHint("Use the code that came with the decoy's order, whole: REGION.CODE. One whose decoy was released ends with it.")
	} else if err != nil {
		return nil, err
	}
	if in.Body.At == nil {
		in.Body.At = new(s.Now())
	}
	return reply(Sighted{true}), s.Books.ReportSighting(ctx, region, in.Body)
}
