package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Fault gives an error of a database its kind: missing for no rows, conflict
// for a unique violation, later for whatever time or an operator can mend. An
// error that has a kind already is left as it is. Rooms use it on what Scan
// and Rows.Err return.
func Fault(op string, err error) error {
	if err == nil {
		return nil
	}
	var have *fault.Error
	if errors.As(err, &have) {
		return err
	}
	kind := kindOf(err)
	e := &fault.Error{Kind: kind, Op: op, Err: err}
	if kind == fault.Later && isFull(err) {
		e.Hint = "Free space on the disk of the data directory."
	}
	return e
}

func kindOf(err error) fault.Kind {
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Missing
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return sqliteKind(lite.Code())
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return postgresKind(pg.Code)
	}
	if isFull(err) || isLost(err) {
		return fault.Later
	}
	return fault.Internal
}

func sqliteKind(code int) fault.Kind {
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.SQLITE_CONSTRAINT_CHECK:
		return fault.Invalid
	}
	switch code & 0xff {
	case sqlite3.SQLITE_CONSTRAINT:
		return fault.Conflict
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_PROTOCOL:
		return fault.Later
	case sqlite3.SQLITE_TOOBIG:
		return fault.Invalid
	}
	return fault.Internal
}

// postgresKind reads an SQLSTATE (PostgreSQL manual, appendix A).
func postgresKind(code string) fault.Kind {
	switch code {
	case "23505", "23503", "23P01":
		return fault.Conflict
	case "23502", "23514", "22001", "22021", "54000":
		return fault.Invalid
	case "55P03", "25006":
		return fault.Later
	}
	if len(code) < 2 {
		return fault.Internal
	}
	switch code[:2] {
	case "08", "40", "53", "57", "58":
		return fault.Later
	}
	return fault.Internal
}

// isFull is true of a full disk or a used-up quota.
func isFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code()&0xff == sqlite3.SQLITE_FULL
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "53100"
}

// isLost is true when the connection to the database, or the time given to
// it, has gone.
func isLost(err error) bool {
	var dial *pgconn.ConnectError
	var wire net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.EIO), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.EROFS),
		errors.As(err, &dial), errors.As(err, &wire):
		return true
	}
	return strings.Contains(err.Error(), "conn closed")
}

// isTurn is true when the same transaction may well succeed at once: a
// deadlock's victim, or a serialization failure.
func isTurn(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}
