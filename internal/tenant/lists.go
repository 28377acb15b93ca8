package tenant

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Lists are the operator's own sender lists, for all tenants.
type Lists struct {
	Block []string `json:"block"`
	Allow []string `json:"allow"`
}

// Verdict of the sender lists.
type Verdict int

const (
	Neutral Verdict = iota
	Allowed
	Blocked
)

// maxListEntries bounds one list.
const maxListEntries = 10_000

// senderLists are a pair of lists made for looking up; nil when both are
// empty. They are never changed.
type senderLists struct {
	block, allow senderList
}

// senderList finds the entry that matches a sender in a few map look-ups. The
// values are the entries as they were written.
type senderList struct {
	addresses map[string]string // by Address.Key
	domains   map[string]string // exactly this domain
	below     map[string]string // this domain and all below, without the leading dot
	networks  Networks[string]
}

func compileLists(op string, l Lists) (*senderLists, error) {
	if len(l.Block) == 0 && len(l.Allow) == 0 {
		return nil, nil
	}
	s := &senderLists{}
	if err := s.block.compile(op, "block", l.Block); err != nil {
		return nil, err
	}
	if err := s.allow.compile(op, "allow", l.Allow); err != nil {
		return nil, err
	}
	return s, nil
}

func (l *senderList) compile(op, name string, entries []string) error {
	if len(entries) > maxListEntries {
		return fault.New(fault.Invalid, op, fmt.Sprintf("the %s list has %d entries", name, len(entries))).
			WithHint(fmt.Sprintf("Keep it below %d entries.", maxListEntries))
	}
	l.addresses, l.domains, l.below = map[string]string{}, map[string]string{}, map[string]string{}
	for _, e := range entries {
		if !l.add(e) {
			return fault.New(fault.Invalid, op, fmt.Sprintf("%q in the %s list is not a sender", e, name)).
				WithHint("Give an address, a domain, a .domain (with all below it), an IP address or a CIDR network.")
		}
	}
	return nil
}

// add reads one entry; false when it is none.
func (l *senderList) add(entry string) bool {
	text := strings.TrimSpace(entry)
	if p, ok := ParseNetwork(text); ok {
		l.networks.Put(p, entry)
		return true
	}
	if strings.Contains(text, "@") {
		a, err := mail.ParseAddress(text)
		if err != nil || a.IsNull() {
			return false
		}
		l.addresses[a.Key()] = entry
		return true
	}
	into := l.domains
	if rest, ok := strings.CutPrefix(text, "."); ok {
		text, into = rest, l.below
	}
	domain, err := mail.ParseDomain(text)
	if err != nil {
		return false
	}
	into[domain] = entry
	return true
}

// sender is who sends, taken apart once for up to four lists.
type sender struct {
	ip      netip.Addr
	key     string // Address.Key
	domain  string
	hasAddr bool
}

func readSender(ip, from string) sender {
	var s sender
	if a, err := netip.ParseAddr(ip); err == nil {
		s.ip = a.Unmap().WithZone("")
	}
	if from == "" {
		return s
	}
	if a, err := mail.ParseAddress(from); err == nil && !a.IsNull() {
		s.key, s.domain, s.hasAddr = a.Key(), a.Domain, true
	}
	return s
}

// match returns the entry that matches, the most specific first.
func (l *senderList) match(s sender) (entry string, ok bool) {
	if s.hasAddr {
		if entry, ok = l.addresses[s.key]; ok {
			return entry, true
		}
		if entry, ok = l.domains[s.domain]; ok {
			return entry, true
		}
		if entry, ok = l.matchBelow(s.domain); ok {
			return entry, true
		}
	}
	if s.ip.IsValid() && !l.networks.Empty() {
		return l.networks.Find(s.ip)
	}
	return "", false
}

// matchBelow looks for the domain itself and then for each of its parents.
func (l *senderList) matchBelow(domain string) (entry string, ok bool) {
	for len(l.below) > 0 {
		if entry, ok = l.below[domain]; ok {
			return entry, true
		}
		_, parent, found := strings.Cut(domain, ".")
		if !found {
			return "", false
		}
		domain = parent
	}
	return "", false
}

// judge is the verdict of one pair of lists: allow wins.
func (l *senderLists) judge(s sender) (Verdict, string) {
	if l == nil {
		return Neutral, ""
	}
	if entry, ok := l.allow.match(s); ok {
		return Allowed, entry
	}
	if entry, ok := l.block.match(s); ok {
		return Blocked, entry
	}
	return Neutral, ""
}

// Sender judges a client address and a sender by the operator's and the
// tenant's lists; tenant may be "", and so may ip and from (the null path).
// Allow wins within each pair of lists. The operator's block wins over the
// tenant's allow, the tenant's own block over the operator's allow: nobody can
// make the other take mail. The text names the entry that decided.
func (r *Registry) Sender(tenant string, ip string, from string) (Verdict, string) {
	r.mu.RLock()
	operator, own := r.operator, (*senderLists)(nil)
	if h := r.tenants[tenant]; h != nil {
		own = h.senders
	}
	r.mu.RUnlock()
	if operator == nil && own == nil {
		return Neutral, ""
	}
	s := readSender(ip, from)
	first, firstEntry := operator.judge(s)
	if first == Blocked {
		return Blocked, "operator's list: " + firstEntry
	}
	second, secondEntry := own.judge(s)
	switch {
	case second != Neutral:
		return second, "tenant's list: " + secondEntry
	case first == Allowed:
		return Allowed, "operator's list: " + firstEntry
	}
	return Neutral, ""
}

// Lists are the operator's lists as they were set.
func (r *Registry) Lists() Lists {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return Lists{Block: slices.Clone(r.lists.Block), Allow: slices.Clone(r.lists.Allow)}
}

// SetLists replaces the operator's lists.
func (r *Registry) SetLists(ctx context.Context, a Actor, l Lists) error {
	const op = "tenant.SetLists"
	compiled, err := compileLists(op, l)
	if err != nil {
		return err
	}
	l = Lists{Block: slices.Clone(l.Block), Allow: slices.Clone(l.Allow)}
	text, err := json.Marshal(l)
	if err != nil {
		return wrap(op, err)
	}
	defer r.lock("")()
	err = r.c.DB.Operator("set the operator's sender lists").Change(ctx, func(tx store.OperatorTx) error {
		if _, err := tx.Exec(upsertSetting, settingLists, string(text)); err != nil {
			return err
		}
		subject := fmt.Sprintf("%d blocked, %d allowed", len(l.Block), len(l.Allow))
		return tx.Audit(r.event(a, "lists.set", "", subject))
	})
	if err != nil {
		return wrap(op, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists, r.operator = l, compiled
	return nil
}
