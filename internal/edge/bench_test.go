package edge

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func content10K() string {
	var b strings.Builder
	b.WriteString("Received: from a.example ([192.0.2.1]) by b.example with ESMTPS id 1\r\n\t; Sun, 1 Mar 2026 12:00:00 +0000\r\n")
	b.WriteString("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1; h=from:to:subject;\r\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n\tb=" + strings.Repeat("abcd", 80) + "\r\n")
	b.WriteString("From: A <a@example.org>\r\nTo: B <b@acme.test>\r\nSubject: a message like others\r\nDate: Sun, 1 Mar 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n")
	for b.Len() < 10_000 {
		b.WriteString("A line of the body, as long as lines usually are in a message.\r\n")
	}
	return b.String()
}

func benchHouse(b *testing.B) *house {
	h := newHouse(b)
	for i := range 20 {
		name := fmt.Sprintf("t%d", i)
		h.addTenant(name, "us", tenant.Settings{MessagesPerMinute: 1 << 25, RecipientsPerMinute: 1 << 25})
		h.addDomain(name, name+".test", "none")
		h.addMailbox(name)
	}
	h.limits = Limits{
		ConnectionsPerIP: none, ConnectionsPerNetwork: none, ConnectsPerIPMinute: 1 << 25, ConnectsPerNetworkMinute: 1 << 25,
		MessagesPerIPMinute: 1 << 25, MessagesPerNetworkMinute: 1 << 25, RecipientsPerIPMinute: 1 << 25, RecipientsPerNetworkMinute: 1 << 25,
	}
	h.open()
	return h
}

// BenchmarkSession10K is a connection, a message of 10 KB and the end, with
// the real store and queue, many at a time.
func BenchmarkSession10K(b *testing.B) {
	h := benchHouse(b)
	content := content10K()
	b.ReportAllocs()
	b.SetParallelism(10)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s := h.visit(Inbound)
			if _, r := deliver(context.Background(), s, "a@example.org", []string{"b@t1.test"}, content); r.Code != 250 {
				b.Error(r)
			}
			s.Close()
		}
	})
}

// BenchmarkOwnShare10K is the same without store and queue: what the edge
// itself takes of a message.
func BenchmarkOwnShare10K(b *testing.B) {
	h := benchHouse(b)
	content := content10K()
	from, _ := mail.ParseAddress("a@example.org")
	to, _ := mail.ParseAddress("b@t1.test")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		s := h.visit(Inbound).(*session)
		s.Mail(ctx, from, mail.FromParams{})
		s.Rcpt(ctx, mail.Recipient{Address: to})
		body := h.store.Bodies.New()
		in, _, _ := h.edge.receive(body, strings.NewReader(content))
		s.decide(ctx, in)
		groups := split(s.tx.to, s.perDomain)
		s.firewall(groups, in)
		h.edge.judgeGroups(groups, in)
		if whole(groups) != nil || len(s.message(h.edge.ids.next(in.at), &groups[0], in).Items) != 1 {
			b.Fatal("refused")
		}
		body.Discard()
		s.Reset()
		s.Close()
	}
}
