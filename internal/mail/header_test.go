package mail

import (
	"strings"
	"testing"
)

func BenchmarkScanHeader(b *testing.B) {
	h := []byte(typicalHeader())
	b.ReportAllocs()
	b.SetBytes(int64(len(h)))
	for b.Loop() {
		if s := ScanHeader(h, "mx.us.gate.example"); s.Fields != 19 {
			b.Fatal(s.Fields)
		}
	}
}

// typicalHeader is a header section of some 2 KB with four hops.
func typicalHeader() string {
	hop := "Received: from mail.sender.example (mail.sender.example [192.0.2.17])\r\n" +
		"\tby mx.other.example (Postfix) with ESMTPS id 4TXyz0abcdz9rwQ\r\n" +
		"\tfor <someone@customer.example>; Mon, 5 Jan 2026 10:11:12 +0000 (UTC)\r\n"
	return strings.Repeat(hop, 4) +
		"Authentication-Results: mx.other.example; dkim=pass header.d=sender.example\r\n" +
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.example; s=s1;\r\n\th=from:to:subject; bh=" +
		strings.Repeat("A", 43) + "=;\r\n\tb=" + strings.Repeat("QUJD", 80) + "\r\n" +
		"From: \"Someone Else\" <someone.else@sender.example>\r\nTo: someone@customer.example\r\n" +
		"Subject: =?utf-8?q?Angebot_f=C3=BCr_Sie?= und mehr\r\nDate: Mon, 5 Jan 2026 10:11:10 +0000\r\n" +
		"Message-ID: <20260105101110.1234@sender.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=\"=_boundary\"\r\n" +
		"X-Mailer: something 1.0\r\nList-Unsubscribe: <https://sender.example/u/1234567890>\r\n" +
		"References: <1@sender.example> <2@sender.example>\r\n" +
		"In-Reply-To: <2@sender.example>\r\nX-Priority: 3\r\nReturn-Path: <b@sender.example>\r\n\r\n"
}
