package rfc2136

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Algorithms of keys. RFC 8945 6 lets others live on, some of them broken.
const (
	SHA256 = "hmac-sha256"
	SHA512 = "hmac-sha512"
)

const (
	maxKeyFile  = 4 << 10
	leastSecret = 16  // bytes
	mostSecret  = 512 // bytes
	// keyName are the characters of names. DNS lets others be (RFC 2181 11), and
	// nobody calls a key so.
	keyName = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	keyHint = `Put the secret into it in base64, or what tsig-keygen prints: key "name" { algorithm hmac-sha256; secret "…"; };`
)

// Key is a key shared with a DNS server.
type Key struct {
	name      string // canonical: lower case, with the dot at its end
	algorithm string
	secret    []byte
}

// ReadKey reads a key from a file that its owner alone may read. Name and
// algorithm may stand in the file, as [ParseKey] says, or be given.
func ReadKey(path, name, algorithm string) (Key, error) {
	const op = "rfc2136.ReadKey"
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe has no mode to go by, and nobody who writes
	if err != nil {
		return Key{}, (&fault.Error{Kind: fault.Missing, Op: op, Err: err}).WithHint("Put the key of the DNS server into it, mode 0600.")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, fault.Wrap(fault.Invalid, op, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return Key{}, fault.New(fault.Denied, op, "others may read the key file "+path).
			WithHint("Make it a regular file of mode 0600; if others have read it, make a new key.")
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Key{}, fault.Wrap(fault.Invalid, op, err)
	}
	defer clear(raw)
	k, err := ParseKey(raw, name, algorithm)
	if err != nil {
		return Key{}, fault.New(fault.Invalid, op, "the key file "+path+": "+fault.Sentence(err)).WithHint(cmp.Or(fault.HintOf(err), keyHint))
	}
	return k, nil
}

// ParseKey reads a key: a secret in base64 alone, or the statement by which
// BIND's settings have it, which has the name and the algorithm too. A name or
// an algorithm that is given as well has to be the same; without any the
// algorithm is hmac-sha256. Errors, all invalid, don't quote the text.
func ParseKey(text []byte, name, algorithm string) (Key, error) {
	var said statement
	var err error
	if len(text) > maxKeyFile {
		return Key{}, invalid("it is longer than a key")
	}
	if fields := strings.Fields(string(text)); len(fields) == 1 && !strings.ContainsAny(fields[0], "{};\"#") {
		said.secret = fields[0]
	} else if said, err = readStatement(string(text)); err != nil {
		return Key{}, err
	}
	if name, err = same("name", name, said.name); err != nil {
		return Key{}, err
	}
	if algorithm, err = same("algorithm", algorithm, said.algorithm); err != nil {
		return Key{}, err
	}
	return newKey(name, cmp.Or(algorithm, SHA256), said.secret)
}

// newKey checks the parts of a key.
func newKey(name, algorithm, secret string) (Key, error) {
	if _, ok := dns.IsDomainName(name); !ok || name == "" || strings.HasSuffix(name, ".") || strings.Trim(name, keyName) != "" {
		return Key{}, invalid("the key has no name, or one that is no domain name").WithHint("Name it as the DNS server does, in key_name.")
	}
	if algorithm != SHA256 && algorithm != SHA512 {
		return Key{}, invalid("the key's algorithm is neither " + SHA256 + " nor " + SHA512).WithHint("Make a key of one of them: tsig-keygen -a " + SHA256 + " NAME.")
	}
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil { // its text would quote the secret
		return Key{}, invalid("the secret is not base64")
	}
	if len(raw) < leastSecret || len(raw) > mostSecret {
		return Key{}, invalid("the secret is not of 16 to 512 bytes").WithHint("Make a new key: tsig-keygen -a " + SHA256 + " NAME.")
	}
	return Key{name: dns.CanonicalName(name), algorithm: algorithm, secret: raw}, nil
}

// same is what two places say of one thing.
func same(what, given, read string) (string, error) {
	given, read = canonical(given), canonical(read)
	if given != "" && read != "" && given != read {
		return "", invalid("the key's " + what + " is another than in the settings").WithHint("Leave it out of the settings.")
	}
	return cmp.Or(given, read), nil
}

// canonical is a name as it is compared: names of algorithms are domain names
// too (RFC 8945 4.2).
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func invalid(text string) *fault.Error {
	return fault.New(fault.Invalid, "rfc2136.ParseKey", text)
}

// Name is the key's, as people write it.
func (k Key) Name() string { return strings.TrimSuffix(k.name, ".") }

// Format is of fmt.Formatter: whatever prints a key prints its name.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.Name()) }

// Generate is of dns.TsigProvider.
func (k Key) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	if !k.is(t) {
		return nil, dns.ErrSecret
	}
	h := hmac.New(k.hash(), k.secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

// Verify is of dns.TsigProvider. A signature that was cut short is none.
func (k Key) Verify(msg []byte, t *dns.TSIG) error {
	want, err := k.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(want, got) {
		return errors.Join(dns.ErrSig, err)
	}
	return nil
}

func (k Key) is(t *dns.TSIG) bool {
	return dns.CanonicalName(t.Hdr.Name) == k.name && canonical(t.Algorithm) == k.algorithm
}

func (k Key) hash() func() hash.Hash {
	if k.algorithm == SHA512 {
		return sha512.New
	}
	return sha256.New
}
