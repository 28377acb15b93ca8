package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// relayCase is one comparison: smtp-source, a server, smtp-sink.
type relayCase struct {
	name     string
	size     int
	reuse    bool
	messages int
}

// measure is what one run gave.
type measure struct {
	rate float64       // messages a second, from the first sent to the last arrived
	cpu  time.Duration // of the server, a message
	rss  int64         // of the server, its highest so far, bytes; 0 when not measured
}

// TestBench compares relaying with Postfix as installed, both in the same run,
// in alternating pairs, and prints the table of docs/benchmarks.md.
func TestBench(t *testing.T) {
	if os.Getenv("SALLYPORT_BENCH") == "" {
		t.Skip("comparisons take minutes: `make bench`")
	}
	pairs := 5
	if n, err := strconv.Atoi(os.Getenv("SALLYPORT_BENCH_PAIRS")); err == nil {
		pairs = n
	}
	fmt.Printf("machine: %d cores, %s/%s, %s; %d pairs, medians (least to most)\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, cpuModel(), pairs)
	fmt.Println("| case | Sallyport /s | Postfix /s | ratio | Sallyport CPU ms | Postfix CPU ms | Sallyport RSS MiB |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, c := range []relayCase{
		{"10 KB, a connection each", 10_000, false, 4000},
		{"10 KB, connections reused", 10_000, true, 4000},
		{"100 KB, a connection each", 100_000, false, 1500},
	} {
		benchCase(t, c, pairs)
	}
}

func benchCase(t *testing.T, c relayCase, pairs int) {
	sink := startCountingSink(t)
	postfix := testpeer.StartPostfix(t, testpeer.PostfixConfig{RelayHost: sink.addr})
	p := newProcess(t, "")
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	ours := func() measure {
		m := relay(t, c, p.smtp, sink, func() time.Duration { return testpeer.TreeCPU(t, p.cmd.Process.Pid) })
		m.rss = highWater(t, p.cmd.Process.Pid)
		return m
	}
	theirs := func() measure { return relay(t, c, postfix.Addr, sink, func() time.Duration { return postfix.CPU(t) }) }
	ours() // each is warmed up once
	theirs()
	var a, b []measure
	for range pairs {
		a, b = append(a, ours()), append(b, theirs())
	}
	printRow(c, a, b)
	p.kill()
}

// printRow prints medians, the ratio pair by pair.
func printRow(c relayCase, a, b []measure) {
	var ratios, rates, other, cpu, otherCPU []float64
	var rss int64
	for i := range a {
		ratios = append(ratios, a[i].rate/b[i].rate)
		rates, other = append(rates, a[i].rate), append(other, b[i].rate)
		cpu = append(cpu, float64(a[i].cpu.Microseconds())/1000)
		otherCPU = append(otherCPU, float64(b[i].cpu.Microseconds())/1000)
		rss = max(rss, a[i].rss)
	}
	fmt.Printf("| %s | %s | %s | %s | %s | %s | %d |\n", c.name, spread(rates, 0), spread(other, 0), spread(ratios, 1), spread(cpu, 2), spread(otherCPU, 2), rss>>20)
}

// spread is "median (least to most)".
func spread(v []float64, digits int) string {
	slices.Sort(v)
	f := func(x float64) string { return strconv.FormatFloat(x, 'f', digits, 64) }
	return fmt.Sprintf("%s (%s to %s)", f(v[len(v)/2]), f(v[0]), f(v[len(v)-1]))
}

// relay sends a load and waits until the sink has all of it.
func relay(t *testing.T, c relayCase, server string, sink *countingSink, cpu func() time.Duration) measure {
	t.Helper()
	before, used := sink.count(), cpu()
	began := time.Now()
	testpeer.RunSource(t, server, testpeer.Load{Senders: 20, Messages: c.messages, Size: c.size, From: "a@example.org", To: "b@acme.test", Reuse: c.reuse})
	for deadline := time.Now().Add(5 * time.Minute); sink.count() < before+c.messages; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d of %d arrived", c.name, sink.count()-before, c.messages)
		}
	}
	took := time.Since(began)
	return measure{rate: float64(c.messages) / took.Seconds(), cpu: (cpu() - used) / time.Duration(c.messages)}
}

// countingSink is Postfix's smtp-sink with its counter (-c) read.
type countingSink struct {
	addr string
	mu   sync.Mutex
	n    int
}

func startCountingSink(t *testing.T) *countingSink {
	t.Helper()
	program := testpeer.Need(t, "postfix", "smtp-sink")[0]
	s := &countingSink{addr: freeAddresses(t, 1)[0]}
	cmd := exec.Command(program, "-u", "nobody", "-c", s.addr, "1024")
	if os.Getuid() != 0 {
		cmd = exec.Command(program, "-c", s.addr, "1024")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	go s.read(out)
	for deadline := time.Now().Add(10 * time.Second); !greets(s.addr); {
		if time.Now().After(deadline) {
			t.Fatal("smtp-sink does not greet")
		}
	}
	return s
}

// read follows the counters that smtp-sink prints over and over: sess=1
// quit=1 mesg=1.
func (s *countingSink) read(r io.Reader) {
	counter := regexp.MustCompile(`mesg=(\d+)`)
	buf := make([]byte, 0, 8192)
	chunk := make([]byte, 4096)
	for {
		n, err := r.Read(chunk)
		if err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
		if all := counter.FindAllSubmatch(buf, -1); len(all) > 0 {
			v, _ := strconv.Atoi(string(all[len(all)-1][1]))
			s.mu.Lock()
			s.n = max(s.n, v)
			s.mu.Unlock()
		}
		buf = buf[max(0, len(buf)-32):]
	}
}

func (s *countingSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// highWater is a process's largest resident size so far, in bytes.
func highWater(t testing.TB, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(raw)
	if m == nil {
		t.Fatal("no VmHWM")
	}
	kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kb << 10
}

// cpuModel names the processor.
func cpuModel() string {
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(raw), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "processor unknown"
}
