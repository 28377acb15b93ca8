package edge

import (
	"context"
	"io"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// The road of a message through the edge is a row of steps, each of which
// takes a value and returns one:
//
//	content ─ receive ─▶ incoming ─ decide ─▶ recipients ─ split ─▶ groups
//	        ─ firewall, judge ─▶ groups with verdicts ─ place ─▶ reply

// incoming is a message whose content has been read.
type incoming struct {
	at      time.Time
	body    *store.Body
	header  []byte // its header section with the closing empty line
	summary mail.Summary
}

// Data receives the content and answers for all recipients.
func (s *session) Data(ctx context.Context, r io.Reader) mail.Reply {
	body := s.edge.c.Store.Bodies.New()
	defer body.Discard()
	in, refusal, err := s.edge.receive(body, r)
	if err != nil {
		// The wire replies for what went wrong with the content itself.
		return *reply(451, "4.4.2", "The content did not arrive")
	}
	var answer mail.Reply
	if refusal == nil {
		answer, refusal = s.accept(ctx, in)
	}
	if refusal != nil {
		return *s.refuse("DATA", refusal)
	}
	return answer
}

// accept takes the message from the decision whose it is to the queue.
func (s *session) accept(ctx context.Context, in incoming) (mail.Reply, *mail.Reply) {
	if refusal := s.decide(ctx, in); refusal != nil {
		return mail.Reply{}, refusal
	}
	groups := split(s.tx.to, s.perDomain)
	s.firewall(groups, in)
	s.edge.judgeGroups(groups, in)
	if refusal := whole(groups); refusal != nil {
		return mail.Reply{}, refusal
	}
	ids, err := s.place(ctx, groups, in)
	if err != nil {
		s.edge.c.Log.Error("message not kept", "from", s.tx.fromText, "client", s.client.text, "error", err)
		return mail.Reply{}, notNow()
	}
	s.edge.accepted.Add(uint64(len(ids)))
	return accepted(ids), nil
}

// receive reads the content into a body and its header section into a
// summary. err is the reader's; what the store cannot take is a refusal.
func (e *Edge) receive(body *store.Body, r io.Reader) (in incoming, refusal *mail.Reply, err error) {
	buffer := e.buffers.Get().(*[readBuffer]byte)
	defer e.buffers.Put(buffer)
	head := headKeeper{limit: e.c.Limits.HeaderBytes}
	if e.c.Limits.HeaderBytes < 0 {
		head.limit = int(^uint(0) >> 1)
	}
	for {
		n, err := r.Read(buffer[:])
		if n > 0 {
			if _, err := body.Write(buffer[:n]); err != nil {
				return in, cannotStore(err), nil
			}
			if head.add(body, buffer[:n]); head.over {
				return in, reply(552, "5.3.4", "The header section is larger than "+decimal(int64(head.limit))+" bytes"), nil
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return in, nil, err
		}
	}
	in, refusal = e.summarise(body, head.bytes(body))
	return in, refusal, nil
}

func cannotStore(err error) *mail.Reply {
	if fault.Is(err, fault.Later) {
		return diskFull()
	}
	return notNow()
}

// summarise reads the header section once, for all messages that come of it.
func (e *Edge) summarise(body *store.Body, head []byte) (incoming, *mail.Reply) {
	in := incoming{at: e.c.Now(), body: body, summary: mail.ScanHeader(head, watched)}
	in.header = head[:in.summary.Bytes]
	if most := e.c.Limits.HeaderFields; most >= 0 && in.summary.Fields > most {
		return in, reply(554, "5.6.0", "The message has more than "+decimal(int64(most))+" header fields")
	}
	if most := e.c.Limits.HeaderBytes; most >= 0 && in.summary.Bytes > most {
		return in, reply(552, "5.3.4", "The header section is larger than "+decimal(int64(most))+" bytes")
	}
	return in, nil
}

// headKeeper keeps the header section where it is longer than what a body
// keeps in memory, which next to none is.
type headKeeper struct {
	limit int
	whole bool   // the body's Head holds it, or long does
	long  []byte // otherwise: all bytes until its end
	over  bool
}

// add is told of each piece after it was written.
func (h *headKeeper) add(body *store.Body, piece []byte) {
	if h.whole || h.long == nil && body.Size() == int64(len(body.Head())) {
		return
	}
	if h.long == nil {
		if h.whole = mail.HasHeaderEnd(body.Head()); h.whole {
			return
		}
		// The body's head has stopped growing within this piece.
		beyond := int(body.Size()) - len(body.Head())
		h.long = append(h.long, body.Head()...)
		piece = piece[len(piece)-beyond:]
	}
	// The empty line may begin in the piece before.
	from := max(0, len(h.long)-3)
	h.long = append(h.long, piece...)
	h.whole = endsHeader(h.long[from:])
	h.over = !h.whole && len(h.long) > h.limit
}

// endsHeader looks for the empty line within content; that of a message
// without any header is found by HasHeaderEnd at its start.
func endsHeader(b []byte) bool {
	for i := 0; i+3 < len(b); i++ {
		if b[i] == '\r' && b[i+1] == '\n' && b[i+2] == '\r' && b[i+3] == '\n' {
			return true
		}
	}
	return false
}

func (h *headKeeper) bytes(body *store.Body) []byte {
	if h.long != nil {
		return h.long
	}
	return body.Head()
}

// decide settles what only the header tells: the author of submitted mail,
// and whose mail a platform's is.
func (s *session) decide(ctx context.Context, in incoming) *mail.Reply {
	if s.kind == Submission {
		return s.author(in.header)
	}
	if s.tx.who.platform == nil || !s.pending() {
		return nil
	}
	who, refusal := s.byOriginator(s.tx.who.platform, in.header)
	if refusal != nil {
		// The reply is for every recipient, also those of our own tenants: of
		// two answers only one can be given, and a 250 would lose the others.
		return refusal
	}
	s.tx.who = who
	s.settle(ctx, who)
	return nil
}

func (s *session) pending() bool {
	for i := range s.tx.to {
		if s.tx.to[i].pending {
			return true
		}
	}
	return false
}

// settle gives the recipients that waited for it their tenant and route. What
// would have been refused or deferred at RCPT is so now, each for itself.
func (s *session) settle(ctx context.Context, who attribution) {
	late := s.spendOutbound(who.tenant)
	for i := range s.tx.to {
		if !s.tx.to[i].pending {
			continue
		}
		r, refusal := s.outbound(ctx, s.tx.to[i].Recipient, who.tenant)
		if refusal == nil {
			refusal = late
		}
		if refusal != nil {
			r.verdict = *refusal
		}
		s.tx.to[i] = r
	}
}
