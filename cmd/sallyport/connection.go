package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

type connectionCmd struct {
	Add     connectionAdd     `cmd:"" help:"Add a connection to a tenant's system."`
	List    connectionList    `cmd:"" help:"List a tenant's connections."`
	Show    connectionShow    `cmd:"" help:"Show a connection."`
	Test    connectionTest    `cmd:"" help:"Send a real message to the real server and say what is wrong."`
	Setup   connectionSetup   `cmd:"" help:"Set up the customer's side of a connection to Microsoft 365, or say how."`
	Replace connectionReplace `cmd:"" help:"Replace a connection's identities by the next epoch while mail flows."`
	Enable  connectionEnable  `cmd:"" help:"Deliver through it again."`
	Disable connectionDisable `cmd:"" help:"Keep its mail in the queue."`
	Remove  connectionRemove  `cmd:"" help:"Remove a connection."`
}

type hostView struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Priority int    `json:"priority"`
	Weight   int    `json:"weight"`
}

type connectionView struct {
	Tenant    string     `json:"tenant"`
	Name      string     `json:"name"`
	Kind      string     `json:"kind"`
	Direction string     `json:"direction"`
	State     string     `json:"state"`
	Host      string     `json:"host"`
	Port      int        `json:"port"`
	Hosts     []hostView `json:"hosts"`
	MX        bool       `json:"mx"`
	TLS       string     `json:"tls"`
	Health    struct {
		OK        *bool   `json:"ok"`
		LatencyMS *int64  `json:"latency_ms"`
		Reason    *string `json:"reason"`
	} `json:"health"`
	Setup *setupView `json:"setup"`
}

func (c connectionView) to() string {
	if c.MX {
		return "MX of the domain"
	}
	if c.Host == "" {
		return "-"
	}
	more := ""
	if len(c.Hosts) > 1 {
		more = fmt.Sprintf(" and %d more", len(c.Hosts)-1)
	}
	return fmt.Sprintf("%s:%d%s", c.Host, c.Port, more)
}

func (c connectionView) health() string {
	switch {
	case c.Health.OK == nil:
		return "not tried yet"
	case *c.Health.OK:
		return "ok"
	case c.Health.Reason != nil:
		return "failing: " + *c.Health.Reason
	default:
		return "failing"
	}
}

type connectionAdd struct {
	Tenant      string   `arg:""`
	Name        string   `arg:""`
	Kind        string   `required:"" help:"What it speaks: smtp, or m365 for a customer's Microsoft 365."`
	Direction   string   `help:"inbound (the tenant's mail is delivered there), outbound, or both." enum:"inbound,outbound,both" default:"inbound"`
	Host        []string `help:"Host, or host:port:priority:weight; again for fail-over." placeholder:"H"`
	Port        int      `help:"Port of the hosts that name none." default:"25"`
	MX          bool     `name:"mx" help:"Deliver to the MX of each domain."`
	TLS         string   `name:"tls" help:"none, opportunistic, required, verified or mutual." enum:"none,opportunistic,required,verified,mutual" default:"opportunistic"`
	CA          string   `name:"ca" help:"PEM file of the authority that verified and mutual trust." placeholder:"FILE"`
	ServerName  string   `help:"Name that the server's certificate must have." placeholder:"N"`
	Pin         []string `help:"sha256:HEX of the server's certificate." placeholder:"PIN"`
	Auth        string   `help:"none, plain, login or scram (SCRAM-SHA-256, or nothing); the password comes by credential set." enum:"none,plain,login,scram" default:"none"`
	User        string   `help:"User for AUTH."`
	LMTP        bool     `name:"lmtp" help:"Speak LMTP."`
	Network     []string `help:"Client network whose mail is this tenant's outbound mail." placeholder:"CIDR"`
	ClientCert  []string `name:"client-cert-sha256" help:"Client certificate, in date and with clientAuth among its extended key usages, whose mail is this tenant's outbound mail." placeholder:"HEX"`
	Platform    string   `help:"Platform shared by many tenants that sends outbound mail: exchange-online or google."`
	Originator  []string `help:"X-OriginatorOrg by which the platform names this tenant." placeholder:"ORG"`
	Domain      []string `help:"Domain that it serves, when a tenant has several." placeholder:"D"`
	Concurrency int      `help:"Connections at a time." default:"20"`
	Issuer      string   `help:"Who issues our certificate for it: builtin (the region's own CA), or acme (a public one); acme for Microsoft itself." placeholder:"I"`
	Graph       string   `help:"m365: address of Graph, https://host[:port]; Microsoft's own otherwise." placeholder:"URL"`
	Login       string   `help:"m365: address of Entra's login service; what belongs to Graph otherwise." placeholder:"URL"`
	EntraTenant string   `help:"m365: id of the customer's Entra tenant." placeholder:"ID"`
	AppID       string   `name:"app-id" help:"m365: client id of the customer's app registration for us; found by the administrator's token otherwise." placeholder:"ID"`
	AppObject   string   `name:"app-object" help:"m365: object id of that app registration." placeholder:"ID"`
	Connector   string   `help:"m365: name of the inbound connector; the only one that restricts to a certificate otherwise." placeholder:"NAME"`
	adminToken
	PrintSetup bool `help:"m365: change nothing at the customer's, and print what his administrator is to do there."`
	IfAbsent   bool `help:"Not an error when the same connection exists."`
}

// adminToken is how the customer's administrator lets us set up his side.
type adminToken struct {
	AdminTokenFile   string `help:"m365: file with the token of the customer's administrator; it is kept in custody and never shown." placeholder:"FILE"`
	Stdin            bool   `help:"m365: read that token from standard input."`
	ForgetAdminToken bool   `help:"m365: use the token now and do not keep it."`
}

// read gives the token, "" for none.
func (a adminToken) read(e *env) (string, error) {
	if a.AdminTokenFile == "" && !a.Stdin {
		return "", nil
	}
	return e.secretBy(a.Stdin, a.AdminTokenFile, "--admin-token-file")
}

func (c *connectionAdd) Run(e *env) error {
	err := connection.CheckMicrosoft(connection.Connection{
		Kind: c.Kind, Graph: c.Graph, Login: c.Login, EntraTenant: c.EntraTenant, AppID: c.AppID, AppObject: c.AppObject,
	})
	if err != nil {
		return usage(fault.Sentence(err), fault.HintOf(err))
	}
	hosts, err := parseHosts(c.Host, c.Port)
	if err != nil {
		return err
	}
	in := map[string]any{
		"name": c.Name, "kind": c.Kind, "direction": c.Direction, "hosts": hosts, "mx": c.MX,
		"tls": c.TLS, "server_name": c.ServerName, "pins": c.Pin, "auth": c.Auth, "user": c.User, "lmtp": c.LMTP,
		"networks": c.Network, "client_cert_sha256": c.ClientCert, "platform": c.Platform, "originator": c.Originator,
		"domains": c.Domain, "concurrency": c.Concurrency, "if_absent": c.IfAbsent,
		"issuer": c.Issuer, "graph": c.Graph, "login": c.Login, "entra_tenant": c.EntraTenant, "app_id": c.AppID, "app_object": c.AppObject, "connector": c.Connector,
		"forget_admin_token": c.ForgetAdminToken, "print_setup": c.PrintSetup,
	}
	token, err := c.read(e)
	if err != nil {
		return err
	}
	in["admin_token"] = token
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return usage("cannot read the CA: "+err.Error(), "Give --ca a PEM file.")
		}
		in["ca"] = string(pem)
	}
	raw, made, err := e.add(at("/v1/tenants", c.Tenant)+"/connections", in)
	if err != nil {
		return err
	}
	var v connectionView
	if err := unmarshal(raw, &v); err != nil {
		return err
	}
	if err := printAs(e, raw, func(connectionView) string { return c.text(v, made) }); err != nil {
		return err
	}
	if v.Setup != nil && !v.Setup.OK {
		return errReported
	}
	return nil
}

// text says what was done and what comes next.
func (c *connectionAdd) text(v connectionView, made bool) string {
	switch {
	case !made && v.Kind == "m365":
		return fmt.Sprintf("connection %s of %s is there already; nothing was changed, and its set-up was not run: %s", v.Name, v.Tenant, c.setupLine(v))
	case !made:
		return fmt.Sprintf("connection %s of %s is there already; nothing was changed", v.Name, v.Tenant)
	}
	text := fmt.Sprintf("connection %s of %s added: %s to %s, TLS %s\n", v.Name, v.Tenant, v.Direction, v.to(), v.TLS)
	if v.Setup != nil {
		text += v.Setup.text()
	}
	return text + c.next(v)
}

// next is what to type when the connection is there.
func (c *connectionAdd) next(v connectionView) string {
	if v.Setup != nil && !v.Setup.OK {
		return "The connection is there; its set-up failed.\nnext: repair what is FAILED above, then: " + c.setupLine(v)
	}
	next := "next: sallyport connection test " + v.Tenant + " " + v.Name
	if c.Auth != "none" {
		next = "next: sallyport credential set " + v.Tenant + " " + v.Name + " --stdin"
	}
	if len(c.ClientCert) > 0 {
		next += "\nA client's certificate proves nothing when it has ended or is not for clients (clientAuth): doctor says so once it was held."
	}
	if v.TLS == "mutual" && v.Kind == "smtp" {
		next = "next: have the partner accept our certificate: sallyport identity list --tenant " + v.Tenant + "\n" + next
	}
	return next
}

// setupLine is the command that runs the set-up with what was given here.
func (c *connectionAdd) setupLine(v connectionView) string {
	line := "sallyport connection setup " + v.Tenant + " " + v.Name
	switch {
	case c.PrintSetup:
		return line + " --print"
	case c.Stdin:
		line += " --stdin"
	case c.AdminTokenFile != "":
		line += " --admin-token-file " + c.AdminTokenFile
	}
	if c.ForgetAdminToken {
		line += " --forget-admin-token"
	}
	return line
}

// parseHosts reads host[:port[:priority[:weight]]]; an IPv6 address stands in
// brackets.
func parseHosts(words []string, port int) ([]hostView, error) {
	hosts := []hostView{}
	for _, w := range words {
		h, err := parseHost(w, port)
		if err != nil {
			return nil, usage("--host "+w+" is not understood", "Write host, host:port, or host:port:priority:weight; an IPv6 address in brackets.")
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func parseHost(w string, port int) (hostView, error) {
	h := hostView{Port: port, Weight: 1}
	name, numbers, _ := strings.Cut(w, ":")
	if bracketed, ok := strings.CutPrefix(w, "["); ok {
		name, numbers, ok = strings.Cut(bracketed, "]")
		if !ok {
			return h, errUsage
		}
		numbers = strings.TrimPrefix(numbers, ":")
	}
	h.Host = name
	if numbers == "" {
		return h, nil
	}
	into := []*int{&h.Port, &h.Priority, &h.Weight}
	for i, field := range strings.Split(numbers, ":") {
		n, err := strconv.Atoi(field)
		if err != nil || i >= len(into) {
			return h, errUsage
		}
		*into[i] = n
	}
	return h, nil
}

type connectionList struct {
	Tenant string `arg:""`
}

func (c *connectionList) Run(e *env) error {
	return list(e, at("/v1/tenants", c.Tenant)+"/connections", nil,
		[]string{"name", "kind", "direction", "to", "tls", "state", "health"}, func(v connectionView) []string {
			return []string{v.Name, v.Kind, v.Direction, v.to(), v.TLS, v.State, v.health()}
		})
}

type connectionShow struct {
	Tenant string `arg:""`
	Name   string `arg:""`
}

func (c *connectionShow) Run(e *env) error {
	return show(e, "GET", at("/v1/tenants", c.Tenant, "connections", c.Name), nil, nil, func(v connectionView) string {
		return fmt.Sprintf("%s of %s\nkind       %s\ndirection  %s\nto         %s\ntls        %s\nstate      %s\nhealth     %s",
			v.Name, v.Tenant, v.Kind, v.Direction, v.to(), v.TLS, v.State, v.health())
	})
}

type connectionTest struct {
	connectionChoice
	Rcpt string `help:"Recipient of the test message, instead of postmaster." placeholder:"ADDRESS"`
}

type testView struct {
	OK    bool `json:"ok"`
	Steps []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		MS     int64  `json:"ms"`
		Detail string `json:"detail"`
		Fix    string `json:"fix"`
	} `json:"steps"`
}

// Run exits 1 when a test failed, after printing what it found.
func (c *connectionTest) Run(e *env) error {
	in := map[string]any{}
	if c.Rcpt != "" {
		in["rcpt"] = c.Rcpt
	}
	return c.each(e, "POST", "/test", in, func(name string, raw json.RawMessage) (string, error) {
		var report testView
		if err := unmarshal(raw, &report); err != nil {
			return "", err
		}
		text := report.text()
		if c.All {
			text = name + "\n" + text
		}
		if !report.OK {
			return text, errReported
		}
		return text, nil
	})
}

func (v testView) text() string {
	var lines []string
	for _, s := range v.Steps {
		mark := "ok    "
		if !s.OK {
			mark = "FAILED"
		}
		lines = append(lines, fmt.Sprintf("%s  %-9s %5d ms  %s", mark, s.Name, s.MS, s.Detail))
		if s.Fix != "" {
			lines = append(lines, "        fix: "+strings.ReplaceAll(s.Fix, "\n", "\n        "))
		}
	}
	return strings.Join(lines, "\n")
}

type connectionEnable struct{ connectionChoice }

func (c *connectionEnable) Run(e *env) error {
	return c.each(e, "POST", "/enable", map[string]any{}, connectionState)
}

type connectionDisable struct{ connectionChoice }

func (c *connectionDisable) Run(e *env) error {
	return c.each(e, "POST", "/disable", map[string]any{}, connectionState)
}

// connectionState says what an answer's connection is now.
func connectionState(_ string, raw json.RawMessage) (string, error) {
	var v connectionView
	err := unmarshal(raw, &v)
	return "connection " + v.Name + " is " + v.State, err
}

type connectionRemove struct{ connectionChoice }

func (c *connectionRemove) Run(e *env) error {
	return c.each(e, "DELETE", "", nil, func(name string, _ json.RawMessage) (string, error) {
		return "connection " + name + " removed", nil
	})
}
