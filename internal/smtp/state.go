package smtp

// state is where a dialogue stands (RFC 5321 3 and 4.1.4).
type state int

const (
	stateGreeted state = iota // 220 was said, or TLS has just begun
	stateReady                // EHLO or HELO was accepted, no transaction
	stateMail                 // MAIL was accepted
	stateRcpt                 // and at least one RCPT
	stateChunks               // a BDAT was accepted that was not the last
	states                    // their number
)

// event is something accepted from the client that moves a dialogue on.
// Commands that are possible anywhere and change nothing are none.
type event int

const (
	eventHello    event = iota // EHLO, HELO
	eventStartTLS              // STARTTLS, the handshake being done
	eventAuth                  // AUTH, successful
	eventMail                  // MAIL
	eventRcpt                  // RCPT
	eventContent               // DATA with its content, or BDAT LAST
	eventChunk                 // BDAT without LAST
	eventReset                 // RSET
	eventFailed                // the content was refused, whole or in part
	events                     // their number
)

const never state = -1

// transitions says what may follow what: transitions[s][e] is the state after
// e in s, or never.
var transitions = [states][events]state{
	//            Hello       StartTLS      Auth        Mail       Rcpt       Content     Chunk        Reset         Failed
	stateGreeted: {stateReady, never, never, never, never, never, never, stateGreeted, never},
	stateReady:   {stateReady, stateGreeted, stateReady, stateMail, never, never, never, stateReady, never},
	stateMail:    {stateReady, never, never, never, stateRcpt, never, never, stateReady, never},
	stateRcpt:    {stateReady, never, never, never, stateRcpt, stateReady, stateChunks, stateReady, stateReady},
	stateChunks:  {stateReady, never, never, never, never, stateReady, stateChunks, stateReady, stateReady},
}

// next returns the state after e in s, and false where RFC 5321 4.1.4 wants
// the command refused with 503.
func next(s state, e event) (state, bool) {
	to := transitions[s][e]
	return to, to != never
}

// allows reports whether e may happen in s.
func (s state) allows(e event) bool { return transitions[s][e] != never }

// inTransaction reports whether there is something for RSET to undo.
func (s state) inTransaction() bool { return s >= stateMail }
