package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// readPostfix reads main.cf and the maps that it names.
func readPostfix(dir string) (postfixPlan, error) {
	plan := postfixPlan{Transports: map[string]hostView{}, Recipients: map[string][]string{}}
	settings, err := readMainCF(filepath.Join(dir, "main.cf"))
	if err != nil {
		return plan, err
	}
	relay := expandPostfix(settings, settings["relay_domains"])
	for _, word := range splitPostfix(relay) {
		plan.addDomains(dir, word)
	}
	for _, word := range splitPostfix(expandPostfix(settings, settings["transport_maps"])) {
		plan.eachEntry(dir, word, plan.addTransport)
	}
	for _, word := range splitPostfix(expandPostfix(settings, settings["relay_recipient_maps"])) {
		plan.eachEntry(dir, word, plan.addRecipient)
	}
	slices.Sort(plan.Domains)
	plan.Domains = slices.Compact(plan.Domains)
	return plan, nil
}

// readMainCF reads Postfix's settings, "name = value" (postconf(5)); the last
// of several is the one that counts.
func readMainCF(file string) (map[string]string, error) {
	lines, err := logicalLines(file)
	if err != nil {
		return nil, fault.New(fault.Missing, "", "cannot read "+file+": "+err.Error()).WithHint("Name the folder that has main.cf.")
	}
	settings := map[string]string{}
	for _, line := range lines {
		k, v, _ := strings.Cut(line, "=")
		settings[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	// Postfix's own commands are told the folder too, whatever it says of itself.
	if settings["config_directory"], err = filepath.Abs(filepath.Dir(file)); err != nil {
		return nil, fault.Wrap(fault.Invalid, "import", err)
	}
	return settings, nil
}

// maxLogicalLine bounds one line of Postfix's files with what continues it.
const maxLogicalLine = 16 << 20

// logicalLines reads lines as all of Postfix's files have them: one that
// begins with white space continues the one before, and those that are empty
// or a comment are none, also in between (postconf(5), transport(5)).
func logicalLines(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLogicalLine)
	for s.Scan() {
		line := s.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case (line[0] == ' ' || line[0] == '\t') && len(lines) > 0:
			lines[len(lines)-1] += " " + trimmed
		default:
			lines = append(lines, trimmed)
		}
	}
	return lines, s.Err()
}

// setting is $name, ${name} or $(name) within a value.
var setting = regexp.MustCompile(`\$(?:\{(\w+)\}|\((\w+)\)|(\w+))`)

// expandPostfix replaces references to other settings, ten deep at most.
func expandPostfix(settings map[string]string, v string) string {
	for range 10 {
		next := setting.ReplaceAllStringFunc(v, func(ref string) string {
			return settings[strings.Trim(ref, "${}()")]
		})
		if next == v {
			return v
		}
		v = next
	}
	return v
}

// splitPostfix splits at commas and white space.
func splitPostfix(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

func (p *postfixPlan) skip(what string) { p.Skipped = append(p.Skipped, what) }

// addDomains takes one word of relay_domains: a domain, a file of them, or a
// map whose keys they are.
func (p *postfixPlan) addDomains(dir, word string) {
	switch {
	case strings.Contains(word, ":"):
		p.eachEntry(dir, word, func(key, _ string) { p.addDomain(key) })
	case strings.HasPrefix(word, "/"):
		lines, err := logicalLines(word)
		if err != nil {
			p.skip("relay_domains: " + err.Error())
		}
		for _, l := range lines {
			p.addDomain(l)
		}
	default:
		p.addDomain(word)
	}
}

func (p *postfixPlan) addDomain(d string) {
	if !wholeDomain(d) {
		p.skip("relay domain " + d + ": only whole domain names are taken; add subdomains by name")
		return
	}
	p.Domains = append(p.Domains, strings.ToLower(d))
}

// wholeDomain tells a domain's name from the other keys of a transport table:
// an address, everything below a domain, a name without dots, "*".
func wholeDomain(key string) bool {
	return strings.Contains(key, ".") && !strings.HasPrefix(key, ".") && !strings.Contains(key, "@")
}

// addTransport takes one entry of a transport table (transport(5)).
func (p *postfixPlan) addTransport(key, value string) {
	kind, hop, _ := strings.Cut(value, ":")
	if kind != "smtp" && kind != "relay" || hop == "" || !wholeDomain(key) {
		p.skip("transport " + key + " " + value + ": only smtp and relay to a next hop of a domain are taken")
		return
	}
	if !strings.HasPrefix(hop, "[") {
		p.skip("transport " + key + ": " + hop + " is taken as a host, without its MX")
		hop = "[" + strings.Replace(hop, ":", "]:", 1)
		if !strings.Contains(hop, "]") {
			hop += "]"
		}
	}
	h, err := parseHost(hop, 25)
	if err != nil {
		p.skip("transport " + key + " " + value + ": the next hop is not understood")
		return
	}
	if _, twice := p.Transports[strings.ToLower(key)]; twice { // postmap(1) takes the first, too
		p.skip("transport " + key + " " + value + ": there is another one before it")
		return
	}
	p.Transports[strings.ToLower(key)] = h
}

func (p *postfixPlan) addRecipient(key, _ string) {
	at := strings.LastIndexByte(key, '@')
	if at <= 0 {
		p.skip("recipient " + key + ": a whole domain is not a list")
		return
	}
	domain := strings.ToLower(key[at+1:])
	p.Recipients[domain] = append(p.Recipients[domain], key[:at]+"@"+domain)
}

// eachEntry reads the text that a map was made from: "type:file", where the
// text is the file itself.
func (p *postfixPlan) eachEntry(dir, word string, each func(key, value string)) {
	kind, file, _ := strings.Cut(word, ":")
	switch kind {
	case "hash", "btree", "lmdb", "texthash", "cdb", "dbm", "proxy":
		file = strings.TrimPrefix(file, kind+":")
		if inner, rest, ok := strings.Cut(file, ":"); ok && kind == "proxy" && inner != "" {
			file = rest
		}
	default:
		p.skip(word + ": tables of type " + kind + " are not read")
		return
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	lines, err := logicalLines(file)
	if err != nil {
		p.skip(word + ": " + err.Error())
		return
	}
	for _, l := range lines {
		key, value := splitEntry(l)
		each(key, value)
	}
}

// splitEntry parts key and value at the first white space outside of double
// quotes, in which a backslash quotes the next character (postmap(1)).
func splitEntry(line string) (key, value string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return line[:i], strings.TrimSpace(line[i:])
		}
	}
	return line, ""
}
