package pkcs11

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// Config says which token, and how it is opened.
type Config struct {
	Module  string // path of the module: /usr/lib/softhsm/libsofthsm2.so
	Token   string // the token's label
	PINFile string // holds the user's PIN; mode 0600 or less; read at each login
	// KeyLabel is the label of the KEK, "" for sallyport-kek-<region>. New key
	// pairs get it too, "" for sallyport.
	KeyLabel string
	// Sessions at a time; 0 means 16.
	Sessions int
	// Timeout of one act in the token; 0 means 5 s. Making a key may take six
	// times as long.
	Timeout time.Duration
	// Pause between two attempts to open a token that is away, doubled up to
	// eight times itself; 0 means 500 ms.
	Pause time.Duration
}

const maxPIN = 256

// checked fills in what is not said. The module is named by its true path, so
// that two settings that mean one module share it.
func (c Config) checked(op string) (Config, error) {
	if c.Module == "" || c.Token == "" || c.PINFile == "" {
		return c, fault.New(fault.Invalid, op, "a token needs a module, a label and a PIN file").WithHint("Name all three.")
	}
	path, err := filepath.EvalSymlinks(c.Module)
	if err != nil {
		return c, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).
			WithHint("Install the token's PKCS#11 module, and name its path.")
	}
	c.Module = path
	if c.Sessions <= 0 {
		c.Sessions = 16
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Pause <= 0 {
		c.Pause = 500 * time.Millisecond
	}
	pin, err := c.pin(op)
	pin.Wipe()
	return c, err
}

// pin reads the PIN file. One that others may read is refused: the PIN is all
// that stands between them and the keys.
func (c Config) pin(op string) (seal.Secret, error) {
	f, err := os.Open(c.PINFile)
	if err != nil {
		return seal.Secret{}, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).WithHint("Put the user's PIN into " + c.PINFile + ", mode 0600.")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return seal.Secret{}, fault.Wrap(fault.Invalid, op, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return seal.Secret{}, fault.New(fault.Invalid, op, "others may read the PIN file "+c.PINFile).WithHint("Make it a regular file of mode 0600.")
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
	if err != nil {
		return seal.Secret{}, fault.Wrap(fault.Invalid, op, err)
	}
	defer clear(raw)
	text := strings.TrimRight(string(raw), "\r\n")
	if text == "" || len(raw) > maxPIN {
		return seal.Secret{}, fault.New(fault.Invalid, op, "the PIN file "+c.PINFile+" has no PIN of 1 to 256 bytes").WithHint("Put the user's PIN into it.")
	}
	return seal.NewSecret([]byte(text)), nil
}

// softHSM tells whether the module keeps its keys in files of this host. A
// name is all there is to go by.
func (c Config) softHSM() bool {
	return strings.Contains(strings.ToLower(c.Module), "softhsm")
}
