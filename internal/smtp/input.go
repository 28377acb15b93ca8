package smtp

import (
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	// bufferSize holds a usual message whole, so that it costs one read.
	bufferSize = 32 << 10
	// stashLimit is the longest rest of a line that is moved out of a buffer
	// while its connection waits.
	stashLimit = 1 << 14
	// firstRead is what a TLS connection keeps for waiting between commands.
	firstRead = 1 << 10
)

type buffer [bufferSize]byte

func newBufferPool() *sync.Pool {
	return &sync.Pool{New: func() any { return new(buffer) }}
}

// input is what has been read from a connection and not yet understood. It
// holds a buffer only while there is something in it: a connection that waits
// holds none, so that a hundred thousand silent ones cost little. On a socket
// the buffer is taken after the kernel says that there are bytes; elsewhere
// (TLS, pipes) the wait happens on a small slice.
type input struct {
	nc    net.Conn
	raw   syscall.RawConn // nil where nc is not a bare socket
	pool  *sync.Pool
	buf   *buffer
	r, w  int
	stash []byte // what was in buf when the connection began to wait
	first []byte // for waiting where raw is nil
	bulk  bool   // content is expected: no small first reads
	try   func(fd uintptr) bool
	n     int // result of try
	err   error
}

// use reads from nc from now on and forgets whatever is buffered.
func (in *input) use(nc net.Conn) {
	in.drop()
	in.nc, in.raw = nc, nil
	if raw := rawConn(nc); raw != nil {
		in.raw = raw
		in.try = in.tryRead
	}
}

// data is what is buffered. It is valid until the next call of more.
func (in *input) data() []byte {
	if in.buf == nil {
		return in.stash
	}
	return in.buf[in.r:in.w]
}

// skip takes n bytes off the front of data.
func (in *input) skip(n int) {
	if in.buf == nil {
		in.stash = in.stash[:copy(in.stash, in.stash[n:])]
		return
	}
	in.r += n
}

// rest gives the buffer back when nothing is in it.
func (in *input) rest() {
	if in.buf != nil && in.r == in.w {
		in.drop()
	}
}

// drop forgets everything buffered.
func (in *input) drop() {
	if in.buf != nil {
		in.pool.Put(in.buf)
		in.buf = nil
	}
	in.r, in.w = 0, 0
	in.stash = in.stash[:0]
}

// more waits for bytes and appends them to data.
func (in *input) more() error {
	if in.raw != nil {
		if err := in.raw.Read(in.try); err != nil {
			return err
		}
		return in.take(in.n, in.err)
	}
	if in.buf == nil && !in.bulk {
		return in.moreSmall()
	}
	in.hold()
	if in.w == bufferSize {
		return errBufferFull
	}
	n, err := in.nc.Read(in.buf[in.w:])
	return in.take(n, err)
}

// moreSmall waits on the small slice and only then takes a buffer.
func (in *input) moreSmall() error {
	if in.first == nil {
		in.first = make([]byte, firstRead)
	}
	n, err := in.nc.Read(in.first)
	if n > 0 {
		in.hold()
		copy(in.buf[in.w:], in.first[:n])
	}
	return in.take(n, err)
}

// tryRead is called by the runtime when the socket may be readable.
func (in *input) tryRead(fd uintptr) bool {
	in.hold()
	if in.w == bufferSize {
		in.n, in.err = 0, errBufferFull
		return true
	}
	n, again, err := readSocket(fd, in.buf[in.w:])
	if again {
		in.park()
		return false
	}
	in.n, in.err = n, err
	if n == 0 && err == nil {
		in.err = io.EOF
	}
	return true
}

// take accounts for what a read brought. Bytes are used before an error that
// came with them is believed: it will come again. The end of a connection is
// never io.EOF here, which to the reader of a message would be its good end.
func (in *input) take(n int, err error) error {
	switch {
	case n > 0:
		in.w += n
		return nil
	case err == nil:
		return io.ErrNoProgress
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// hold makes sure that there is a buffer with room behind what is in it.
func (in *input) hold() {
	if in.buf == nil {
		in.buf = in.pool.Get().(*buffer)
		in.r, in.w = 0, copy(in.buf[:], in.stash)
		in.stash = in.stash[:0]
		return
	}
	if in.r > 0 {
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r = 0
	}
}

// park gives the buffer back for the time of a wait.
func (in *input) park() {
	if in.w-in.r > stashLimit {
		return
	}
	in.stash = append(in.stash[:0], in.buf[in.r:in.w]...)
	in.pool.Put(in.buf)
	in.buf, in.r, in.w = nil, 0, 0
}
