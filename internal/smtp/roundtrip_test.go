package smtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSendAndReceive(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{MaxSize: 1 << 20})
	c := dialTest(t, addr)
	body := []byte("Subject: x\r\n\r\n.dot\r\n..two\r\n.\r\nend\r\n")
	prefix := []byte("Received: by us\r\n")
	asked := 0
	res, err := c.Send(t.Context(), envelope("a@x.test", "b@y.test", "refuse@y.test", "c@y.test"), Content{Prefix: prefix, Bytes: body},
		func(context.Context) error { asked++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 || !res.Sent || len(res.Data) != 1 || res.Data[0].Code != 250 || res.Data[0].Enhanced != "2.0.0" || res.Data[0].Text != "kept" {
		t.Errorf("asked %d, result %+v", asked, res)
	}
	if res.Rcpt[0].Code != 250 || res.Rcpt[1].Code != 550 || res.Rcpt[1].Enhanced != "5.1.1" || res.Rcpt[2].Code != 250 {
		t.Errorf("recipients %+v", res.Rcpt)
	}
	got := b.kept()
	if len(got) != 1 || string(got[0].body) != string(prefix)+string(body) {
		t.Fatalf("kept %+v", got)
	}
	if len(got[0].env.To) != 2 || got[0].conn.Hello != "client.test" || !got[0].conn.ESMTP {
		t.Errorf("envelope %+v of %+v", got[0].env, got[0].conn)
	}
	if !c.Alive() {
		t.Error("not alive after a message")
	}
	if c.MaxSize() != 1<<20 {
		t.Errorf("size %d", c.MaxSize())
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

func TestSendManyOnOneConnection(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	c := dialTest(t, addr)
	big := bytes.Repeat([]byte(".line of a big message\r\n"), 20000)
	for _, body := range [][]byte{[]byte("one\r\n"), big, nil, []byte("no end")} {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		for _, content := range []Content{{Bytes: body}, {Open: open, Prefix: []byte("P: q\r\n")}} {
			res, err := c.Send(t.Context(), envelope("", "b@y.test"), content, nil)
			if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
				t.Fatalf("%+v, %v", res, err)
			}
			want := string(content.Prefix) + string(body)
			if want != "" && !strings.HasSuffix(want, "\r\n") {
				want += "\r\n"
			}
			all := b.kept()
			if got := string(all[len(all)-1].body); got != want {
				t.Fatalf("%d bytes arrived of %d", len(got), len(want))
			}
		}
	}
}

func TestSendReadyFails(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	c := dialTest(t, addr)
	res, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{Bytes: []byte("x\r\n")}, func(context.Context) error { return errTest })
	if !errors.Is(err, errTest) || res.Sent || len(res.Data) != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if c.Alive() {
		t.Error("still alive")
	}
	if len(b.kept()) != 0 {
		t.Error("kept")
	}
}
