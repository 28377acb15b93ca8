package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is a signed statement of the log at a size, as a report shows it.
type Checkpoint struct {
	Size      int64      `json:"size"`
	Hash      string     `json:"hash"` // hex
	Time      *time.Time `json:"time"`
	Signature string     `json:"signature"` // the line of the log's key

	origin string
	root   sum
	tailed bool // this log has a tail
}

// keyring are the verifier keys of a log. They have one name.
type keyring struct {
	origin string
	list   note.Verifiers
}

func readKeys(keys []string) (keyring, error) {
	var k keyring
	var all []note.Verifier
	if len(keys) > maxKeys {
		return k, fmt.Errorf("%d verifier keys are more than a log has", len(keys))
	}
	for _, text := range keys {
		v, err := note.NewVerifier(strings.TrimSpace(text))
		if err != nil {
			return k, fmt.Errorf("the verifier key %.80q cannot be read", text)
		}
		if k.origin != "" && v.Name() != k.origin {
			return k, errors.New("the verifier keys are of different logs")
		}
		k.origin = v.Name()
		all = append(all, v)
	}
	if len(all) == 0 {
		return k, errors.New("there is no verifier key")
	}
	k.list = note.VerifierList(all...)
	return k, nil
}

// open reads a checkpoint (c2sp.org/tlog-checkpoint) that a key has signed.
func (k keyring) open(raw []byte) (Checkpoint, error) {
	n, err := note.Open(raw, k.list)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("its signature is not one of the log's keys (%w)", err)
	}
	c, err := readCheckpoint(n.Text)
	if err != nil {
		return c, err
	}
	if c.origin != k.origin {
		return c, fmt.Errorf("it is of %.100q, not of %.100q", c.origin, k.origin)
	}
	c.Signature = fmt.Sprintf("— %s %s", n.Sigs[0].Name, n.Sigs[0].Base64)
	return c, nil
}

// readCheckpoint reads the text of a checkpoint: origin, size, hash, and lines
// that extend it, of which we know "time" and "tailed".
func readCheckpoint(text string) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return c, errors.New("it has not the three lines of a checkpoint")
	}
	c.origin = lines[0]
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return c, errors.New("its size is no number")
	}
	c.Size = int64(size)
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(c.root) {
		return c, errors.New("its hash is not one of SHA-256")
	}
	c.root = sum(root)
	c.Hash = fmt.Sprintf("%x", root)
	for _, line := range lines[3 : len(lines)-1] {
		c.tailed = c.tailed || line == "tailed"
		if text, ok := strings.CutPrefix(line, "time "); ok {
			when, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return c, errors.New("its time is none")
			}
			c.Time = new(when.UTC())
		}
	}
	return c, nil
}
