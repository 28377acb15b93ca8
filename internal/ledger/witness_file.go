package ledger

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// recordEnd ends each checkpoint in a witness's file: a line that no note has.
const recordEnd = "\n-- \n"

// FileWitness appends checkpoints to a file, which is to lie where the keeper's
// database and its backups do not: another disk, a mount of another host, a
// printer. It cosigns nothing; any of its checkpoints is an anchor.
type FileWitness struct {
	path   string
	origin string
	keys   note.Verifiers

	mu sync.Mutex
}

// NewFileWitness makes a witness out of a file, which need not be there yet.
// Keys are the verifier keys of the ledger.
func NewFileWitness(path, origin string, keys []string) (*FileWitness, error) {
	if path == "" {
		return nil, fault.New(fault.Invalid, "ledger.NewFileWitness", "no file was named for the witness")
	}
	var verifiers []note.Verifier
	for _, key := range keys {
		v, err := note.NewVerifier(key)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "ledger.NewFileWitness", err)
		}
		verifiers = append(verifiers, v)
	}
	return &FileWitness{path: path, origin: origin, keys: note.VerifierList(verifiers...)}, nil
}

// Name is the file's.
func (w *FileWitness) Name() string { return "file:" + w.path }

// Add appends a checkpoint that continues the file's last one, and syncs it.
func (w *FileWitness) Add(_ context.Context, s Submission) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return "", fault.Wrap(fault.Later, "ledger.FileWitness", err)
	}
	defer f.Close()
	last, err := w.last(f)
	if err != nil {
		return "", err
	}
	c := s.Checkpoint
	switch {
	case last.Size != s.Old:
		return "", &Elsewhere{Size: last.Size}
	case last.Size == c.Size && last.Size > 0:
		if last.Hash != c.Hash {
			return "", tampered("ledger.FileWitness", "the file "+w.path+" has another ledger of this size")
		}
		return "", nil
	case last.Size > 0:
		if err := tlog.CheckTree(s.Proof, c.Size, c.Hash, last.Size, last.Hash); err != nil {
			return "", tampered("ledger.FileWitness", "the ledger does not continue the one in the file "+w.path)
		}
	}
	if _, err = f.Write(append(bytes.Clone(c.Note), recordEnd...)); err == nil {
		err = f.Sync()
	}
	if err == nil && last.Size == 0 { // the file may be new: its name is to last too
		err = syncDir(filepath.Dir(w.path))
	}
	return "", fault.Wrap(fault.Later, "ledger.FileWitness", err)
}

// last is the newest checkpoint of the file. What a crash left of one behind it
// is passed over, for it was never agreed to; the next record then begins with
// the rest of that one, and is found by its own beginning.
func (w *FileWitness) last(f *os.File) (Checkpoint, error) {
	const window = 128 << 10
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Checkpoint{}, fault.Wrap(fault.Later, "ledger.FileWitness", err)
	}
	data := make([]byte, min(end, window))
	if _, err := f.ReadAt(data, end-int64(len(data))); err != nil && !errors.Is(err, io.EOF) {
		return Checkpoint{}, fault.Wrap(fault.Later, "ledger.FileWitness", err)
	}
	records := bytes.Split(data, []byte(recordEnd))
	for i := len(records) - 2; i >= 0; i-- { // behind the last end is nothing, or a part
		raw := records[i]
		if at := bytes.LastIndex(raw, []byte(w.origin+"\n")); at > 0 {
			raw = raw[at:]
		}
		if c, err := OpenCheckpoint(raw, w.origin, w.keys); err == nil {
			return c, nil
		}
	}
	begun := []byte(w.origin + "\n")
	if len(records) > 1 || !bytes.HasPrefix(data, begun[:min(len(data), len(begun))]) {
		return Checkpoint{}, fault.New(fault.Conflict, "ledger.FileWitness", "the file "+w.path+" holds no checkpoint of "+w.origin).
			WithHint("Give the witness a file of its own for each region.")
	}
	return Checkpoint{}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
