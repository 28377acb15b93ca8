package main

import "runtime/debug"

// The heap that lives is some 15 MiB, and each message leaves garbage of
// several times its size: collecting at twice the live heap, as Go does by
// itself, would spend a twentieth of the processor on it. The limit keeps the
// heap's size in check where a queue fills the windows; past it the collector
// works as often as it must.
const (
	garbagePercent = 400
	heapLimit      = 256 << 20
)

// tuneCollector sets how often garbage is collected, unless the environment
// (GOGC, GOMEMLIMIT) says so.
func tuneCollector(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit)
	}
}
