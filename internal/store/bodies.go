package store

import (
	"context"
	"io"
)

// Bodies keeps message bodies, small ones as rows of the road, large ones as
// files (file and directory synced). Bodies are written once and never changed.
type Bodies struct { /* unexported */
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

// Body is a body being written: at most RowLimit bytes are in memory, what is
// more goes to a file as it comes.
type Body struct {
	// unexported
}

// New begins a body.
func (b *Bodies) New() *Body { panic("skeleton") }

// Write appends; kind later when the disk is full.
func (b *Body) Write(p []byte) (int, error) { panic("skeleton") }

// Head is the first bytes written, at most RowLimit of them; valid until the
// next Write.
func (b *Body) Head() []byte { panic("skeleton") }

// Size is the number of bytes written so far.
func (b *Body) Size() int64 { panic("skeleton") }

// Finish ends the body and gives it to tenants, one reference each, in their
// order. A file body is written and synced once, linked for each further
// tenant, and its directories are synced (concurrent bodies share those
// syncs) before Finish returns. No Write after it.
func (b *Body) Finish(ctx context.Context, tenants ...string) ([]BodyRef, error) { panic("skeleton") }

// Bytes is the whole body when it is small enough to be a row, else nil. The
// slice is never changed and stays valid after Discard.
func (b *Body) Bytes() []byte { panic("skeleton") }

// Discard forgets a body: its files too, unless a PutBody of it was
// committed. It is to be called in every case, after all is over.
func (b *Body) Discard() { panic("skeleton") }

// Open reads a tenant's body back. Kind missing when it is gone.
func (b *Bodies) Open(ctx context.Context, ref BodyRef) (io.ReadCloser, error) { panic("skeleton") }

// Read is Open and read all, for row bodies.
func (b *Bodies) Read(ctx context.Context, ref BodyRef) ([]byte, error) { panic("skeleton") }

// Sweep removes files that no row names, older than 24 h and seen so at two
// sweeps; it returns how many.
func (b *Bodies) Sweep(ctx context.Context) (int, error) { panic("skeleton") }
