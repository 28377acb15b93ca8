package edge

import (
	"hash/fnv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// maxOwn is how often a message may have been here before for one tenant.
const maxOwn = 3

// mark is the comment by which our Received fields for a tenant are found
// again. It says nothing about the tenant to anybody who does not guess its
// name, and is another one on another installation.
func (e *Edge) mark(tenantName string) string {
	const digits = "0123456789abcdef"
	h := fnv.New64a()
	h.Write([]byte(e.c.Hostname("")))
	h.Write([]byte{0})
	h.Write([]byte(tenantName))
	var b [10 + 16]byte
	copy(b[:], "Sallyport-")
	for i, sum := len(b)-1, h.Sum64(); i >= 10; i, sum = i-1, sum>>4 {
		b[i] = digits[sum&15]
	}
	return string(b[:])
}

// loops reports a message that has been through too many hops (RFC 5321 6.3),
// or through us three times for the same tenant: then its system sends us what
// we deliver to it.
func (e *Edge) loops(tenantName string, in incoming) bool {
	if most := e.c.Limits.MaxReceived; most >= 0 && in.summary.Received >= most {
		return true
	}
	return in.summary.Received >= maxOwn && ownHops(in.header, e.mark(tenantName)) >= maxOwn
}

func ownHops(header []byte, mark string) int {
	n := 0
	for _, v := range mail.Values(header, "Received") {
		if strings.Contains(v, mark) {
			n++
		}
	}
	return n
}

func looping() *mail.Reply {
	return reply(554, "5.4.6", "Mail loop: the message has been through too many hops")
}
