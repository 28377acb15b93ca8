package tenant

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Settings of a tenant; the zero value of each field means the default.
type Settings struct {
	TraceDays           int      `json:"trace_days"`            // how long message traces are kept; default 30
	FailedDays          int      `json:"failed_days"`           // how long finally refused and held mail is kept; default 14
	ExpiryHours         int      `json:"expiry_hours"`          // how long delivery is tried; default 120 (5 days)
	DelayNoticeHours    int      `json:"delay_notice_hours"`    // delay DSN to own senders after; default 4, -1 never
	MaxSize             int64    `json:"max_size"`              // bytes; default the listener's
	MaxRecipients       int      `json:"max_recipients"`        // a message; default the listener's
	MessagesPerMinute   int      `json:"messages_per_minute"`   // inbound and outbound each; 0 none
	RecipientsPerMinute int      `json:"recipients_per_minute"` // 0 none
	ConnectionsMax      int      `json:"connections_max"`       // concurrent submission sessions; 0 none
	Block               []string `json:"block"`                 // senders refused: address, domain, .domain (and below), IP or CIDR
	Allow               []string `json:"allow"`                 // like Block, and wins over it and over rate limits
	Egress              string   `json:"egress"`                // name of the egress pool, default "default"
}

// The defaults of settings that are zero.
const (
	DefaultTraceDays        = 30
	DefaultFailedDays       = 14
	DefaultExpiryHours      = 120
	DefaultDelayNoticeHours = 4
	DefaultEgress           = "default"
)

// Effective returns the settings with the defaults filled in; what is the
// listener's to say (size, recipients) stays zero.
func (s Settings) Effective() Settings {
	fill := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&s.TraceDays, DefaultTraceDays)
	fill(&s.FailedDays, DefaultFailedDays)
	fill(&s.ExpiryHours, DefaultExpiryHours)
	fill(&s.DelayNoticeHours, DefaultDelayNoticeHours)
	if s.Egress == "" {
		s.Egress = DefaultEgress
	}
	return s
}

// check refuses settings out of range and returns a copy that shares nothing
// with the caller's, with its lists compiled.
func (s Settings) check(op string) (Settings, *senderLists, error) {
	for _, n := range []struct {
		name     string
		value    int64
		min, max int64
	}{
		{"trace_days", int64(s.TraceDays), 0, 3650},
		{"failed_days", int64(s.FailedDays), 0, 3650},
		{"expiry_hours", int64(s.ExpiryHours), 0, 24 * 30},
		{"delay_notice_hours", int64(s.DelayNoticeHours), -1, 24 * 30},
		{"max_size", s.MaxSize, 0, 1 << 40},
		{"max_recipients", int64(s.MaxRecipients), 0, 100_000},
		{"messages_per_minute", int64(s.MessagesPerMinute), 0, 1 << 30},
		{"recipients_per_minute", int64(s.RecipientsPerMinute), 0, 1 << 30},
		{"connections_max", int64(s.ConnectionsMax), 0, 1 << 20},
	} {
		if n.value < n.min || n.value > n.max {
			return s, nil, fault.New(fault.Invalid, op, fmt.Sprintf("%s is %d", n.name, n.value)).
				WithHint(fmt.Sprintf("Give %s a value from %d to %d.", n.name, n.min, n.max))
		}
	}
	if s.Egress != "" && !isSlug(s.Egress) {
		return s, nil, fault.New(fault.Invalid, op, fmt.Sprintf("%q is not a name of an egress pool", s.Egress)).WithHint(slugHint)
	}
	lists, err := compileLists(op, Lists{Block: s.Block, Allow: s.Allow})
	if err != nil {
		return s, nil, err
	}
	s.Block, s.Allow = slices.Clone(s.Block), slices.Clone(s.Allow)
	return s, lists, nil
}

func (s Settings) encode() (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}

func decodeSettings(text string) (s Settings, err error) {
	err = json.Unmarshal([]byte(text), &s)
	return s, err
}

const slugHint = "Use 1 to 40 lower-case letters, digits and hyphens."

// isSlug reports whether s can be a name: [a-z0-9-], 1 to 40.
func isSlug(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// CheckSlug refuses what cannot be the name of a tenant or of a connection.
func CheckSlug(op, what, s string) error {
	if isSlug(s) {
		return nil
	}
	return fault.New(fault.Invalid, op, fmt.Sprintf("%q cannot be the name of a %s", s, what)).WithHint(slugHint)
}
