package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Cost is what a guess at the passphrase costs (Argon2id, RFC 9106).
type Cost struct {
	Passes   uint32
	MemoryKB uint32
	Lanes    uint8
}

// DefaultCost is the second recommended option of RFC 9106 4, for machines
// that cannot spare 2 GiB.
func DefaultCost() Cost { return Cost{Passes: 3, MemoryKB: 64 << 10, Lanes: 4} }

// What a file may ask for: one written by a stranger must not eat the machine.
const (
	maxPasses   = 16
	minMemoryKB = 8 << 10
	maxMemoryKB = 1 << 20
	maxLanes    = 16
	maxKEKFile  = 4 << 10
	minPhrase   = 12
	saltBytes   = 16
)

// kekFile is the file. The KEK is random; the passphrase opens the file, so a
// new passphrase needs no re-wrapping.
type kekFile struct {
	Format   string `json:"format"`
	ID       string `json:"id"`
	Region   string `json:"region"`
	KDF      string `json:"kdf"`
	Passes   uint32 `json:"passes"`
	MemoryKB uint32 `json:"memory_kb"`
	Lanes    uint8  `json:"lanes"`
	Salt     []byte `json:"salt"`
	Cipher   string `json:"cipher"`
	Nonce    []byte `json:"nonce"`
	Sealed   []byte `json:"sealed"`
}

const (
	kekFormat = "sallyport kek 1"
	kekKDF    = "argon2id"
	kekCipher = "xchacha20-poly1305"
)

// associated binds what the file says to what it holds.
func (f kekFile) associated() []byte {
	b := []byte(kekFormat + "\x00")
	for _, s := range []string{
		f.ID, f.Region, f.KDF, f.Cipher, string(f.Salt),
		strconv.FormatUint(uint64(f.Passes), 10), strconv.FormatUint(uint64(f.MemoryKB), 10), strconv.Itoa(int(f.Lanes)),
	} {
		b = appendText(b, s)
	}
	return b
}

func (f kekFile) derive(passphrase Secret) Secret {
	return NewSecret(argon2.IDKey(passphrase.Bytes(), f.Salt, f.Passes, f.MemoryKB, f.Lanes, chacha20poly1305.KeySize))
}

// NewKEKFile makes a region's KEK and returns the bytes of its file.
func NewKEKFile(region string, passphrase Secret, c Cost) ([]byte, error) {
	const op = "seal.NewKEKFile"
	if region == "" || len(region) > maxField {
		return nil, fault.New(fault.Invalid, op, "a KEK belongs to a region").WithHint("Name the region.")
	}
	id := make([]byte, 8)
	rand.Read(id)
	key := NewSecret(make([]byte, kekBytes))
	defer key.Wipe()
	rand.Read(key.Bytes())
	return writeKEK(op, kekFile{ID: "file-" + hex.EncodeToString(id), Region: region}, key, passphrase, c)
}

// ChangePassphrase writes the same KEK under another passphrase and cost.
func ChangePassphrase(file []byte, old, next Secret, c Cost) ([]byte, error) {
	const op = "seal.ChangePassphrase"
	f, key, err := readKEK(op, file, old)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return writeKEK(op, f, key, next, c)
}

func writeKEK(op string, f kekFile, key, passphrase Secret, c Cost) ([]byte, error) {
	if passphrase.Len() < minPhrase {
		return nil, fault.New(fault.Invalid, op, "the passphrase is shorter than 12 bytes").
			WithHint("Choose a longer one: whoever takes the file can guess at it for years.")
	}
	f.Format, f.KDF, f.Cipher = kekFormat, kekKDF, kekCipher
	f.Passes, f.MemoryKB, f.Lanes = c.Passes, c.MemoryKB, c.Lanes
	f.Salt, f.Nonce = make([]byte, saltBytes), make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(f.Salt)
	rand.Read(f.Nonce)
	if err := f.check(); err != nil {
		return nil, fault.Wrap(fault.Invalid, op, err)
	}
	derived := f.derive(passphrase)
	defer derived.Wipe()
	a, err := chacha20poly1305.NewX(derived.Bytes())
	if err != nil {
		return nil, fault.Wrap(fault.Internal, op, err)
	}
	f.Sealed = a.Seal(nil, f.Nonce, key.Bytes(), f.associated())
	out, err := json.MarshalIndent(f, "", "  ")
	return append(out, '\n'), fault.Wrap(fault.Internal, op, err)
}

// OpenKEKFile opens a region's KEK. A file of another region is refused.
func OpenKEKFile(region string, file []byte, passphrase Secret) (KEK, error) {
	const op = "seal.OpenKEKFile"
	f, key, err := readKEK(op, file, passphrase)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if f.Region != region {
		return nil, fault.New(fault.Denied, op, "the KEK is of region "+strconv.Quote(f.Region)).
			WithHint("Give the file of region " + region + ".")
	}
	l, err := newLocal(op, f.ID, key)
	if err != nil {
		return nil, err
	}
	return fileKEK{l}, nil
}

// fileKEK is a KEK that was read from a file.
type fileKEK struct{ *local }

func (k fileKEK) Describe() Description {
	return Description{Driver: "file", ID: k.id, OnHost: true, Detail: "a file opened by a passphrase, for trying out"}
}

func readKEK(op string, file []byte, passphrase Secret) (kekFile, Secret, error) {
	f, err := parseKEK(file)
	if err != nil {
		return kekFile{}, Secret{}, (&fault.Error{Kind: fault.Invalid, Op: op, Err: err}).
			WithHint("Give the KEK file as it was written; take it from the backup when it is damaged.")
	}
	derived := f.derive(passphrase)
	defer derived.Wipe()
	a, err := chacha20poly1305.NewX(derived.Bytes())
	if err != nil {
		return kekFile{}, Secret{}, fault.Wrap(fault.Internal, op, err)
	}
	key, err := a.Open(nil, f.Nonce, f.Sealed, f.associated())
	if err != nil {
		return kekFile{}, Secret{}, fault.New(fault.Denied, op, "the passphrase does not open the KEK file, or the file was changed").
			WithHint("Check the passphrase and the file.")
	}
	return f, NewSecret(key), nil
}

// parseKEK reads a file that may be anybody's.
func parseKEK(file []byte) (kekFile, error) {
	var f kekFile
	if len(file) > maxKEKFile {
		return f, errors.New("a KEK file has at most 4096 bytes")
	}
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return f, errors.New("the KEK file is no JSON of ours: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return f, errors.New("something follows the KEK")
	}
	if f.ID == "" || f.Region == "" || len(f.Sealed) != kekBytes+chacha20poly1305.Overhead {
		return f, errors.New("the KEK file is not complete")
	}
	return f, f.check()
}

func (f kekFile) check() error {
	switch {
	case f.Format != kekFormat || f.KDF != kekKDF || f.Cipher != kekCipher:
		return errors.New("the KEK file is of a format we do not know")
	case f.Passes < 1 || f.Passes > maxPasses, f.Lanes < 1 || f.Lanes > maxLanes,
		f.MemoryKB < minMemoryKB || f.MemoryKB > maxMemoryKB:
		return errors.New("the KEK file asks for Argon2id parameters out of bounds (1 to 16 passes, 8 MiB to 1 GiB, 1 to 16 lanes)")
	case len(f.Salt) != saltBytes || len(f.Nonce) != chacha20poly1305.NonceSizeX:
		return errors.New("the KEK file has a salt or nonce of a wrong length")
	}
	return nil
}
