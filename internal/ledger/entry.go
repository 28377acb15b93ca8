package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Where the word of an entry comes from.
const (
	Witnessed = "witnessed" // the keeper did it, or refused it, itself
	Asserted  = "asserted"  // the gateway says so
)

const (
	maxText = 1024      // bytes of one field
	maxLeaf = 64 * 1024 // more than nine fields of maxText, each byte escaped by six
)

// Entry is one thing that happened. Empty fields are absent.
type Entry struct {
	Index      int64     // given by the log
	Time       time.Time // zero is the time of Append
	Source     string    // Witnessed or Asserted
	Actor      string    // "token:<id>", "keeper", "system"
	Act        string    // "key.sign"
	Tenant     string
	Connection string
	Subject    string // what was acted upon
	Purpose    string
	Trace      string // id of the message it was done for
	Outcome    string
	Of         *int64 // the entry whose outcome this one tells
	Count      int64  // how many uses it stands for, 0 for one
	Key        string // an append with a key that the log has is not done twice

	Hash    string // hex of the leaf's hash; not in the leaf
	Removed bool   // past its retention: only Index and Hash are left
}

// MarshalJSON writes an entry as programs read it: every field is there, and
// null when absent. This is not the leaf.
func (e Entry) MarshalJSON() ([]byte, error) {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	var when *time.Time
	if !e.Time.IsZero() {
		when = new(e.Time.UTC())
	}
	var count *int64
	if e.Count != 0 {
		count = &e.Count
	}
	return json.Marshal(struct {
		Index      int64      `json:"index"`
		Time       *time.Time `json:"time"`
		Source     *string    `json:"source"`
		Actor      *string    `json:"actor"`
		Act        *string    `json:"act"`
		Tenant     *string    `json:"tenant"`
		Connection *string    `json:"connection"`
		Subject    *string    `json:"subject"`
		Purpose    *string    `json:"purpose"`
		Trace      *string    `json:"trace"`
		Outcome    *string    `json:"outcome"`
		Of         *int64     `json:"of"`
		Count      *int64     `json:"count"`
		Key        *string    `json:"key"`
		Hash       string     `json:"hash"`
		Removed    bool       `json:"removed"`
	}{e.Index, when, text(e.Source), text(e.Actor), text(e.Act), text(e.Tenant), text(e.Connection), text(e.Subject),
		text(e.Purpose), text(e.Trace), text(e.Outcome), e.Of, count, text(e.Key), e.Hash, e.Removed})
}

// check refuses what must not become a leaf.
func (e *Entry) check() error {
	if e.Source != Witnessed && e.Source != Asserted {
		return invalid(fmt.Sprintf("the source of an entry is %q", e.Source), "Say witnessed or asserted.")
	}
	if e.Actor == "" || e.Act == "" {
		return invalid("an entry without an actor or an act", "Say who does what.")
	}
	if y := e.Time.UTC().Year(); !e.Time.IsZero() && (y < 1970 || y > 9999) {
		return invalid(fmt.Sprintf("the year of an entry is %d", y), "Give the time in years from 1970 to 9999.")
	}
	if e.Count < 0 {
		return invalid("an entry stands for less than nothing", "Give a count of 0 or more.")
	}
	// What is searched by, or compared, is a name and has to be one.
	for _, name := range []string{e.Actor, e.Act, e.Tenant, e.Connection, e.Trace, e.Key} {
		if len(name) > maxText || strings.ToValidUTF8(name, "") != name || strings.ContainsFunc(name, isControl) {
			return invalid(fmt.Sprintf("an entry names %.40q", name), fmt.Sprintf("Names are at most %d bytes of UTF-8 without control characters.", maxText))
		}
	}
	for _, text := range []string{e.Subject, e.Purpose, e.Outcome} {
		if len(text) > maxText {
			return invalid(fmt.Sprintf("a text of %d bytes in an entry", len(text)), fmt.Sprintf("Cut it to %d bytes.", maxText))
		}
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func invalid(text, hint string) error {
	return fault.New(fault.Invalid, "ledger.Append", text).WithHint(hint)
}

// tail is the leaf but for its beginning, which has the index: it can be made
// before the index is known. The order of the fields is part of the format.
func (e *Entry) tail() []byte {
	b := make([]byte, 0, 320)
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	for _, f := range []struct{ name, text string }{
		{`,"source":`, e.Source}, {`,"actor":`, e.Actor}, {`,"act":`, e.Act}, {`,"tenant":`, e.Tenant},
		{`,"connection":`, e.Connection}, {`,"subject":`, e.Subject}, {`,"purpose":`, e.Purpose},
		{`,"trace":`, e.Trace}, {`,"outcome":`, e.Outcome},
	} {
		if f.text != "" {
			b = appendText(append(b, f.name...), f.text)
		}
	}
	if e.Of != nil {
		b = strconv.AppendInt(append(b, `,"of":`...), *e.Of, 10)
	}
	if e.Count != 0 {
		b = strconv.AppendInt(append(b, `,"count":`...), e.Count, 10)
	}
	if e.Key != "" {
		b = appendText(append(b, `,"key":`...), e.Key)
	}
	return append(b, '}')
}

// leaf is the whole text of a leaf.
func leaf(index int64, tail []byte) []byte {
	b := make([]byte, 0, len(tail)+24)
	b = strconv.AppendInt(append(b, `{"index":`...), index, 10)
	return append(b, tail...)
}

// appendText writes a JSON string. Bytes that are no UTF-8 become U+FFFD, as
// encoding/json has it: a leaf is a text that anybody can read.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string has no way to fail
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// readLeaf is the entry that a leaf tells of.
func readLeaf(raw []byte) (Entry, error) {
	var f struct {
		Index                                  int64
		Time                                   time.Time
		Source, Actor, Act, Tenant, Connection string
		Subject, Purpose, Trace, Outcome, Key  string
		Of                                     *int64
		Count                                  int64
	}
	if len(raw) > maxLeaf {
		return Entry{}, fault.New(fault.Invalid, "ledger.readLeaf", "the leaf is too long to be one")
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return Entry{}, fault.Wrap(fault.Invalid, "ledger.readLeaf", err)
	}
	return Entry{Index: f.Index, Time: f.Time, Source: f.Source, Actor: f.Actor, Act: f.Act, Tenant: f.Tenant,
		Connection: f.Connection, Subject: f.Subject, Purpose: f.Purpose, Trace: f.Trace, Outcome: f.Outcome,
		Key: f.Key, Of: f.Of, Count: f.Count}, nil
}
