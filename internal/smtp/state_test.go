package smtp

import "testing"

// TestTransitions walks every state and event beside the rules in words.
func TestTransitions(t *testing.T) {
	for s := range states {
		for e := range events {
			want := never
			open := s >= stateMail // a transaction
			switch e {
			case eventHello: // at any time, and it ends a transaction
				want = stateReady
			case eventStartTLS: // RFC 3207 4.2: everything begins again
				if s == stateReady {
					want = stateGreeted
				}
			case eventAuth: // not within a transaction (RFC 4954 4)
				if s == stateReady {
					want = stateReady
				}
			case eventMail: // one transaction at a time, after EHLO
				if s == stateReady {
					want = stateMail
				}
			case eventRcpt: // after MAIL, before any content
				if s == stateMail || s == stateRcpt {
					want = stateRcpt
				}
			case eventContent: // the end of the transaction
				if s == stateRcpt || s == stateChunks {
					want = stateReady
				}
			case eventChunk:
				if s == stateRcpt || s == stateChunks {
					want = stateChunks
				}
			case eventReset:
				want = stateReady
				if s == stateGreeted {
					want = stateGreeted // RSET is no EHLO
				}
			case eventFailed:
				if s == stateRcpt || s == stateChunks {
					want = stateReady
				}
			}
			got, ok := next(s, e)
			if got != want || ok != (want != never) || s.allows(e) != ok {
				t.Errorf("state %d, event %d: %d, want %d", s, e, got, want)
			}
			if s.inTransaction() != open {
				t.Errorf("state %d: in transaction %v", s, s.inTransaction())
			}
		}
	}
}
