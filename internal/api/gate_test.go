package api

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func TestTurns(t *testing.T) {
	two := newTurn(2)
	first, err := two.take()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.take(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.take(); !fault.Is(err, fault.Later) {
		t.Errorf("a third: %v", err)
	}
	first()
	if _, err := two.take(); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
	var none *turn
	done, err := none.take()
	if err != nil {
		t.Error(err)
	}
	done()
}
