package api

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsHandler serves a registry of its own: nothing is global.
func (s *server) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newFigures(s),
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// figures reads the rooms' figures when it is scraped; nothing is counted
// twice.
type figures struct {
	s                                                                      *server
	depth, oldest, destinations, inFlight                                  *prometheus.Desc
	accepted, delivered, deferrals, failures                               *prometheus.Desc
	sessions, connects, taken, refused, deferred, unproven                 *prometheus.Desc
	commits, changes, retried, group, waiting, walBytes, freeBytes, outbox *prometheus.Desc
	region, notAfter, tenants, domains                                     *prometheus.Desc
}

func newFigures(s *server) *figures {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
	}
	return &figures{
		s:            s,
		depth:        d("queue_items", "Items in the queue by state.", "state"),
		oldest:       d("queue_oldest_ready_seconds", "Age of the oldest item that could be delivered now."),
		destinations: d("queue_destinations", "Destinations that have mail."),
		inFlight:     d("queue_in_flight", "Items being delivered."),
		accepted:     d("accepted_total", "Messages accepted since start."),
		delivered:    d("delivered_total", "Deliveries since start."),
		deferrals:    d("deferred_total", "Deferrals since start."),
		failures:     d("failed_total", "Final failures since start."),
		sessions:     d("smtp_sessions", "SMTP sessions now."),
		connects:     d("smtp_connects_total", "SMTP connections since start."),
		taken:        d("smtp_accepted_total", "Messages answered with 250 since start."),
		refused:      d("smtp_refused_total", "Refusals in the SMTP dialogue since start."),
		deferred:     d("smtp_deferred_total", "Temporary refusals in the SMTP dialogue since start."),
		unproven:     d("smtp_unproven_certificates_total", "Handshakes since start with a client certificate that is registered but no proof."),
		commits:      d("store_commits_total", "Durable commits since start."),
		changes:      d("store_changes_total", "Changes in those commits since start."),
		retried:      d("store_changes_retried_total", "Changes that ran alone after a neighbour failed."),
		group:        d("store_commit_group_size", "Changes per commit since start."),
		waiting:      d("store_changes_waiting", "Changes for which no commit has begun."),
		walBytes:     d("store_wal_bytes", "Size of the write-ahead logs."),
		freeBytes:    d("store_free_bytes", "Free bytes on the data disk."),
		outbox:       d("outbox_events", "Audit events on their way to the ledger."),
		region:       d("region_delivered_total", "Deliveries since start by region.", "region"),
		notAfter:     d("certificate_not_after_seconds", "When a server certificate ends, in Unix time.", "host"),
		tenants:      d("tenants", "Tenants."),
		domains:      d("domains", "Domains."),
	}
}

// Describe is empty: the figures vary with regions and certificates, so the
// registry takes this collector unchecked.
func (f *figures) Describe(chan<- *prometheus.Desc) {}

// Collect reads every figure once.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	f.collectQueue(gauge, count)
	f.collectEdge(gauge, count)
	f.collectStore(gauge, count)
	tenants, domains := f.s.Tenants.Count()
	gauge(f.tenants, float64(tenants))
	gauge(f.domains, float64(domains))
	if f.s.Regions != nil {
		for _, r := range f.s.Regions() {
			count(f.region, r.Delivered, r.Region)
		}
	}
	if f.s.Certificates != nil {
		for _, c := range f.s.Certificates() {
			gauge(f.notAfter, float64(c.NotAfter.Unix()), c.Host)
		}
	}
}

type (
	gauger  = func(*prometheus.Desc, float64, ...string)
	counter = func(*prometheus.Desc, uint64, ...string)
)

func (f *figures) collectQueue(gauge gauger, count counter) {
	q := f.s.queueStats()
	gauge(f.depth, float64(q.Ready), "ready")
	gauge(f.depth, float64(q.Deferred), "deferred")
	gauge(f.depth, float64(q.Held), "held")
	gauge(f.depth, float64(q.Failed), "failed")
	gauge(f.inFlight, float64(q.InFlight))
	gauge(f.destinations, float64(q.Destinations))
	age := 0.0
	if q.OldestReady != nil {
		age = max(0, f.s.Now().Sub(*q.OldestReady).Seconds())
	}
	gauge(f.oldest, age)
	count(f.accepted, q.Accepted)
	count(f.delivered, q.Delivered)
	count(f.deferrals, q.Deferrals)
	count(f.failures, q.Failures)
}

func (f *figures) collectEdge(gauge gauger, count counter) {
	e := f.s.edgeStats()
	gauge(f.sessions, float64(e.Sessions))
	count(f.connects, e.Connects)
	count(f.taken, e.Accepted)
	count(f.refused, e.Refused)
	count(f.deferred, e.Deferred)
	count(f.unproven, e.Unproven)
}

func (f *figures) collectStore(gauge gauger, count counter) {
	st := f.s.storeStats()
	count(f.commits, st.Commits)
	count(f.changes, st.Changes)
	count(f.retried, st.Retried)
	if st.Commits > 0 {
		gauge(f.group, float64(st.Changes)/float64(st.Commits))
	}
	gauge(f.waiting, float64(st.Waiting))
	gauge(f.walBytes, float64(st.WALBytes))
	gauge(f.freeBytes, float64(st.FreeBytes))
	gauge(f.outbox, float64(st.Outbox))
}
