package testpeer

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// clockTick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every
// Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// TreeCPU is the processor time of a process, of its children that were waited
// for, and the same of every running descendant (proc(5)).
func TreeCPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	used := map[int]time.Duration{}
	for _, file := range stats {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		parent, cpu := parseStat(raw)
		children[parent] = append(children[parent], id)
		used[id] = cpu
	}
	return sumTree(pid, children, used)
}

func sumTree(pid int, children map[int][]int, used map[int]time.Duration) time.Duration {
	sum := used[pid]
	for _, c := range children[pid] {
		sum += sumTree(c, children, used)
	}
	return sum
}

// parseStat reads the parent and utime, stime, cutime and cstime. Fields are
// counted behind the name, which may hold spaces, in brackets.
func parseStat(raw []byte) (parent int, cpu time.Duration) {
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return 0, 0
	}
	f := bytes.Fields(raw[end+1:])
	if len(f) < 15 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(string(f[1]))
	for _, field := range f[11:15] {
		ticks, _ := strconv.Atoi(string(field))
		cpu += time.Duration(ticks) * clockTick
	}
	return parent, cpu
}
