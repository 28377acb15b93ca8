package main

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
)

// parseLogLine reads a line that newLog's logger of another process wrote.
func parseLogLine(line []byte) (level slog.Level, msg string, attrs []slog.Attr, ok bool) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return 0, "", nil, false
	}
	word, _ := fields[slog.LevelKey].(string)
	msg, isText := fields[slog.MessageKey].(string)
	if level.UnmarshalText([]byte(word)) != nil || !isText {
		return 0, "", nil, false
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch name {
		case slog.LevelKey, slog.MessageKey, slog.TimeKey, "keeper":
		default:
			attrs = append(attrs, slog.Any(name, fields[name]))
		}
	}
	return level, msg, attrs, true
}
