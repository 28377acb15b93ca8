package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// cosignatureType is the signature type of timestamped Ed25519 cosignatures
// (c2sp.org/tlog-cosignature).
const cosignatureType = 4

// cosigner verifies a witness's cosignatures.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewCosignatureVerifier reads the verifier key of a witness: its name, the
// hash of name and key, and 0x04 with the Ed25519 key in base64, with "+"
// between.
func NewCosignatureVerifier(vkey string) (note.Verifier, error) {
	bad := fault.New(fault.Invalid, "ledger.NewCosignatureVerifier", "the witness's key is none for cosignatures").
		WithHint("Give it as <name>+<hash>+<base64>, of the type cosignature/v1.")
	name, rest, _ := strings.Cut(vkey, "+")
	id, text, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || name == "" || len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureType {
		return nil, bad
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if hex.EncodeToString(sum[:4]) != id {
		return nil, bad
	}
	return &cosigner{name: name, hash: binary.BigEndian.Uint32(sum[:]), key: key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

// Verify checks a cosignature of a checkpoint's text: eight bytes of time, then
// the signature of both.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}
