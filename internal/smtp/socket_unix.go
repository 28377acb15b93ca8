//go:build unix

package smtp

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
)

// rawConn gives access to the descriptor of a TCP or Unix connection. Anything
// else, TLS above all, has bytes of its own between us and the descriptor.
func rawConn(nc net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch c := nc.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readSocket reads without waiting; again says that there is nothing yet.
func readSocket(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch err {
		case nil:
			return n, false, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, err
		}
	}
}

// isQuiet looks at an idle socket without reading from it and without waiting:
// it is open, and there is nothing to read.
func isQuiet(raw syscall.RawConn) bool {
	quiet := false
	var one [1]byte
	err := raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EINTR
		return true
	})
	return err == nil && quiet
}

// bindLate lets the kernel choose a source port when it knows the destination,
// so that a chosen source address does not limit us to one set of ports for all
// destinations together. Where it cannot be had, nothing is lost but that.
func bindLate(raw syscall.RawConn) error {
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT of Linux 4.2
	if runtime.GOOS != "linux" {
		return nil
	}
	return raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
	})
}

// isClosedByPeer reports a write that failed because the other side closed.
func isClosedByPeer(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe)
}

// writeLast writes p so that it leaves together with the end of the
// connection, which is to be closed next: one packet less for each connection.
// It returns how much of p was written, 0 where that cannot be had.
func writeLast(raw syscall.RawConn, p []byte) (n int) {
	const more = 0x8000 // MSG_MORE of Linux
	if runtime.GOOS != "linux" {
		return 0
	}
	err := raw.Write(func(fd uintptr) bool {
		n, _ = syscall.SendmsgN(int(fd), p, nil, nil, more)
		return true
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}
