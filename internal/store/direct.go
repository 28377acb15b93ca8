package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
)

// direct is a SQLite writer's prepared statements that return no rows. They go
// to the driver without database/sql between: the writer is one goroutine on a
// connection of its own, so the locks, the checks and the copies that a pool
// needs would be paid for ten times a message and protect nothing.
type direct struct {
	conn  driver.ConnPrepareContext
	stmts map[string]directStmt
	args  []driver.NamedValue // of the statement that runs
}

type directStmt struct {
	prepared driver.Stmt
	exec     driver.StmtExecContext // the same
	params   int
}

// newDirect takes the driver's connection out of conn, which must be used by
// nobody else until close.
func newDirect(conn *sql.Conn) (*direct, error) {
	d := &direct{stmts: map[string]directStmt{}}
	err := conn.Raw(func(c any) error {
		var ok bool
		if d.conn, ok = c.(driver.ConnPrepareContext); !ok {
			return fmt.Errorf("the driver's connection is a %T, which cannot prepare", c)
		}
		return nil
	})
	return d, err
}

// exec runs a statement and returns how many rows it changed.
func (d *direct) exec(ctx context.Context, q string, args []any) (int64, error) {
	st, err := d.stmt(ctx, q)
	if err != nil {
		return 0, err
	}
	if st.params != len(args) {
		return 0, fmt.Errorf("a statement with %d parameters was given %d: %s", st.params, len(args), q)
	}
	if err := d.bind(args); err != nil {
		return 0, err
	}
	r, err := st.exec.ExecContext(ctx, d.args)
	clear(d.args) // they would keep a body in memory
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (d *direct) stmt(ctx context.Context, q string) (directStmt, error) {
	if st, ok := d.stmts[q]; ok {
		return st, nil
	}
	text, params := unnumbered(q)
	prepared, err := d.conn.PrepareContext(ctx, text)
	if err != nil {
		return directStmt{}, err
	}
	exec, ok := prepared.(driver.StmtExecContext)
	if !ok {
		prepared.Close()
		return directStmt{}, fmt.Errorf("the driver's statement is a %T, which cannot be executed", prepared)
	}
	st := directStmt{prepared: prepared, exec: exec, params: params}
	d.stmts[q] = st
	return st, nil
}

// bind makes args what the driver takes.
func (d *direct) bind(args []any) error {
	d.args = d.args[:0]
	for i, arg := range args {
		switch v := arg.(type) {
		case string, []byte, int64, nil:
		case int:
			arg = int64(v)
		default:
			value, err := driver.DefaultParameterConverter.ConvertValue(arg)
			if err != nil {
				return err
			}
			arg = value
		}
		d.args = append(d.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return nil
}

func (d *direct) close() {
	for _, st := range d.stmts {
		st.prepared.Close()
	}
}

// unnumbered writes a statement's parameters as "?" when they are $1, $2, … in
// this order, each once, and counts them. To SQLite a numbered one has a name,
// and the driver asks for the name of each parameter each time.
func unnumbered(q string) (text string, params int) {
	parts := strings.Split(q, "$")
	ordered := true
	for i, part := range parts[1:] {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, _ := strconv.Atoi(digits)
		params = max(params, n)
		ordered = ordered && n == i+1
		parts[i+1] = part[len(digits):]
	}
	if !ordered {
		return q, params
	}
	return strings.Join(parts, "?"), params
}
