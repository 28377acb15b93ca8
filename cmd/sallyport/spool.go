package main

import (
	"bytes"
	"io"
	"os"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// spoolMemory is what a spool holds in memory, bytes: most listings need no
// file.
const spoolMemory = 1 << 20

// spool keeps what is written to it until it is known to be whole. Past
// spoolMemory it lies in a temporary file (of TMPDIR) that only this process
// can open and that has no name, so that a kill leaves nothing behind. Its
// zero value is empty; close it.
type spool struct {
	memory bytes.Buffer // what comes after the file's
	file   *os.File     // nil while memory is enough
}

// Write fails when the temporary file cannot be written.
func (s *spool) Write(b []byte) (int, error) {
	n, _ := s.memory.Write(b) // of which no error is known
	if s.memory.Len() < spoolMemory {
		return n, nil
	}
	if err := s.spill(); err != nil {
		return 0, fault.New(fault.Conflict, "", "cannot keep the listing until it is whole: "+err.Error()).
			WithHint("Name a folder with space for it in TMPDIR, or ask for less.")
	}
	return n, nil
}

// spill moves what is in memory to the file.
func (s *spool) spill() (err error) {
	if s.file == nil {
		if s.file, err = os.CreateTemp("", besidePrefix+"*"); err != nil {
			return err
		}
		if err := os.Remove(s.file.Name()); err != nil {
			return err
		}
	}
	_, err = s.memory.WriteTo(s.file)
	return err
}

// WriteTo copies everything to w, once.
func (s *spool) WriteTo(w io.Writer) (n int64, err error) {
	if s.file != nil {
		if _, err = s.file.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		if n, err = io.Copy(w, s.file); err != nil {
			return n, err
		}
	}
	rest, err := s.memory.WriteTo(w)
	return n + rest, err
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}
