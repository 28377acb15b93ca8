package edge

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Each file of testdata is a story; testdata/README.md says how to write one.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.case")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".case"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			s := &story{house: newHouse(t), kind: Inbound, from: "127.0.0.1"}
			s.tell(strings.Split(string(data), "\n"))
		})
	}
}

// story is a case file being told.
type story struct {
	*house
	kind   Kind
	region string
	from   string
	addr   string
	caller *caller
}

func (s *story) tell(lines []string) {
	step, rest := s.setup, []string(nil)
	for i, line := range lines {
		switch {
		case line == "dialogue:":
			s.open()
			s.addr = s.listen(s.kind, s.region)
			s.caller = call(s.t, s.addr, s.from)
			step = s.talk
		case line == "queue:":
			rest = lines[i+1:]
		case line == "" && !strings.HasPrefix(line, "C:"), strings.HasPrefix(line, "#"):
		case rest == nil:
			step(line)
		}
	}
	s.compare(rest)
}

// setup runs a line such as "tenant acme us message_rate=5".
func (s *story) setup(line string) {
	s.t.Helper()
	words := strings.Fields(line)
	named := map[string]string{}
	var plain []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			named[k] = v
		} else {
			plain = append(plain, w)
		}
	}
	switch words[0] {
	case "tenant":
		s.addTenant(plain[0], plain[1], s.settings(named))
	case "domain":
		s.addDomain(plain[0], plain[1], plain[2])
	case "recipient":
		_, err := s.directory.Add(s.t.Context(), "system", plain[0], s.address(plain[1]))
		s.must(err)
	case "connection":
		s.addConnection(s.connection(plain, named))
	case "offers":
		s.connections.Offered(plain[0], number(named["size"]), named["utf8"] == "yes")
	case "user":
		s.addUser(plain[0], plain[1])
	case "mx":
		s.dns.MXs[plain[0]] = append(s.dns.MXs[plain[0]], dns.MX{Host: plain[1], Preference: 10})
	case "block":
		s.must(s.tenants.SetLists(s.t.Context(), "system", tenant.Lists{Block: plain}))
	case "postmaster":
		s.postmaster = s.address(plain[0])
	case "limits":
		s.setLimits(named)
	case "listener":
		s.kind, s.region = Kind(plain[0]), named["region"]
	case "from":
		s.from = plain[0]
	default:
		s.t.Fatalf("no such line: %s", line)
	}
}

func (s *story) settings(named map[string]string) tenant.Settings {
	v := tenant.Settings{
		MaxSize: number(named["size"]), MaxRecipients: int(number(named["recipients"])),
		MessagesPerMinute: int(number(named["messages_rate"])), RecipientsPerMinute: int(number(named["recipients_rate"])),
		ConnectionsMax: int(number(named["connections"])),
	}
	if b := named["block"]; b != "" {
		v.Block = strings.Split(b, ",")
	}
	if a := named["allow"]; a != "" {
		v.Allow = strings.Split(a, ",")
	}
	return v
}

func (s *story) setLimits(named map[string]string) {
	s.limits = Limits{
		ConnectionsPerIP: int(number(named["connections"])), MessagesPerIPMinute: int(number(named["messages"])),
		RecipientsPerIPMinute: int(number(named["recipients"])), UnknownPerSession: int(number(named["unknown"])),
		AuthFailuresPerIPMinute: int(number(named["auth"])), MaxReceived: int(number(named["received"])),
		HeaderFields: int(number(named["fields"])),
	}
}

func (s *story) connection(plain []string, named map[string]string) connection.Connection {
	c := connection.Connection{Tenant: plain[0], Name: plain[1], Kind: "smtp", Direction: plain[2], TLS: "none", Platform: named["platform"]}
	if host := named["host"]; host != "" {
		c.Host, c.Port = host, 2601
	}
	for to, value := range map[*[]string]string{
		&c.Domains: named["domains"], &c.Networks: named["networks"], &c.Originator: named["originator"],
	} {
		if value != "" {
			*to = strings.Split(value, ",")
		}
	}
	if cert := named["certificate"]; cert != "" {
		c.ClientCert = []string{s.hands.sum(cert)}
	}
	return c
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func (s *story) address(text string) mail.Address {
	a, err := mail.ParseAddress(text)
	s.must(err)
	return a
}

// talk says a line "C: …" or expects one "S: …".
func (s *story) talk(line string) {
	s.t.Helper()
	verb, rest, _ := strings.Cut(line, ":")
	rest = strings.TrimPrefix(rest, " ")
	switch verb {
	case "C":
		if user, ok := strings.CutPrefix(rest, "AUTH PLAIN $"); ok {
			rest = "AUTH PLAIN " + s.plain(user)
		}
		s.caller.say(rest)
	case "S":
		s.caller.want(rest)
	case "starttls":
		s.caller.ask("STARTTLS", "220")
		s.caller.hand = s.hands.client[rest]
		if rest != "none" && s.caller.hand.Certificate == nil {
			s.t.Fatalf("no certificate %s", rest)
		}
		s.caller.secure()
		s.caller.ask("EHLO client.example", "250")
	case "repeat":
		n, line, _ := strings.Cut(rest, " ")
		for range number(n) {
			s.caller.say(line)
		}
	case "connect":
		s.caller = call(s.t, s.addr, rest)
	default:
		s.t.Fatalf("neither C: nor S: %s", line)
	}
}

// compare holds the queue against the expected items, one a line, and what is
// to stand in their prefixes and bodies.
func (s *story) compare(lines []string) {
	s.t.Helper()
	var want, got []string
	items := s.items()
	for _, it := range items {
		to := make([]string, len(it.Recipients))
		for i, r := range it.Recipients {
			to[i] = r.String()
		}
		slices.Sort(to)
		line := it.Tenant + " " + it.Direction + " " + it.Destination + " " + string(it.State) + " " + strings.Join(to, ",")
		if it.Own {
			line += " own"
		}
		if it.Last.Code != 0 {
			line += " " + strconv.Itoa(it.Last.Code) + " " + it.Last.Enhanced
		}
		got = append(got, line)
	}
	for _, line := range lines {
		if line != "" && !s.contains(items, line) {
			want = append(want, line)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		s.t.Errorf("the queue has\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// contains compares what items contain with a line such as "prefix has TEXT"
// or "acme body lacks TEXT". It reports false when the line is none such.
func (s *story) contains(items []queue.Item, line string) bool {
	s.t.Helper()
	where, text, has := strings.Cut(line, " has ")
	if !has {
		var lacks bool
		if where, text, lacks = strings.Cut(line, " lacks "); !lacks {
			return false
		}
	}
	owner, part, some := strings.Cut(where, " ")
	if !some {
		owner, part = "", where
	}
	for _, it := range items {
		if owner != "" && owner != it.Tenant {
			continue
		}
		content := string(it.Prefix)
		if part == "body" {
			content = s.body(it)
		}
		if strings.Contains(content, text) != has {
			s.t.Errorf("%s: %q", line, content)
		}
	}
	return true
}
