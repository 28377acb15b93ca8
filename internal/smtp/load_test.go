package smtp

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

func memoryInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// greeted connects and reads the greeting.
func greeted(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if line := readLine(t, nc); !strings.HasPrefix(line, "220 ") {
		t.Fatalf("greeted with %q", line)
	}
	return nc
}

// readLine reads a line byte by byte: nothing behind it is lost.
func readLine(t testing.TB, nc net.Conn) string {
	t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var line []byte
	var one [1]byte
	for {
		if _, err := nc.Read(one[:]); err != nil {
			return string(line) + " (" + err.Error() + ")"
		}
		if line = append(line, one[0]); one[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r\n")
		}
	}
}
