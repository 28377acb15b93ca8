package operator

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Public is an operator as the keeper knows him.
type Public struct {
	Name string // the person
	Key  ed25519.PublicKey
}

// ID names the key.
func (p Public) ID() string {
	sum := sha256.Sum256(p.Key)
	return hex.EncodeToString(sum[:16])
}

const publicWord = "sallyport-operator"

// String is the line that goes into the keeper's settings.
func (p Public) String() string {
	return publicWord + " " + p.Name + " " + base64.StdEncoding.EncodeToString(p.Key)
}

// ParsePublic reads such a line.
func ParsePublic(line string) (Public, error) {
	const hint = "Give the line that `sallyport operator new` printed; `sallyport operator show FILE` prints it again."
	if len(line) > maxText {
		return Public{}, invalid("operator.ParsePublic", errors.New("the line is too long"), hint)
	}
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != publicWord || !isName(f[1]) {
		return Public{}, invalid("operator.ParsePublic", errors.New("this is no operator's public key"), hint)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != ed25519.PublicKeySize {
		return Public{}, invalid("operator.ParsePublic", errors.New("the operator's public key has a wrong length"), hint)
	}
	return Public{Name: f[1], Key: key}, nil
}

// Key is an operator's private key. It never prints.
type Key struct {
	name    string
	private ed25519.PrivateKey
}

// Public is the other half.
func (k *Key) Public() Public {
	return Public{Name: k.name, Key: k.private.Public().(ed25519.PublicKey)}
}

// String and GoString keep the key out of logs.
func (k *Key) String() string   { return "operator key of " + k.name }
func (k *Key) GoString() string { return k.String() }

func (k *Key) sign(b []byte) signature {
	return signature{Key: k.Public().ID(), Signature: ed25519.Sign(k.private, b)}
}

// keyFile is operator.key.
type keyFile struct {
	Format string `json:"format"`
	Name   string `json:"name"`
	Seed   []byte `json:"seed"`
}

const (
	keyFormat  = "sallyport operator key 1"
	maxKeyFile = 4 << 10
	keyHint    = "Give the operator.key file as it was written, owned by you and with mode 0600."
)

// NewKey makes a key and writes its file, which must not be there yet.
func NewKey(path, name string) (*Key, error) {
	const op = "operator.NewKey"
	if !isName(name) {
		return nil, invalid(op, errors.New("an operator's name has 1 to 64 letters, digits, dots, hyphens or underscores"), "Choose another name.")
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	b, err := json.Marshal(keyFile{Format: keyFormat, Name: name, Seed: private.Seed()})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	defer clear(b)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Conflict, Op: op, Err: err}).WithHint("Choose a path where no file is, in a folder you can write to.")
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return &Key{name: name, private: private}, fault.Wrap(fault.Internal, op, err)
}

// ReadKey reads operator.key. A file that others can read is refused: what
// they read, they can sign.
func ReadKey(path string) (*Key, error) {
	const op = "operator.ReadKey"
	f, err := os.Open(path)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Missing, Op: op, Err: err}).WithHint(keyHint)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, denied(op, "others can read "+path, "chmod 600 it; if they may have read it, make a new key.")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	defer clear(b)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	k, err := parseKey(b)
	if err != nil {
		return nil, invalid(op, err, keyHint)
	}
	return k, nil
}

func parseKey(b []byte) (*Key, error) {
	var f keyFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if len(b) > maxKeyFile || d.Decode(&f) != nil {
		return nil, errors.New("the operator's key file is damaged")
	}
	defer clear(f.Seed)
	if f.Format != keyFormat || !isName(f.Name) || len(f.Seed) != ed25519.SeedSize {
		return nil, errors.New("the operator's key file is of a format we do not know")
	}
	return &Key{name: f.Name, private: ed25519.NewKeyFromSeed(f.Seed)}, nil
}

func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func invalid(op string, err error, hint string) error {
	return (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint(hint)
}

func denied(op, text, hint string) error { return fault.New(fault.Denied, op, text).WithHint(hint) }

func conflict(op, text, hint string) error { return fault.New(fault.Conflict, op, text).WithHint(hint) }
