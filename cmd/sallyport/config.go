package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sallyport-mail/sallyport/internal/edge"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// Names of what init writes into the folder.
const (
	configName = "sallyport.toml"
	tokenName  = "operator.token"
)

// config is sallyport.toml. A field that is missing has its default, so that
// a new version starts with an old file.
type config struct {
	BaseDomain string   `toml:"base_domain" comment:"Our host names are below it: mx.<region>.<base_domain>."`
	Regions    []string `toml:"regions"`
	Store      string   `toml:"store" comment:"sqlite, or postgres://user@host/database"`
	RowLimit   int      `toml:"row_limit,omitempty" comment:"Largest body in bytes that is a row; larger ones are files."`
	ReserveMiB int64    `toml:"reserve_mib,omitempty" comment:"Free disk that is kept for deliveries."`

	API       apiConfig        `toml:"api"`
	Listeners []listenerConfig `toml:"listener"`
	DNS       dnsConfig        `toml:"dns,omitempty"`
	Limits    limitsConfig     `toml:"limits,omitempty"`
	Delivery  deliveryConfig   `toml:"delivery,omitempty"`
	Alarm     alarmConfig      `toml:"alarm,omitempty"`
	Keepers   []keeperAt       `toml:"keeper,omitempty"`
	ACME      acmeListener     `toml:"acme,omitempty"`
	Custody   custodyConfig    `toml:"custody,omitempty"`
}

type custodyConfig struct {
	Standby *bool `toml:"standby,omitempty" comment:"A next identity for each connection, made in quiet time; true without."`
}

func (c custodyConfig) standby() bool { return c.Standby == nil || *c.Standby }

// acmeListener answers the challenges by which public CAs see that our names
// are ours (RFC 8555 8.3).
type acmeListener struct {
	HTTP string `toml:"http,omitempty" comment:"Address, such as 0.0.0.0:80, that the names of identities lead to: <region>.<base_domain> and all below."`
}

type apiConfig struct {
	Address       string `toml:"address" comment:"Keep it on loopback, or give it a certificate."`
	Certificate   string `toml:"certificate,omitempty" comment:"PEM file; with key, the API speaks TLS."`
	Key           string `toml:"key,omitempty"`
	MetricsTokens bool   `toml:"metrics_need_token,omitempty"`
}

// url is how the command line reaches the API.
func (a apiConfig) url() string {
	scheme := "http"
	if a.Certificate != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return scheme + "://" + a.Address
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

type listenerConfig struct {
	Kind           string   `toml:"kind" comment:"inbound (25), submission (587, STARTTLS) or submissions (465, TLS)"`
	Address        string   `toml:"address"`
	Region         string   `toml:"region,omitempty" comment:"Only for this region; its name greets."`
	Proxy          []string `toml:"proxy,omitempty" comment:"Networks of balancers that send the PROXY protocol."`
	Platforms      bool     `toml:"platforms,omitempty" comment:"Ask for client certificates: for platforms and mutual TLS, never the MX."`
	MaxSizeMiB     int64    `toml:"max_size_mib,omitempty"`
	MaxRecipients  int      `toml:"max_recipients,omitempty"`
	MaxConnections int      `toml:"max_connections,omitempty"`
	InsecureAuth   bool     `toml:"insecure_auth,omitempty" comment:"AUTH without TLS: trying out on loopback only."`
}

// name tells listeners apart in logs and metrics.
func (l listenerConfig) name() string { return l.Kind + " " + l.Address }

// edgeKind is the listener's kind as the edge knows it.
func (l listenerConfig) edgeKind() edge.Kind {
	if l.Kind == "inbound" {
		return edge.Inbound
	}
	return edge.Submission
}

type dnsConfig struct {
	Servers []string `toml:"servers,omitempty" comment:"host:port; the system's when empty."`
	MXPort  int      `toml:"mx_port,omitempty" comment:"Port for delivery to MX hosts, 25."`
}

type limitsConfig struct {
	ConnectionsPerIP      int `toml:"connections_per_ip,omitempty"`
	ConnectionsPerNetwork int `toml:"connections_per_network,omitempty"`
	ConnectsPerIPMinute   int `toml:"connects_per_ip_minute,omitempty"`
	MessagesPerIPMinute   int `toml:"messages_per_ip_minute,omitempty"`
	RecipientsPerIPMinute int `toml:"recipients_per_ip_minute,omitempty"`
}

type deliveryConfig struct {
	Slots       int          `toml:"slots,omitempty" comment:"Deliveries at a time."`
	HostCeiling int          `toml:"host_ceiling,omitempty" comment:"Connections to one remote address."`
	ReplyTimeS  int          `toml:"reply_timeout_s,omitempty" comment:"Longest wait for any reply of a remote server; the minima of RFC 5321 when missing."`
	Pools       []poolConfig `toml:"pool,omitempty"`
}

type poolConfig struct {
	Name    string         `toml:"name"`
	Sources []sourceConfig `toml:"source"`
}

type sourceConfig struct {
	Address string `toml:"address"`
	Hello   string `toml:"hello"`
}

type alarmConfig struct {
	Webhook      string `toml:"webhook,omitempty"`
	MailTo       string `toml:"mail_to,omitempty"`
	MailTenant   string `toml:"mail_tenant,omitempty" comment:"Tenant by whose connection the alarm mail goes."`
	QueueAgeMin  int    `toml:"queue_age_minutes,omitempty"`
	DiskFreeMiB  int64  `toml:"disk_free_mib,omitempty"`
	CertificateD int    `toml:"certificate_days,omitempty"`
}

// defaultRegions are the cells of a new installation.
const defaultRegions = "us,uk,de,ca,za,au,je"

// loadConfig reads DIR/sallyport.toml. Unknown keys are an error: a setting
// that is misspelt must not be silently without effect.
func loadConfig(dir string) (config, error) {
	path := filepath.Join(dir, configName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, fault.New(fault.Missing, "", dir+" is not a folder of Sallyport: it has no "+configName).
			WithHint("Make one with `sallyport init --data " + dir + " --base-domain DOMAIN`, or name another with --data.")
	}
	if err != nil {
		return config{}, fault.Wrap(fault.Invalid, "config", err)
	}
	return parseConfig(raw, path)
}

func parseConfig(raw []byte, path string) (config, error) {
	var c config
	d := toml.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fault.New(fault.Invalid, "", path+": "+describeTOML(err)).WithHint("docs/operate.md lists the settings.")
	}
	return c, c.check(path)
}

// describeTOML names the line that a TOML error is about.
func describeTOML(err error) string {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		row, _ := missing.Errors[0].Position()
		return fmt.Sprintf("line %d: there is no setting %q", row, missing.Errors[0].Key())
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		return fmt.Sprintf("line %d: %s", row, decode.Error())
	}
	return err.Error()
}

func (c config) check(path string) error {
	if _, err := mail.ParseDomain(c.BaseDomain); err != nil {
		return fault.New(fault.Invalid, "", fmt.Sprintf("%s: base_domain %q is not a domain name", path, c.BaseDomain))
	}
	if len(c.Regions) == 0 {
		return fault.New(fault.Invalid, "", path+": there are no regions")
	}
	for _, l := range c.Listeners {
		if err := l.check(c.Regions); err != nil {
			return fault.New(fault.Invalid, "", path+": "+err.Error())
		}
	}
	for _, k := range c.Keepers {
		if err := k.check(c.Regions); err != nil {
			return fault.New(fault.Invalid, "", path+": "+err.Error())
		}
	}
	return nil
}

func (l listenerConfig) check(regions []string) error {
	switch l.Kind {
	case "inbound", "submission", "submissions":
	default:
		return fmt.Errorf("listener kind %q is none of inbound, submission, submissions", l.Kind)
	}
	if _, _, err := net.SplitHostPort(l.Address); err != nil {
		return fmt.Errorf("listener address %q is not host:port", l.Address)
	}
	for _, p := range l.Proxy {
		if _, err := netip.ParsePrefix(p); err != nil {
			return fmt.Errorf("proxy network %q is not a CIDR", p)
		}
	}
	if l.Region == "" {
		return nil
	}
	for _, r := range regions {
		if r == l.Region {
			return nil
		}
	}
	return fmt.Errorf("listener region %q is not one of the regions", l.Region)
}

// hostname is our name for a region, or for all when region is "".
func (c config) hostname(region string) string {
	if region == "" {
		return "mx." + c.BaseDomain
	}
	return "mx." + region + "." + c.BaseDomain
}

// platformName is the host name that platforms and mutual-TLS clients are
// given: only it asks for a client certificate.
func (c config) platformName(region string) string {
	if region == "" {
		return "out." + c.BaseDomain
	}
	return "out." + region + "." + c.BaseDomain
}

// hostnames are all names that need a certificate.
func (c config) hostnames() []string {
	names := []string{c.hostname(""), c.platformName("")}
	for _, r := range c.Regions {
		names = append(names, c.hostname(r), c.platformName(r))
	}
	return names
}

// hostsOf are the names whose certificates the keeper of a region has: the
// first region's also those of no region.
func (c config) hostsOf(region string) []string {
	names := []string{c.hostname(region), c.platformName(region)}
	if region == c.Regions[0] {
		names = append(names, c.hostname(""), c.platformName(""))
	}
	return names
}

func (c config) edgeLimits() edge.Limits {
	return edge.Limits{
		ConnectionsPerIP: c.Limits.ConnectionsPerIP, ConnectionsPerNetwork: c.Limits.ConnectionsPerNetwork,
		ConnectsPerIPMinute: c.Limits.ConnectsPerIPMinute, MessagesPerIPMinute: c.Limits.MessagesPerIPMinute,
		RecipientsPerIPMinute: c.Limits.RecipientsPerIPMinute,
	}
}

// timeouts are those of a client; zero ones get the minima of RFC 5321
// 4.5.3.2.
func (d deliveryConfig) timeouts() smtp.Timeouts {
	if d.ReplyTimeS <= 0 {
		return smtp.Timeouts{}
	}
	t := time.Duration(d.ReplyTimeS) * time.Second
	return smtp.Timeouts{Dial: t, Greeting: t, Hello: t, Mail: t, Rcpt: t, DataInit: t, DataBlock: t, DataDone: t}
}

// Limits of a client on the wire that are not worth a setting.
const (
	// maxConnections is for a listener that says nothing else; one that waits
	// costs some 10 KiB.
	maxConnections = 5000
	maxErrors      = 20      // negative replies
	maxLine        = 1 << 20 // of content: no mail has such, and RFC 5321 4.5.3.1.6 says 1000
	minDataRate    = 100     // bytes a second
	// evictSilent is the age at which the oldest client that has said nothing
	// gives way to a newcomer to a full listener. It matters only in a flood,
	// which it must outrun: 5,000 places last for 50,000 newcomers a second, also
	// when a busy machine lets them in by bursts.
	evictSilent     = 100 * time.Millisecond
	evictIdle       = 5 * evictSilent // the same for one that has said something, but sent no mail
	firstCommand    = 10 * time.Second
	commandTime     = 5 * time.Minute // RFC 5321 4.5.3.2.7
	dataTime        = 3 * time.Minute // 4.5.3.2.5
	transactionTime = time.Hour
)

// Times of the node that are not worth a setting.
const (
	defaultSlots = 500              // a slot is a goroutine and a socket; hosts that hang hold theirs for minutes
	drainTime    = 30 * time.Second // for sessions in DATA and deliveries under way at a stop
)
