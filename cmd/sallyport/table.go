package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// table prints rows under a head, columns aligned.
type table struct {
	head []string
	rows [][]string
}

func newTable(head []string) *table { return &table{head: head} }

func (t *table) add(row []string) { t.rows = append(t.rows, row) }

func (t *table) write(w io.Writer) error {
	if len(t.rows) == 0 {
		_, err := io.WriteString(w, "none\n")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	io.WriteString(tw, strings.ToUpper(strings.Join(t.head, "\t"))+"\n")
	for _, r := range t.rows {
		io.WriteString(tw, strings.Join(r, "\t")+"\n")
	}
	return tw.Flush()
}

// when prints a time for people, "-" for none.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// dash prints "-" for nothing.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// cut shortens s for a table.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// plural is "3 more".
func plural(n int) string { return strconv.Itoa(n) + " more" }

// bytesFree prints a size for people.
func bytesFree(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
