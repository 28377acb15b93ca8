package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

type connectionReplace struct {
	Tenant string `arg:""`
	Name   string `arg:""`
	Wait   bool   `help:"Wait until it is over."`
	Status bool   `help:"Only say how far the one under way is, or how the last one ended."`
	Undo   bool   `help:"Lead the one under way back, until the partner has dropped the old identity."`
}

type replacementView struct {
	OK         bool    `json:"ok"`
	ID         string  `json:"id"`
	Tenant     string  `json:"tenant"`
	Connection string  `json:"connection"`
	Kind       string  `json:"kind"`
	State      string  `json:"state"`
	From       *string `json:"from"`
	To         *string `json:"to"`
	Steps      []struct {
		State string    `json:"state"`
		At    time.Time `json:"at"`
	} `json:"steps"`
	Waiting    *string  `json:"waiting"`
	Fix        *string  `json:"fix"`
	Notes      []string `json:"notes"`
	OldRefused bool     `json:"old_refused"`
	Refused    *int     `json:"refused"`
	DelayedMax *int64   `json:"delayed_max_ms"`
}

func (v replacementView) ended() bool {
	return v.State == "done" || v.State == "undone" || v.State == "failed"
}

func (v replacementView) text() string {
	lines := []string{fmt.Sprintf("%s of connection %s of %s: %s", v.Kind, v.Connection, v.Tenant, v.State)}
	if v.From != nil && v.To != nil {
		lines = append(lines, "from "+*v.From+" to "+*v.To)
	}
	for _, s := range v.Steps {
		lines = append(lines, fmt.Sprintf("  %s  %s", s.At.UTC().Format("2006-01-02T15:04:05.000Z"), s.State))
	}
	if v.Waiting != nil {
		lines = append(lines, *v.Waiting)
	}
	if v.Fix != nil {
		lines = append(lines, "fix: "+*v.Fix)
	}
	lines = append(lines, v.Notes...)
	if v.Refused != nil && v.DelayedMax != nil {
		lines = append(lines, fmt.Sprintf("mail meanwhile: %d refused because of who we are, %d ms from acceptance to delivery at most", *v.Refused, *v.DelayedMax))
	}
	return strings.Join(lines, "\n")
}

func (c *connectionReplace) path() string {
	return at("/v1/tenants", c.Tenant, "connections", c.Name) + "/replace"
}

func (c *connectionReplace) Run(e *env) error {
	method, path, in := "POST", c.path(), any(map[string]any{})
	switch {
	case c.Status && c.Undo:
		return usage("--status or --undo?", "Give one of the two.")
	case c.Status:
		method, in = "GET", nil
	case c.Undo:
		path += "/undo"
	}
	raw, err := e.call(method, path, nil, in)
	if err != nil {
		return err
	}
	if !c.Wait {
		return printAs(e, raw, replacementView.text)
	}
	var v replacementView
	if err := unmarshal(raw, &v); err != nil {
		return err
	}
	return v.wait(e)
}

// pollEvery is how often a change that is waited for is looked at.
const pollEvery = 200 * time.Millisecond

// awayTime is how long a gateway that does not answer is waited for: it goes on
// with the change when it is started again.
const awayTime = time.Minute

// rest waits, or until the verb is broken off.
func (e *env) rest(d time.Duration) {
	select {
	case <-e.ctx.Done():
	case <-time.After(d):
	}
}

// sayAgain is when a reason that lasts is said again.
const sayAgain = time.Minute

// saying is the reason for waiting that was said last.
type saying struct {
	key string
	at  time.Time
}

// due reports whether what a change waits for is to be said, and takes it as
// said: when its state or its reason is another, or a while has passed.
func (s *saying) due(v replacementView, now time.Time) bool {
	if v.Waiting == nil {
		return false
	}
	first, _, _ := strings.Cut(*v.Waiting, "\n")
	key := v.State + " " + ofOneTry.ReplaceAllString(first, "")
	if key == s.key && now.Sub(s.at) < sayAgain {
		return false
	}
	*s = saying{key, now}
	return true
}

// ofOneTry is what differs between two replies of the same meaning: Exchange
// Online's "[host time id]", and the ids and times of Entra and Graph.
var ofOneTry = regexp.MustCompile(`\[[^\]]*\d{4}-\d\d-\d\dT[^\]]*\]|` +
	`[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|` +
	`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`)

// wait follows a change to its end, saying on standard error what it waits for.
// It exits 1 when the change has not come to what was asked for.
func (v replacementView) wait(e *env) error {
	path := at("/v1/tenants", v.Tenant, "connections", v.Connection) + "/replace"
	id, undo := v.ID, v.State == "undoing"
	var said saying
	away := time.Time{}
	var raw json.RawMessage
	for {
		var err error
		if raw, err = e.call("GET", path, nil, nil); fault.Is(err, fault.Later) && e.ctx.Err() == nil && (away.IsZero() || time.Since(away) < awayTime) {
			if away.IsZero() {
				away = time.Now()
			}
			e.rest(pollEvery)
			continue
		}
		if err != nil {
			return err
		}
		away = time.Time{}
		v = replacementView{}
		if err := unmarshal(raw, &v); err != nil {
			return err
		}
		if said.due(v, time.Now()) {
			fmt.Fprintln(e.stderr, *v.Waiting)
			if v.Fix != nil {
				fmt.Fprintln(e.stderr, *v.Fix)
			}
		}
		if v.ended() || v.ID != id {
			break
		}
		if e.rest(pollEvery); e.ctx.Err() != nil {
			return e.ctx.Err()
		}
	}
	if err := printAs(e, raw, replacementView.text); err != nil {
		return err
	}
	if v.OK || undo && v.State == "undone" {
		return nil
	}
	return errReported
}

type connectionSetup struct {
	Tenant string `arg:""`
	Name   string `arg:""`
	adminToken
	Print bool `help:"Change nothing, and print what the customer's administrator is to do."`
}

type setupView struct {
	testView
	Script  string `json:"script"`
	Consent string `json:"consent"`
	App     string `json:"app"`
}

// text is what was done, or, when nothing was, what is to be done.
func (v setupView) text() string {
	if len(v.Steps) > 0 {
		return v.testView.text() + "\n"
	}
	lines := []string{"for the customer's administrator, to review and to run:", "", v.Script}
	if v.Consent != "" {
		lines = append(lines, "his consent to the application: "+v.Consent, "the certificate to upload at the app registration:", v.App)
	}
	return strings.Join(lines, "\n")
}

// Run exits 1 when something could not be set up, after saying what.
func (c *connectionSetup) Run(e *env) error {
	token, err := c.read(e)
	if err != nil {
		return err
	}
	raw, err := e.call("POST", at("/v1/tenants", c.Tenant, "connections", c.Name)+"/setup", nil,
		map[string]any{"admin_token": token, "forget_admin_token": c.ForgetAdminToken, "print_setup": c.Print})
	if err != nil {
		return err
	}
	var v setupView
	if err := unmarshal(raw, &v); err != nil {
		return err
	}
	if err := printAs(e, raw, setupView.text); err != nil {
		return err
	}
	if !v.OK {
		return errReported
	}
	return nil
}
