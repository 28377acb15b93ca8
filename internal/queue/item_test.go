package queue

import (
	"reflect"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// TestEncode writes items by hand and reads them back with encoding/json.
func TestEncode(t *testing.T) {
	odd := "\"x\\y\" é 漢 \x01\r\n"
	for name, it := range map[string]Item{
		"empty": {Recipients: []Recipient{}},
		"full": {
			Region: "us", Direction: "outbound", Domain: "far.test", From: mail.Address{Local: odd, Domain: "x.test"},
			Params: mail.FromParams{Size: 7, Body: "8BITMIME", UTF8: true, Ret: "FULL", EnvID: odd},
			Recipients: []Recipient{
				{Recipient: mail.Recipient{Address: mail.Address{Local: "b", Domain: "c"}, Notify: "NEVER", ORcpt: odd}, State: rcptQueued,
					Last: mail.Reply{Code: 450, Enhanced: "4.2.1", Text: odd}},
				{Recipient: mail.Recipient{Address: mail.Address{Local: "d", Domain: "e"}}, State: rcptFailed},
			},
			Own: true, MessageID: odd, Subject: odd, Prefix: []byte("Received: \x00\xff\r\n"),
			Cut:  []mail.Span{{From: 0, To: 12}, {From: 40, To: 1 << 20}},
			Last: mail.Reply{Code: 550, Text: odd}, LastAt: time.UnixMicro(1234567890123456).UTC(),
		},
	} {
		var got Item
		if err := got.decode(it.encode()); err != nil {
			t.Fatal(name, err)
		}
		if len(got.Prefix) == 0 {
			got.Prefix = nil
		}
		if !reflect.DeepEqual(got, it) {
			t.Errorf("%s:\n%+v\nbecame\n%+v", name, it, got)
		}
	}
}

func FuzzDecodeItem(f *testing.F) {
	it := Item{Recipients: []Recipient{{State: rcptQueued}}, Cut: []mail.Span{{From: 1, To: 2}}}
	f.Add(it.encode())
	f.Fuzz(func(t *testing.T, text string) {
		var a, b Item
		if a.decode(text) != nil {
			return
		}
		if err := b.decode(a.encode()); err != nil {
			t.Fatal(err)
		}
		if a.encode() != b.encode() {
			t.Errorf("%s became %s", a.encode(), b.encode())
		}
	})
}

func TestItemID(t *testing.T) {
	const message = "01KJMMA2G0PRF00AZ6ACJRKZZY"
	seen := map[string]bool{}
	for n := range mostItems {
		id, err := itemID(message, n)
		if err != nil || seen[id] || (n > 0 && id <= message) {
			t.Fatal(n, id, err)
		}
		seen[id] = true
	}
	if id, _ := itemID(message, 0); id != message {
		t.Error(id)
	}
	if id, _ := itemID(message, 2); id != "01KJMMA2G0PRF00AZ6ACJRM000" {
		t.Error(id)
	}
	if _, err := itemID("m1", 0); err == nil {
		t.Error("m1 is no ULID")
	}
}
