package alarm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rules are the marks at which an alarm is raised; a zero field means its
// default.
type Rules struct {
	QueueAge     time.Duration // of the oldest item that could be delivered; default 15 min
	RouteDown    time.Duration // how long a route may be down; default 10 min. A stopped one is told at once
	FreeBytes    int64         // on the data disk; default 1 GiB
	Certificate  time.Duration // before its end; default 14 days
	SpikeFactor  float64       // times the usual rate; default 5
	SpikeMinimum float64       // a minute, below which nothing is a spike; default 300
}

func (r Rules) filled() Rules {
	return Rules{
		QueueAge:     cmp.Or(r.QueueAge, 15*time.Minute),
		RouteDown:    cmp.Or(r.RouteDown, 10*time.Minute),
		FreeBytes:    cmp.Or(r.FreeBytes, 1<<30),
		Certificate:  cmp.Or(r.Certificate, 14*24*time.Hour),
		SpikeFactor:  cmp.Or(r.SpikeFactor, 5),
		SpikeMinimum: cmp.Or(r.SpikeMinimum, 300),
	}
}

// Alarm is one thing that is wrong.
type Alarm struct {
	Key    string    `json:"alarm"` // "queue-age", "route-down t:acme:mailbox"…: what it is compared by
	Detail string    `json:"detail"`
	Fix    string    `json:"fix"`
	Since  time.Time `json:"since"` // when it was raised
}

// judge is pure: figures and a moment in, what is wrong out. Rates, which need
// a past, are judged apart.
func (r Rules) judge(f Figures, now time.Time) []Alarm {
	var found []Alarm
	if f.OldestReady != nil {
		if age := now.Sub(*f.OldestReady); age > r.QueueAge {
			found = append(found, Alarm{
				Key:    "queue-age",
				Detail: "mail that could be delivered has waited for " + age.Round(time.Second).String(),
				Fix:    "See queue list for what waits, and doctor for why.",
			})
		}
	}
	for _, route := range f.Routes {
		if a, ok := r.route(route, now); ok {
			found = append(found, a)
		}
	}
	if f.FreeBytes >= 0 && f.FreeBytes < r.FreeBytes {
		found = append(found, Alarm{
			Key:    "disk",
			Detail: fmt.Sprintf("the data disk has %d MiB left", f.FreeBytes>>20),
			Fix:    "Make room before the gateway refuses mail.",
		})
	}
	if len(f.Identities) > 0 {
		found = append(found, Alarm{
			Key:    "identities",
			Detail: fmt.Sprintf("%d identities should have been renewed: %s", len(f.Identities), strings.Join(f.Identities[:min(len(f.Identities), 5)], ", ")),
			Fix:    "See what their replacement waits for: sallyport doctor, sallyport connection replace TENANT NAME --status.",
		})
	}
	for _, c := range f.Custody {
		found = append(found, c.judge(now)...)
	}
	return append(found, r.certificates(f.Certificates, now)...)
}

func (r Rules) route(route Route, now time.Time) (Alarm, bool) {
	switch route.State {
	case "stopped":
		return Alarm{
			Key:    "route-stopped " + route.Destination,
			Detail: fmt.Sprintf("the route is stopped with %d items waiting: %s", route.Queued, route.Reason),
			Fix:    "Mend what the far end objects to, then resume the destination.",
		}, true
	case "down":
		if route.Since == nil || now.Sub(*route.Since) < r.RouteDown {
			return Alarm{}, false
		}
		return Alarm{
			Key:    "route-down " + route.Destination,
			Detail: fmt.Sprintf("the route has been down for %s with %d items waiting: %s", now.Sub(*route.Since).Round(time.Second), route.Queued, route.Reason),
			Fix:    "Test the connection to see at which step it fails.",
		}, true
	default:
		return Alarm{}, false
	}
}

func (r Rules) certificates(list []Certificate, now time.Time) []Alarm {
	var found []Alarm
	for _, c := range list {
		left := c.NotAfter.Sub(now)
		if left > r.Certificate {
			continue
		}
		detail := fmt.Sprintf("the certificate of %s ends in %d days", c.Host, int(left/(24*time.Hour)))
		if left <= 0 {
			detail = "the certificate of " + c.Host + " has ended"
		}
		found = append(found, Alarm{Key: "certificate " + c.Host, Detail: detail, Fix: "Put a new certificate in its place; no restart is needed."})
	}
	return found
}

// rates remembers how fast the counters usually grow.
type rates struct {
	at                time.Time
	accepted, refused rate
}

// rate is one counter with its usual growth a minute.
type rate struct {
	last  uint64
	usual float64
	seen  int
}

const (
	warmUp = 20   // looks before anything can be a spike
	weight = 0.05 // of the newest look in what is usual
)

// judge compares the growth since the last look with the usual one.
func (r *rates) judge(rules Rules, f Figures, now time.Time) []Alarm {
	minutes := now.Sub(r.at).Minutes()
	first := r.at.IsZero() || minutes <= 0
	r.at = now
	var found []Alarm
	for _, one := range []struct {
		key, what string
		rate      *rate
		count     uint64
	}{
		{"spike-accepted", "messages accepted", &r.accepted, f.Accepted},
		{"spike-refused", "refusals", &r.refused, f.Refused},
	} {
		speed, usual, spike := one.rate.add(rules, one.count, minutes, first)
		if spike {
			found = append(found, Alarm{
				Key:    one.key,
				Detail: fmt.Sprintf("%.0f %s a minute, %.0f are usual", speed, one.what, usual),
				Fix:    "See message list and refusals for who sends; a stop switch or a limit holds it off.",
			})
		}
	}
	return found
}

// add notes a count and reports whether its growth is a spike. A spike enters
// the usual rate capped, so that one burst does not hide the next.
func (r *rate) add(rules Rules, count uint64, minutes float64, first bool) (speed, usual float64, spike bool) {
	grown := count >= r.last // a restart begins at zero
	delta := count - r.last
	r.last = count
	if first || !grown {
		return 0, r.usual, false
	}
	speed, usual = float64(delta)/minutes, r.usual
	r.seen++
	spike = r.seen > warmUp && speed > rules.SpikeMinimum && speed > usual*rules.SpikeFactor
	enters := speed
	if spike {
		enters = max(usual*2, rules.SpikeMinimum/rules.SpikeFactor)
	}
	if r.seen == 1 {
		r.usual = enters
	} else {
		r.usual += weight * (enters - r.usual)
	}
	return speed, usual, spike
}

func sortAlarms(list []Alarm) []Alarm {
	slices.SortFunc(list, func(a, b Alarm) int { return cmp.Compare(a.Key, b.Key) })
	return list
}
