package alarm

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Config of the watch.
type Config struct {
	Figures func(ctx context.Context) (Figures, error)
	Rules   Rules
	Every   time.Duration // between two looks; 0 means 30 s

	Webhooks []Webhook
	// Mail hands a message to the queue, so that it is delivered like any
	// other; nil sends none.
	Mail     func(ctx context.Context, from mail.Address, to []mail.Address, message []byte) error
	From     mail.Address
	To       []mail.Address
	Hostname string // this gateway's name, for people

	HTTP *http.Client // nil: a default that follows no redirect
	Log  *slog.Logger
	Now  func() time.Time
}

// Webhook is where notices are posted.
type Webhook struct {
	URL   string
	Token string // sent as a bearer token when not empty
}

// Figures are what is watched, as they are at one moment.
type Figures struct {
	OldestReady  *time.Time // the oldest item that could be delivered
	Routes       []Route
	FreeBytes    int64 // on the data disk; negative when unknown
	Certificates []Certificate
	Accepted     uint64 // messages, since start
	Refused      uint64 // in the dialogue, since start
	Custody      []Custody
	Identities   []string // certificates of connections whose renewal is late, in words
}

// Custody is how a region's keeper is.
type Custody struct {
	Region  string
	Away    string // why it does not answer, "" when it does
	Frozen  string // why it does nothing, "" when it does
	ForGood bool   // no order thaws it
	Breaker string // "tripped" is an alarm
	// BreakerWhy is why it is tripped, "" when too many credentials were opened.
	BreakerWhy string
	Recent     []Notable
}

// Notable is something that a keeper has raised an alarm for itself.
type Notable struct {
	At     time.Time
	Kind   string
	Tenant string
	Text   string

	heard time.Time // by this gateway; zero: when it was raised
}

// Route is a destination's state.
type Route struct {
	Destination string
	State       string // "up", "down" or "stopped"
	Reason      string
	Queued      int64
	Since       *time.Time
}

// Certificate is a server certificate in use.
type Certificate struct {
	Host     string
	NotAfter time.Time
}

// Watch is the watch.
type Watch struct {
	c     Config
	book  *book
	rates rates
	heard heard
	hooks []*hook
}

const (
	defaultEvery = 30 * time.Second
	lookTime     = 20 * time.Second
)

// New checks the configuration; kind invalid.
func New(c Config) (*Watch, error) {
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	c.Rules = c.Rules.filled()
	w := &Watch{c: c, book: newBook()}
	for _, h := range c.Webhooks {
		u, err := url.Parse(h.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fault.New(fault.Invalid, "alarm.New", "a webhook is no http or https address").
				WithHint("Write it as https://host/path.")
		}
		w.hooks = append(w.hooks, newHook(h, c))
	}
	if c.Mail != nil && len(c.To) > 0 && c.From.IsNull() {
		return nil, fault.New(fault.Invalid, "alarm.New", "alerts by mail need a sender").
			WithHint("Set the address that alerts come from.")
	}
	return w, nil
}

// Run looks at the figures until ctx ends, then gives running webhooks up.
func (w *Watch) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, h := range w.hooks {
		wg.Go(func() { h.run(ctx) })
	}
	tick := time.NewTicker(w.c.Every)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Raised are the alarms that are raised now, in order of key.
func (w *Watch) Raised() []Alarm { return w.book.raised() }

// look reads the figures once and tells of what changed.
func (w *Watch) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	f, err := w.c.Figures(bounded)
	if err != nil {
		if ctx.Err() == nil {
			w.c.Log.Warn("alarm: the figures could not be read", "err", err)
		}
		return
	}
	now := w.c.Now()
	w.heard.note(f.Custody, now)
	alarms := append(w.c.Rules.judge(f, now), w.rates.judge(w.c.Rules, f, now)...)
	n := w.book.update(alarms, now)
	if n.empty() {
		return
	}
	n.Gateway = w.c.Hostname
	w.tell(ctx, n)
}

// tell hands a notice to every way out.
func (w *Watch) tell(ctx context.Context, n Notice) {
	for _, a := range n.Raised {
		w.c.Log.Warn("alarm: raised", "alarm", a.Key, "detail", a.Detail)
	}
	for _, a := range n.Cleared {
		w.c.Log.Info("alarm: cleared", "alarm", a.Key)
	}
	for _, h := range w.hooks {
		h.offer(n)
	}
	if w.c.Mail == nil || len(w.c.To) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if err := w.c.Mail(ctx, w.c.From, w.c.To, n.message(w.c.From, w.c.To)); err != nil {
		w.c.Log.Error("alarm: a notice could not be mailed", "err", err)
	}
}
