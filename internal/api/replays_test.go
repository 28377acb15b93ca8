package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// run enters one request and ends it with an answer of a size.
func (m *replays) run(key string, status, size int) (mine bool) {
	e, mine := m.begin(replayKey{key: key}, nil)
	if mine {
		rec := &recorder{head: http.Header{}}
		rec.WriteHeader(status)
		_, _ = rec.Write(make([]byte, size))
		m.end(e, rec, replayFor)
	}
	return mine
}

func TestReplaysAreBounded(t *testing.T) {
	m := newReplays(time.Now)
	for i := range replayEntries + 100 {
		m.run(fmt.Sprint(i), 200, 1)
	}
	if len(m.entries) != replayEntries || m.order.Len() != replayEntries || m.bytes != replayEntries {
		t.Errorf("%d entries, %d in order, %d bytes", len(m.entries), m.order.Len(), m.bytes)
	}
	if m.run(fmt.Sprint(replayEntries+99), 200, 1) || !m.run("0", 200, 1) {
		t.Error("not the oldest went")
	}
	for i := range 100 {
		m.run(fmt.Sprint("large", i), 200, 1<<20)
	}
	if m.bytes > replayBytes {
		t.Errorf("%d bytes", m.bytes)
	}
}

func TestReplaysEnd(t *testing.T) {
	now := time.Now()
	m := newReplays(func() time.Time { return now })
	m.run("a", 200, 7)
	now = now.Add(replayFor - time.Second)
	if m.run("a", 200, 7) {
		t.Error("it went too early")
	}
	now = now.Add(time.Second)
	if !m.run("a", 200, 7) || m.bytes != 7 || len(m.entries) != 1 {
		t.Errorf("it stayed too long: %d bytes, %d entries", m.bytes, len(m.entries))
	}
}

func TestReplaysForgetFailures(t *testing.T) {
	m := newReplays(time.Now)
	for _, status := range []int{400, 409, 500, 503} {
		if !m.run("a", status, 10) {
			t.Errorf("%d was stored", status)
		}
	}
	if m.bytes != 0 || len(m.entries) != 0 || m.order.Len() != 0 {
		t.Errorf("%d bytes, %d entries", m.bytes, len(m.entries))
	}
}

// TestRunningStays has more requests running than may be stored.
func TestRunningStays(t *testing.T) {
	m := newReplays(time.Now)
	first, _ := m.begin(replayKey{key: "running"}, nil)
	for i := range replayEntries + 10 {
		m.run(fmt.Sprint(i), 200, 1)
	}
	if e, mine := m.begin(replayKey{key: "running"}, nil); mine || e != first {
		t.Error("a running request was dropped")
	}
}
