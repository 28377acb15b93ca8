package store

import (
	"bufio"
	"context"
	"hash/crc32"
	"os"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// fileBuffer joins small writes to a file body.
const fileBuffer = 32 << 10

// Body is a body being written: at most RowLimit bytes are in memory, what is
// more goes to a file as it comes (through a buffer of 32 KiB).
type Body struct {
	bodies *Bodies
	head   []byte // the first bytes, at most RowLimit
	size   int64
	sum    uint32
	err    error // a write that failed; nothing can follow it

	file *os.File
	buf  *bufio.Writer
	name string // where the file is until Finish

	mu   sync.Mutex
	refs []BodyRef
	kept map[string]bool // ids of files that rows may name
	over bool
}

// Write appends; kind later when the disk is full.
func (b *Body) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.refs != nil || b.over {
		return 0, fault.New(fault.Internal, "store.Write", "a body was written to after its end")
	}
	all := p
	if room := b.bodies.limit - len(b.head); room > 0 && b.file == nil {
		n := min(room, len(p))
		b.head = append(b.head, p[:n]...)
		p = p[n:]
	}
	if len(p) > 0 {
		if b.err = b.spill(p); b.err != nil {
			return 0, b.err
		}
	}
	b.size += int64(len(all))
	b.sum = crc32.Update(b.sum, b.bodies.crc, all)
	return len(all), nil
}

// spill writes what does not fit into memory, after what does.
func (b *Body) spill(p []byte) error {
	// Not every sender says how much will come, and the reserve is not for it.
	if err := b.bodies.disk.room(int64(len(p)), false); err != nil {
		return err
	}
	if b.file == nil {
		f, err := b.bodies.files.create(b.bodies.newID())
		if err != nil {
			return err
		}
		b.file, b.name = f, f.Name()
		b.buf = bufio.NewWriterSize(f, fileBuffer)
		if _, err := b.buf.Write(b.head); err != nil {
			return Fault("store.Write", err)
		}
	}
	_, err := b.buf.Write(p)
	return Fault("store.Write", err)
}

// Head is the first bytes written, at most RowLimit of them; valid until the
// next Write.
func (b *Body) Head() []byte { return b.head }

// Size is the number of bytes written so far.
func (b *Body) Size() int64 { return b.size }

// Bytes is the whole body when it is small enough to be a row, else nil. The
// slice is never changed and stays valid after Discard.
func (b *Body) Bytes() []byte {
	if b.file != nil {
		return nil
	}
	if b.head == nil {
		return []byte{}
	}
	return b.head
}

// Finish ends the body and gives it to tenants, one reference each, in their
// order. A file body is written and synced once, linked for each further
// tenant, and its directories are synced (concurrent bodies share those
// syncs) before Finish returns. No Write after it.
func (b *Body) Finish(ctx context.Context, tenants ...string) ([]BodyRef, error) {
	if err := b.mayFinish(ctx, tenants); err != nil {
		return nil, err
	}
	refs := make([]BodyRef, len(tenants))
	for i, tenant := range tenants {
		refs[i] = BodyRef{Tenant: tenant, ID: b.bodies.newID(), Size: b.size, Sum: b.sum, File: b.file != nil}
	}
	b.mu.Lock()
	b.refs = refs
	b.mu.Unlock()
	if b.file == nil {
		return refs, nil
	}
	if err := b.buf.Flush(); err != nil {
		b.err = Fault("store.Finish", err)
		return nil, b.err
	}
	if b.err = b.bodies.files.settle(b.file, refs); b.err != nil {
		return nil, b.err
	}
	b.buf = nil
	b.err = Fault("store.Finish", b.file.Close())
	return refs, b.err
}

func (b *Body) mayFinish(ctx context.Context, tenants []string) error {
	switch {
	case b.err != nil:
		return b.err
	case b.refs != nil || b.over:
		return fault.New(fault.Internal, "store.Finish", "a body was finished after its end")
	case len(tenants) == 0:
		return fault.New(fault.Invalid, "store.Finish", "a body was finished for nobody")
	}
	for _, tenant := range tenants {
		if tenant == "" {
			return noTenant()
		}
	}
	return fault.Wrap(fault.Later, "store.Finish", ctx.Err())
}

// gave is true of a reference of this body's Finish.
func (b *Body) gave(ref BodyRef) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, have := range b.refs {
		if have == ref && b.err == nil {
			return true
		}
	}
	return false
}

// settled hears how the transaction of a PutBody ended.
func (b *Body) settled(ref BodyRef, how outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if how == rolledBack {
		return
	}
	if b.kept == nil {
		b.kept = map[string]bool{}
	}
	b.kept[ref.ID] = true
}

// Discard forgets a body: its files too, unless a PutBody of it was
// committed, or may have been. It is to be called in every case, after all is
// over.
func (b *Body) Discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.over = true
	if b.file == nil {
		return
	}
	b.file.Close()
	if b.buf != nil {
		os.Remove(b.name)
	}
	for _, ref := range b.refs {
		if path, err := b.bodies.files.path(ref.Tenant, ref.ID); err == nil && !b.kept[ref.ID] {
			os.Remove(path)
		}
	}
}
