package seal

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// usedFile is a KEK file that is read and opened for each use, and forgotten
// after it: as long as file or passphrase are taken away nothing opens, also in
// a process that has used it before.
type usedFile struct {
	region, path string
	passphrase   func() (Secret, error)

	mu sync.Mutex // one is opened at a time: the passphrase takes memory
	id string     // "" until the file was seen
}

// NewUsedKEKFile is the KEK of a file that need not be there yet, which is
// opened for each use. What is not there is of kind later. Its id is that of the
// first file that was seen there, "" before.
func NewUsedKEKFile(region, path string, passphrase func() (Secret, error)) (KEK, error) {
	if region == "" || path == "" || passphrase == nil {
		return nil, fault.New(fault.Invalid, "seal.NewUsedKEKFile", "a KEK file has a region, a path and a passphrase").WithHint("Name all three.")
	}
	return &usedFile{region: region, path: path, passphrase: passphrase}, nil
}

// ID is of KEK.
func (u *usedFile) ID() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.id == "" {
		if file, err := os.ReadFile(u.path); err == nil {
			u.see(file)
		}
	}
	return u.id
}

// see takes the id of a file that is one. The caller holds the lock.
func (u *usedFile) see(file []byte) {
	if f, err := parseKEK(file); err == nil && f.Region == u.region {
		u.id = f.ID
	}
}

// Describe is of KEK.
func (u *usedFile) Describe() Description {
	return Description{Driver: "file", ID: u.ID(), OnHost: true, Detail: "a file opened by a passphrase for each use, for trying out"}
}

// Wrap is of KEK.
func (u *usedFile) Wrap(ctx context.Context, clearKey Secret, associated []byte) ([]byte, error) {
	k, err := u.open("seal.Wrap")
	if err != nil {
		return nil, err
	}
	return k.Wrap(ctx, clearKey, associated)
}

// Unwrap is of KEK.
func (u *usedFile) Unwrap(ctx context.Context, blob, associated []byte) (Secret, error) {
	k, err := u.open("seal.Unwrap")
	if err != nil {
		return Secret{}, err
	}
	return k.Unwrap(ctx, blob, associated)
}

func (u *usedFile) open(op string) (KEK, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	file, err := os.ReadFile(u.path)
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Later, Op: op, Err: errors.New("its file is not there: " + err.Error())}).
			WithHint("Put " + u.path + " back.")
	}
	phrase, err := u.passphrase()
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Later, Op: op, Err: errors.New("its passphrase is not there: " + fault.Sentence(err))}).
			WithHint(cmp.Or(fault.HintOf(err), "Put the passphrase of "+u.path+" back."))
	}
	defer phrase.Wipe()
	k, err := OpenKEKFile(u.region, file, phrase)
	if err != nil {
		return nil, err
	}
	if u.id == "" {
		u.id = k.ID()
	}
	if k.ID() != u.id { // what was wrapped under the one would be said to be under the other
		return nil, fault.New(fault.Later, op, "the file holds the KEK "+k.ID()+", and "+u.id+" was there before").
			WithHint("Put the right file back, or start the keeper anew to change it.")
	}
	return k, nil
}
