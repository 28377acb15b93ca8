package seal

import "encoding/json"

// Secret is bytes that must not be seen. It prints, formats and marshals as a
// fixed word; the bytes come out by Bytes alone.
type Secret struct{ b []byte }

// NewSecret takes the bytes over: the caller must not keep them.
func NewSecret(b []byte) Secret { return Secret{b: b} }

const hidden = "[secret]"

// Bytes are the secret itself, valid until Wipe. They must not be kept.
func (s Secret) Bytes() []byte { return s.b }

// Len is the number of bytes.
func (s Secret) Len() int { return len(s.b) }

// Wipe overwrites the bytes.
func (s Secret) Wipe() { clear(s.b) }

// String, GoString and the marshallers keep the secret out of whatever prints
// what it gets.
func (s Secret) String() string               { return hidden }
func (s Secret) GoString() string             { return hidden }
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(hidden) }
