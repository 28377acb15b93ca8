package main

import (
	"context"
	"time"

	"github.com/sallyport-mail/sallyport/internal/alarm"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/trace"

	"github.com/oklog/ulid/v2"
)

// openAlarm makes the watch over the gateway's own figures.
func (g *gateway) openAlarm(context.Context) error {
	a := g.cfg.Alarm
	c := alarm.Config{
		Figures: g.figures,
		Rules: alarm.Rules{
			QueueAge: time.Duration(a.QueueAgeMin) * time.Minute, FreeBytes: a.DiskFreeMiB << 20,
			Certificate: time.Duration(a.CertificateD) * 24 * time.Hour,
		},
		From: mail.Address{Local: "postmaster", Domain: g.cfg.BaseDomain}, Hostname: g.cfg.hostname(""),
		Log: g.log, Now: time.Now,
	}
	if a.Webhook != "" {
		c.Webhooks = []alarm.Webhook{{URL: a.Webhook}}
	}
	if a.MailTo != "" {
		to, err := mail.ParseAddress(a.MailTo)
		if err != nil {
			return fault.Wrap(fault.Invalid, "[alarm] mail_to", err)
		}
		c.To, c.Mail = []mail.Address{to}, g.mailAlarm
	}
	var err error
	g.alarm, err = alarm.New(c)
	return err
}

// figures are what the alarms are judged by.
func (g *gateway) figures(ctx context.Context) (alarm.Figures, error) {
	edge := g.edge.Stats()
	f := alarm.Figures{
		OldestReady: g.queue.Stats().OldestReady, FreeBytes: g.store.Stats().FreeBytes,
		Accepted: edge.Accepted, Refused: edge.Refused,
	}
	all, err := g.queue.Destinations(ctx, "")
	for _, d := range all {
		f.Routes = append(f.Routes, alarm.Route{Destination: d.Key, State: d.State, Reason: d.Reason, Queued: d.Queued, Since: d.Since})
	}
	for _, c := range g.certificates() {
		f.Certificates = append(f.Certificates, alarm.Certificate{Host: c.Host, NotAfter: c.NotAfter})
	}
	for _, s := range g.keeperStates(ctx) {
		f.Custody = append(f.Custody, s.figure())
	}
	f.Identities = g.connections.Late()
	return f, err
}

// mailAlarm puts an alarm into the queue as mail of the tenant whose address
// it goes to, or of [alarm] mail_tenant when that is no tenant's.
func (g *gateway) mailAlarm(ctx context.Context, from mail.Address, to []mail.Address, message []byte) error {
	for _, a := range to {
		if err := g.mailOne(ctx, from, a, message); err != nil {
			return err
		}
	}
	return nil
}

func (g *gateway) mailOne(ctx context.Context, from, to mail.Address, message []byte) error {
	name, direction := g.cfg.Alarm.MailTenant, "outbound"
	route := func() (dest, conn string, err error) {
		r, err := g.connections.Outbound(ctx, name, to.Domain)
		return r.Destination, r.Connection, err
	}
	if d, ok := g.tenants.Domain(to.Domain); ok {
		name, direction = d.Tenant, "inbound"
		route = func() (dest, conn string, err error) {
			r, err := g.connections.Inbound(name, to.Domain)
			return r.Destination, r.Connection, err
		}
	}
	t, ok := g.tenants.Tenant(name)
	if !ok {
		return fault.New(fault.Missing, "alarm.mail", "no tenant carries mail to "+to.String()).WithHint("Set mail_tenant in [alarm].")
	}
	destination, conn, err := route()
	if err != nil {
		return err
	}
	body := g.store.Bodies.New()
	defer body.Discard()
	if _, err := body.Write(message); err != nil {
		return err
	}
	refs, err := body.Finish(ctx, name)
	if err != nil {
		return err
	}
	id, now := ulid.Make().String(), time.Now()
	head := mail.ScanHeader(message, "")
	return g.queue.Put(ctx, []queue.Message{{
		Summary: trace.Message{ID: id, MessageID: head.MessageID, Tenant: name, Region: t.Region, Direction: direction, From: from.String(),
			To: []string{to.String()}, Subject: head.Subject, Size: int64(len(message)), ReceivedAt: now},
		Steps: []trace.Step{{Time: now, Step: "accepted"}},
		Body:  body, Ref: refs[0],
		Items: []queue.Item{{Region: t.Region, Direction: direction, Destination: destination, Connection: conn, Domain: to.Domain, From: from,
			Recipients: []queue.Recipient{{Recipient: mail.Recipient{Address: to}}}, State: queue.Ready}},
	}})
}
