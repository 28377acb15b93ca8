//go:build cgo

package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Modules are the PKCS#11 modules of a process. The roof has one value for all
// drivers and KEKs: a module is initialised once for a process, and one that
// lost its token must be let go of by all of them before it finds it again.
// The zero value is ready.
type Modules struct {
	mu  sync.Mutex
	all map[string]*module
}

// module is one library, and its sessions of the present.
type module struct {
	mu   sync.Mutex
	live *generation // nil before the first use and after a loss
	// dying was live, and waits for the calls under way. Nothing is opened
	// before it is gone: only a module without sessions is initialised anew.
	dying *generation
}

// generation is what was opened between two initialisations of a module.
type generation struct {
	users int           // guarded by the module
	gone  chan struct{} // closed when all of it is

	mu    sync.Mutex
	links map[name]*link
}

// name is a token as it is opened.
type name struct{ label, pinFile string }

// link is a token with the user logged in.
type link struct {
	*crypto11.Context

	mu      sync.Mutex
	signers map[string]crypto11.PrivateKey // by CKA_ID
	kek     map[string]*crypto11.SecretKey // by label
}

// token is one setting of a token in a module.
type token struct {
	c      Config
	module *module
	slots  chan struct{} // calls under way

	mu      sync.Mutex
	failed  error // why it could not be opened
	again   time.Time
	pause   time.Duration
	refused [sha256.Size]byte // of the PIN that the token did not take
	denied  error             // what it said of it
}

// token is the token of a setting.
func (m *Modules) token(op string, c Config) (*token, error) {
	c, err := c.checked(op)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]*module{}
	}
	if m.all[c.Module] == nil {
		m.all[c.Module] = &module{}
	}
	return &token{c: c, module: m.all[c.Module], slots: make(chan struct{}, c.Sessions)}, nil
}

// Close logs out of all tokens once the calls under way have come back. What
// is used afterwards opens them again.
func (m *Modules) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.all {
		one.mu.Lock()
		one.drop(one.live)
		one.mu.Unlock()
	}
}

// take gives the token's link, opened when it is not. Each that was taken is
// given back.
func (t *token) take(ctx context.Context) (*generation, *link, error) {
	g, err := t.module.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, tried, err := g.link(t)
	if err != nil {
		// A module that does not find a token may find it when it is initialised
		// anew.
		t.module.leave(g, tried)
		return nil, nil, err
	}
	return g, l, nil
}

// enter joins the present generation, after the last one is gone.
func (m *module) enter(ctx context.Context) (*generation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.dying != nil {
		gone := m.dying.gone
		m.mu.Unlock()
		select {
		case <-gone:
			m.mu.Lock()
		case <-ctx.Done():
			m.mu.Lock()
			return nil, errHangs
		}
	}
	if m.live == nil {
		m.live = &generation{gone: make(chan struct{}), links: map[name]*link{}}
	}
	m.live.users++
	return m.live, nil
}

// leave ends a call; one that met a loss ends the generation too.
func (m *module) leave(g *generation, lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.users--
	if lost {
		m.drop(g)
	}
	if m.dying == g && g.users == 0 {
		m.bury(g)
	}
}

// drop lets nobody enter a generation any more.
func (m *module) drop(g *generation) {
	if g == nil || m.live != g {
		return
	}
	m.live, m.dying = nil, g
	if g.users == 0 {
		m.bury(g)
	}
}

// bury closes what nobody uses. The last context finalises the module.
func (m *module) bury(g *generation) {
	for _, l := range g.links {
		_ = l.Close() // it never fails; a token that is gone can't be logged out of
	}
	m.dying = nil
	close(g.gone)
}

// link opens the token, or tells again why it could not be opened. It tells
// too whether the module was asked.
func (g *generation) link(t *token) (*link, bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := name{t.c.Token, t.c.PINFile}
	if l := g.links[n]; l != nil {
		return l, false, nil
	}
	l, tried, err := t.open()
	if err == nil {
		g.links[n] = l
	}
	return l, tried, err
}

// open logs in, not more often than the pause allows.
func (t *token) open() (l *link, tried bool, err error) {
	const op = "pkcs11.Open"
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil && time.Now().Before(t.again) {
		return nil, false, t.failed
	}
	pin, err := t.c.pin(op)
	if err != nil {
		return nil, false, (&fault.Error{Kind: fault.Later, Op: op, Err: err}).WithHint(fault.HintOf(err))
	}
	defer pin.Wipe()
	sum := sha256.Sum256(pin.Bytes())
	if sum == t.refused {
		return nil, false, t.denied
	}
	c, err := crypto11.Configure(&crypto11.Config{
		Path: t.c.Module, TokenLabel: t.c.Token, Pin: string(pin.Bytes()),
		MaxSessions: t.c.Sessions + 1, PoolWaitTimeout: t.c.Timeout, GCMIVLength: nonceBytes,
	})
	if err != nil {
		t.remember(op, err, sum)
		return nil, true, t.failed
	}
	t.failed, t.pause, t.refused = nil, 0, [sha256.Size]byte{}
	return &link{Context: c, signers: map[string]crypto11.PrivateKey{}, kek: map[string]*crypto11.SecretKey{}}, true, nil
}

// remember keeps a failure for the pause, and a refused PIN for good.
func (t *token) remember(op string, err error, pin [sha256.Size]byte) {
	t.pause = min(max(2*t.pause, t.c.Pause), 8*t.c.Pause)
	t.again = time.Now().Add(t.pause)
	var code pkcs11.Error
	_ = errors.As(err, &code) // what is no code of the token is no refusal
	switch code {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		t.refused, t.denied = pin, (&fault.Error{Kind: fault.Denied, Op: op, Err: err}).
			WithHint("Put the right PIN into "+t.c.PINFile+". The one there is not tried again: tokens lock after a few wrong ones.")
		t.failed = t.denied
		return
	}
	t.failed = (&fault.Error{Kind: fault.Later, Op: op, Err: err}).
		WithHint("Check that the token " + t.c.Token + " of " + t.c.Module + " is there; what needs it waits.")
}
