package tenant

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Argon2id with the second recommendation of the OWASP password storage cheat
// sheet; a stored hash names its own, so that they can be raised.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
)

const (
	hashesAtOnce  = 2   // 19 MiB each
	hashesWaiting = 100 // callers beyond this get later
	cacheFor      = time.Minute
	cacheSize     = 10_000
)

// passwords verifies passwords at a bounded cost.
type passwords struct {
	now      func() time.Time
	key      [32]byte // of this process: what is in memory is of no use elsewhere
	decoy    string   // hash for users that do not exist, so that they cost the same
	slots    chan struct{}
	waiting  chan struct{}
	throttle throttle

	mu    sync.Mutex
	cache map[[32]byte]remembered
}

// remembered is a password that was right a moment ago. It is good only for
// the very hash that it was checked against.
type remembered struct {
	hash  string
	until time.Time
}

func newPasswords(now func() time.Time) (*passwords, error) {
	p := &passwords{
		now:     now,
		slots:   make(chan struct{}, hashesAtOnce),
		waiting: make(chan struct{}, hashesWaiting),
		cache:   make(map[[32]byte]remembered),
	}
	p.throttle.users = make(map[[32]byte]failures)
	if _, err := rand.Read(p.key[:]); err != nil {
		return nil, err
	}
	decoy := make([]byte, argonKey+argonSalt)
	if _, err := rand.Read(decoy); err != nil {
		return nil, err
	}
	p.decoy = encodeHash(decoy[:argonSalt], decoy[argonSalt:])
	return p, nil
}

// mac is the keyed hash by which a pair is remembered.
func (p *passwords) mac(user, password string) (sum [32]byte) {
	h := hmac.New(sha256.New, p.key[:])
	// The length keeps "ab","c" and "a","bc" apart.
	fmt.Fprintf(h, "%d:%s%s", len(user), user, password)
	h.Sum(sum[:0])
	return sum
}

// verify checks a password against a hash, "" for a user who does not exist.
func (p *passwords) verify(ctx context.Context, user, password, hash string) (bool, error) {
	pair, who := p.mac(user, password), p.mac(user, "")
	if done, err := p.known(pair, who, hash); done || err != nil {
		return done, err
	}
	release, err := p.slot(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	// Those who waited beside us may have got the answer meanwhile, or used up
	// the tries.
	if done, err := p.known(pair, who, hash); done || err != nil {
		return done, err
	}
	against := hash
	if hash == "" {
		against = p.decoy
	}
	right, err := checkHash(against, password)
	if err != nil {
		return false, err
	}
	if hash == "" || !right {
		p.throttle.fail(who, p.now())
		return false, nil
	}
	p.throttle.clear(who)
	p.remember(pair, hash)
	return true, nil
}

// known answers without a hash: right a moment ago, or tried too often.
func (p *passwords) known(pair, who [32]byte, hash string) (right bool, err error) {
	if hash != "" && p.recall(pair, hash) {
		return true, nil
	}
	wait := p.throttle.wait(who, p.now())
	if wait <= 0 {
		return false, nil
	}
	return false, fault.New(fault.Later, "", "too many wrong passwords").
		WithHint(fmt.Sprintf("Try again in %d seconds.", int(wait.Seconds())+1))
}

// slot waits for one of the places to compute a hash.
func (p *passwords) slot(ctx context.Context) (release func(), err error) {
	busy := fault.New(fault.Later, "", "too many log-ins at a time").WithHint("Try again in a few seconds.")
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return nil, busy
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, busy
	}
}

func (p *passwords) recall(pair [32]byte, hash string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.cache[pair]
	return ok && m.hash == hash && p.now().Before(m.until)
}

func (p *passwords) remember(pair [32]byte, hash string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if len(p.cache) >= cacheSize {
		p.prune(now)
	}
	p.cache[pair] = remembered{hash: hash, until: now.Add(cacheFor)}
}

// prune makes room: all that is over, and when that is little, an eighth of
// whatever comes first.
func (p *passwords) prune(now time.Time) {
	for pair, m := range p.cache {
		if !now.Before(m.until) {
			delete(p.cache, pair)
		}
	}
	for pair := range p.cache {
		if len(p.cache) <= cacheSize-cacheSize/8 {
			return
		}
		delete(p.cache, pair)
	}
}

// newPassword makes a password of 128 random bits or more and its hash.
func (p *passwords) newPassword(ctx context.Context) (password, hash string, err error) {
	release, err := p.slot(ctx)
	if err != nil {
		return "", "", err
	}
	defer release()
	password = rand.Text()
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", "", err
	}
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return password, encodeHash(salt, key), nil
}

// encodeHash writes the PHC string format.
func encodeHash(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// checkHash compares a password with a hash in PHC string format.
func checkHash(hash, password string) (bool, error) {
	var version int
	var memory, passes uint32
	var threads uint8
	parts := strings.Split(hash, "$")
	damaged := errors.New("a stored password hash is damaged")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, damaged
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, damaged
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil {
		return false, damaged
	}
	// Bounds, so that a damaged row can't take the machine's memory.
	if memory > 1<<20 || passes == 0 || passes > 100 || threads == 0 {
		return false, damaged
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2); err != nil || len(key) == 0 || len(key) > 64 {
		return false, damaged
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, nil
}
