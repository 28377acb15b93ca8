package deliver

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestRetireLive: a session whose identity is over ends at once when it is idle,
// and with its message when it carries one, which is delivered by it once; the
// next one is sent by another session.
func TestRetireLive(t *testing.T) {
	ca, clients := testpeer.NewCA(t, "server CA"), testpeer.NewCA(t, "client CA")
	arrived, answer := make(chan struct{}, 1), make(chan struct{})
	var slow sync.Once
	sink := testpeer.StartSink(t, testpeer.SinkRules{
		TLS: &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, nil, "mail.b.test").TLS}, ClientAuth: tls.RequireAnyClientCert},
		Dot: func(testpeer.Received) *mail.Reply {
			slow.Do(func() { // one message at a time
				arrived <- struct{}{}
				<-answer
			})
			return nil
		},
	})
	h := newHouse(t)
	h.connect(t, "acme", sink.Addr, connection.Connection{TLS: connection.TLSMutual, Host: "mail.b.test", CA: string(ca.PEM), Concurrency: 1})
	h.identity(t, clients, "acme")
	cert, err := h.custody.ClientCertificate(t.Context(), "acme", "mailbox")
	must(t, err)
	sum := sha256.Sum256(cert.Certificate[0])
	sha := hex.EncodeToString(sum[:])
	none := func(what string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); h.deliver.retire("acme", "mailbox", sha) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: a session is left", what)
			}
		}
	}
	first := h.put(t, "acme", "in the middle", 100, "ann")
	<-arrived
	if n := h.deliver.retire("acme", "mailbox", sha); n != 1 {
		t.Errorf("%d sessions are left while a message is under way", n)
	}
	close(answer)
	h.settled(t, "acme", first, "delivered")
	second := h.put(t, "acme", "after it", 100, "ann")
	h.settled(t, "acme", second, "delivered")
	got := sink.Wait(t, 2, 10*time.Second)
	if len(got) != 2 || got[0].Conn == got[1].Conn || got[0].Client == "" {
		t.Errorf("%+v", got)
	}
	none("idle") // the second one's, which shows it too
	third := h.put(t, "acme", "later", 100, "ann")
	h.settled(t, "acme", third, "delivered")
	if got := sink.Wait(t, 3, 10*time.Second); got[2].Conn == got[1].Conn {
		t.Error("an idle session whose identity is over was used again")
	}
}
