package main

import (
	"fmt"
	"strings"
	"time"
)

type messageCmd struct {
	List  messageList  `cmd:"" help:"List messages, newest first."`
	Show  messageShow  `cmd:"" help:"Show a message's summary."`
	Trace messageTrace `cmd:"" help:"Show each step of a message, by id or Message-ID."`
}

type stepView struct {
	Time      time.Time `json:"time"`
	Step      string    `json:"step"`
	Recipient *string   `json:"recipient"`
	Peer      *string   `json:"peer"`
	TLS       *struct {
		Version  string `json:"version"`
		Cipher   string `json:"cipher"`
		Verified bool   `json:"verified"`
	} `json:"tls"`
	Code     *int    `json:"code"`
	Enhanced *string `json:"enhanced"`
	Text     *string `json:"text"`
}

func (s stepView) line() string {
	words := []string{s.Time.Local().Format("15:04:05.000"), fmt.Sprintf("%-9s", s.Step)}
	if s.Recipient != nil {
		words = append(words, "<"+*s.Recipient+">")
	}
	if s.Peer != nil {
		words = append(words, *s.Peer)
	}
	if s.TLS != nil {
		verified := "not verified"
		if s.TLS.Verified {
			verified = "verified"
		}
		words = append(words, fmt.Sprintf("(%s, %s, %s)", s.TLS.Version, s.TLS.Cipher, verified))
	}
	if s.Code != nil {
		words = append(words, fmt.Sprint(*s.Code))
	}
	if s.Enhanced != nil {
		words = append(words, *s.Enhanced)
	}
	if s.Text != nil {
		words = append(words, *s.Text)
	}
	return strings.Join(words, "  ")
}

type messageView struct {
	ID         string     `json:"id"`
	MessageID  string     `json:"message_id"`
	Tenant     string     `json:"tenant"`
	Region     string     `json:"region"`
	Direction  string     `json:"direction"`
	From       string     `json:"from"`
	To         []string   `json:"to"`
	Subject    string     `json:"subject"`
	Size       int64      `json:"size"`
	ReceivedAt time.Time  `json:"received_at"`
	State      string     `json:"state"`
	Steps      []stepView `json:"steps"`
}

func (m messageView) text() string {
	lines := []string{
		"id          " + m.ID,
		"message-id  " + dash(m.MessageID),
		"tenant      " + m.Tenant + " (" + m.Region + ", " + m.Direction + ")",
		"from        <" + m.From + ">",
		"to          <" + strings.Join(m.To, ">, <") + ">",
		"subject     " + dash(m.Subject),
		fmt.Sprintf("size        %d bytes", m.Size),
		"received    " + when(&m.ReceivedAt),
		"state       " + m.State,
	}
	for i, s := range m.Steps {
		if i == 0 {
			lines = append(lines, "")
		}
		lines = append(lines, s.line())
	}
	return strings.Join(lines, "\n")
}

type messageList struct {
	Tenant string        `help:"Only this tenant's."`
	State  string        `help:"queued, delivered, partial, failed, held, dropped or refused."`
	From   string        `help:"Only from this address."`
	To     string        `help:"Only to this address."`
	Since  time.Duration `help:"Only of the last D, such as 24h." placeholder:"D"`
}

func (c *messageList) Run(e *env) error {
	q := query("tenant", c.Tenant, "state", c.State, "from", c.From, "to", c.To, "since", since(c.Since))
	return list(e, "/v1/messages", q, []string{"id", "received", "tenant", "state", "from", "to", "subject"}, func(m messageView) []string {
		to := ""
		if len(m.To) > 0 {
			to = m.To[0]
		}
		if len(m.To) > 1 {
			to += fmt.Sprintf(" +%d", len(m.To)-1)
		}
		return []string{m.ID, when(&m.ReceivedAt), m.Tenant, m.State, "<" + m.From + ">", to, cut(m.Subject, 40)}
	})
}

// since turns "the last D" into the moment that the API takes.
func since(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return time.Now().Add(-d).UTC().Format(time.RFC3339)
}

type messageShow struct {
	ID string `arg:""`
}

func (c *messageShow) Run(e *env) error {
	return show(e, "GET", at("/v1/messages", c.ID), nil, nil, messageView.text)
}

type messageTrace struct {
	ID string `arg:"" help:"Id or Message-ID."`
}

func (c *messageTrace) Run(e *env) error {
	return show(e, "GET", at("/v1/messages", c.ID)+"/trace", nil, nil, messageView.text)
}

type refusalCmd struct {
	List refusalList `cmd:"" help:"List refusals, summed by address and reason."`
}

type refusalView struct {
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
	Peer     string    `json:"peer"`
	Tenant   string    `json:"tenant"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Command  string    `json:"command"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced"`
	Text     string    `json:"text"`
}

type refusalList struct {
	Tenant string        `help:"Only this tenant's."`
	From   string        `help:"Only from this address."`
	To     string        `help:"Only to this address."`
	Since  time.Duration `help:"Only of the last D." placeholder:"D"`
}

func (c *refusalList) Run(e *env) error {
	q := query("tenant", c.Tenant, "from", c.From, "to", c.To, "since", since(c.Since))
	return list(e, "/v1/refusals", q, []string{"last", "count", "peer", "tenant", "from", "to", "at", "reply"}, func(r refusalView) []string {
		return []string{when(&r.Last), fmt.Sprint(r.Count), r.Peer, dash(r.Tenant), "<" + r.From + ">", dash(r.To), r.Command,
			cut(fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text), 60)}
	})
}
