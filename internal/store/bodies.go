package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Bodies keeps message bodies, small ones as rows of the road, large ones as
// files (file and directory synced). Bodies are written once and never changed.
type Bodies struct {
	road  *DB
	disk  *disk
	files *tree
	limit int
	now   func() time.Time
	crc   *crc32.Table
	fresh recent

	mu       sync.Mutex
	suspects map[string]bool // files that the last sweep saw without a row
	holds    int             // backups under way: nothing is unlinked
	held     []string
}

// BodyRef names one tenant's body. It is what rows carry. Nothing is read
// without naming the tenant: the tenant is part of the row's key and of the
// file's path.
type BodyRef struct {
	Tenant string
	ID     string // ULID
	Size   int64
	Sum    uint32 // CRC-32C of the bytes
	File   bool   // a file rather than a row
}

func newBodies(c Config, road *DB, d *disk) *Bodies {
	return &Bodies{
		road: road, disk: d, files: newTree(c.Dir), limit: c.RowLimit, now: c.Now,
		crc: crc32.MakeTable(crc32.Castagnoli), suspects: map[string]bool{},
	}
}

// newID makes a ULID; those of one millisecond are in no order.
func (b *Bodies) newID() string { return ulid.MustNew(ulid.Timestamp(b.now()), rand.Reader).String() }

// New begins a body.
func (b *Bodies) New() *Body { return &Body{bodies: b} }

// Open reads a tenant's body back. Kind missing when it is gone. What is read
// is checked against the reference's sum: a damaged body ends with an error of
// kind internal instead of io.EOF.
func (b *Bodies) Open(ctx context.Context, ref BodyRef) (io.ReadCloser, error) {
	if !ref.File {
		data, err := b.Read(ctx, ref)
		if err != nil {
			return nil, err
		}
		return rowReader{bytes.NewReader(data)}, nil
	}
	path, err := b.files.path(ref.Tenant, ref.ID)
	if err != nil {
		return nil, err
	}
	f, err := openBody(path)
	if err != nil {
		return nil, err
	}
	return &fileReader{f: f, ref: ref, table: b.crc}, nil
}

// openBody opens a body's file so that it is not written over before it is
// closed.
func openBody(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Missing, "store.Open", err)
	}
	if err != nil {
		return nil, Fault("store.Open", err)
	}
	if !lockAs(f, path, unix.LOCK_SH) {
		f.Close()
		return nil, fault.New(fault.Missing, "store.Open", "the body was dropped a moment ago")
	}
	return f, nil
}

// Read is Open and read all, for row bodies. The slice must not be changed.
func (b *Bodies) Read(ctx context.Context, ref BodyRef) ([]byte, error) {
	if ref.File {
		r, err := b.Open(ctx, ref)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if ref.Tenant == "" {
		return nil, noTenant()
	}
	if data, ok := b.fresh.get(ref.key()); ok {
		return data, nil
	}
	return b.readRow(ctx, ref)
}

// readRow reads a body from the database.
func (b *Bodies) readRow(ctx context.Context, ref BodyRef) ([]byte, error) {
	var data []byte
	if err := b.road.For(ref.Tenant).Get(ctx, selectBody, ref.ID).Scan(&data); err != nil {
		return nil, Fault("store.Read", err)
	}
	if int64(len(data)) != ref.Size || crc32.Checksum(data, b.crc) != ref.Sum {
		return nil, damaged(ref)
	}
	return data, nil
}

func damaged(ref BodyRef) error {
	return fault.New(fault.Internal, "store.Read", "the body "+ref.ID+" of "+ref.Tenant+" is damaged").
		WithHint("Run `sallyport doctor --verify` and restore from a backup.")
}

// rowReader is a row's body; it has WriteTo.
type rowReader struct{ *bytes.Reader }

func (rowReader) Close() error { return nil }

// fileReader sums up what it reads.
type fileReader struct {
	f     *os.File
	ref   BodyRef
	table *crc32.Table
	size  int64
	sum   uint32
}

// Read returns io.EOF only after the whole body was as it had been written.
func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.size += int64(n)
	r.sum = crc32.Update(r.sum, r.table, p[:n])
	if err == io.EOF && (r.size != r.ref.Size || r.sum != r.ref.Sum) {
		return n, damaged(r.ref)
	}
	if err != nil && err != io.EOF {
		return n, Fault("store.Read", err)
	}
	return n, err
}

// Close closes the file.
func (r *fileReader) Close() error { return r.f.Close() }

// PutBody makes the body durable with this transaction under a reference that
// its Finish gave: a small one is inserted as a row; a file has been synced
// already, and a row without data names it.
func (tx RoadTx) PutBody(b *Body, ref BodyRef) error {
	if !b.gave(ref) {
		return fault.New(fault.Internal, "store.PutBody", "the reference is not of this body's Finish")
	}
	var data []byte
	file := 1
	if !ref.File {
		data, file = b.head, 0
		if data == nil {
			data = []byte{}
		}
	}
	if _, err := tx.Exec(insertBody, ref.Tenant, ref.ID, ref.Size, int64(ref.Sum), file, data); err != nil {
		return err
	}
	tx.s.bytes += len(data)
	tx.s.after = append(tx.s.after, func(how outcome) {
		if ref.File {
			b.settled(ref, how)
		} else if how == committed {
			b.bodies.fresh.put(ref.key(), data)
		}
	})
	return nil
}

// DropBody removes a body in this transaction; a file is unlinked after the
// commit.
func (tx RoadTx) DropBody(ref BodyRef) error {
	if _, err := tx.s.exec(string(deleteBody), ref.Tenant, ref.ID); err != nil {
		return err
	}
	bodies := tx.s.db.store.Bodies
	if !ref.File {
		bodies.fresh.drop(ref.key())
		return nil
	}
	path, err := bodies.files.path(ref.Tenant, ref.ID)
	if err != nil {
		return err
	}
	tx.s.after = append(tx.s.after, func(how outcome) {
		if how == committed {
			bodies.unlink(path, ref.Size)
		}
	})
	return nil
}

// unlink takes a file's name away, or notes that it is to be removed after the
// backup that may still want it. A file that stays is found by the sweep.
func (b *Bodies) unlink(path string, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holds > 0 {
		b.held = append(b.held, path)
		return
	}
	b.files.spares.keep(path, size)
}

// hold keeps every file until release.
func (b *Bodies) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds++
}

func (b *Bodies) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holds--; b.holds > 0 {
		return
	}
	for _, path := range b.held {
		os.Remove(path)
	}
	b.held = nil
}
