package keeper

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// A stranger's question leaves no entry.
func TestAcmeChallenge(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Challenges = func(token string) (string, bool) { return token + ".thumb", token == "known" }
	})
	before := r.ledger.Size()
	got, err := r.AcmeChallenge(t.Context(), someone(), act.Challenge{Context: about("acme"), Token: "known"})
	if err != nil || got.KeyAuthorization != "known.thumb" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := r.AcmeChallenge(t.Context(), someone(), act.Challenge{Context: about("acme"), Token: "guessed"}); !fault.Is(err, fault.Missing) {
		t.Errorf("a token of nobody: %v", err)
	}
	r.c.Challenges = nil
	if _, err := r.AcmeChallenge(t.Context(), someone(), act.Challenge{Context: about("acme"), Token: "known"}); !fault.Is(err, fault.Missing) {
		t.Errorf("without an issuer: %v", err)
	}
	if r.ledger.Size() != before {
		t.Errorf("%d entries more", r.ledger.Size()-before)
	}
}
