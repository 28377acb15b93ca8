package main

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api"
	apiclient "github.com/sallyport-mail/sallyport/internal/api/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

type decoyCmd struct {
	Seen decoySeen `cmd:"" help:"Report that a decoy was used at its partner: an alarm, and an entry in the ledger."`
}

type decoySeen struct {
	Stdin  bool      `help:"Read the report code from standard input." xor:"from"`
	File   string    `help:"Read the report code from a file." type:"path" xor:"from" placeholder:"FILE"`
	At     time.Time `help:"When it was used, RFC 3339; now when not given." placeholder:"TIME"`
	From   string    `help:"The address that it was used from." placeholder:"IP"`
	Note   string    `help:"What else is known." placeholder:"TEXT"`
	Socket string    `help:"Socket of the region's keeper, to go past the gateway." type:"path" placeholder:"PATH"`
}

func (c *decoySeen) Run(e *env) error {
	code, err := e.secret(c.Stdin, c.File)
	if err != nil {
		return err
	}
	if c.At.IsZero() {
		c.At = time.Now()
	}
	answer, err := c.report(e, code)
	if err != nil {
		return err
	}
	return printAs(e, answer, func(api.Sighted) string { return "reported: the keeper has raised the alarm" })
}

func (c *decoySeen) report(e *env, code string) (json.RawMessage, error) {
	if c.Socket == "" {
		return c.tell(e, api.Sighting{Code: code, At: &c.At, From: c.From, Note: c.Note})
	}
	region, _, _ := strings.Cut(code, ".")
	if region == "" {
		return nil, usage("a report code begins with its region", "Give it whole: REGION.CODE.")
	}
	keeper, err := client.NewRemote(client.RemoteConfig{Region: region, Socket: c.Socket})
	if err != nil {
		return nil, err
	}
	defer keeper.Close()
	if err := keeper.ReportSighting(e.ctx, act.Sighting{Code: code, At: c.At, From: c.From, Note: c.Note}); err != nil {
		return nil, err
	}
	return json.Marshal(api.Sighted{Reported: true})
}

// tell needs no token: the partner's machine has none.
func (c *decoySeen) tell(e *env, s api.Sighting) (answer json.RawMessage, err error) {
	base, err := e.address()
	if err != nil {
		return nil, err
	}
	err = (&apiclient.Client{Base: base}).Do(e.ctx, "POST", "/v1/sightings", nil, s, &answer)
	return answer, err
}
