package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// session is a committer's own connection with its prepared statements. It is
// used by one goroutine at a time.
type session struct {
	db    *DB
	ctx   context.Context
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // of SQLite, that return rows
	lite  *direct              // of SQLite, that return none

	// What the change that runs now has done.
	wrote  bool            // it changed rows
	failed bool            // a statement of it failed; PostgreSQL then refuses the rest
	ended  bool            // a statement failed in a way that may end the transaction
	full   bool            // there was no space for something since the WAL was last looked at
	bytes  int             // what the whole batch has put in so far
	after  []func(outcome) // what its caller does once its fate is known
}

// outcome is how a transaction ended, as far as anyone can know.
type outcome int

const (
	rolledBack outcome = iota
	committed
	unknown // the connection or the disk failed during COMMIT
)

// ready connects when there is no connection.
func (s *session) ready() error {
	if s.conn != nil {
		return nil
	}
	conn, err := s.db.write.Conn(s.ctx)
	if err != nil {
		return err
	}
	if s.db.dialect == onSQLite {
		if s.lite, err = newDirect(conn); err != nil {
			conn.Close()
			return err
		}
	}
	s.conn = conn
	s.stmts = map[string]*sql.Stmt{}
	return nil
}

// drop gives the connection up; the next transaction gets a new one.
func (s *session) drop() {
	if s.conn == nil {
		return
	}
	for _, st := range s.stmts {
		st.Close()
	}
	if s.lite != nil {
		s.lite.close()
	}
	s.conn.Close()
	s.conn, s.stmts, s.lite = nil, nil, nil
}

// start forgets what the change before has done.
func (s *session) start() { s.wrote, s.failed, s.ended, s.after = false, false, false, nil }

// stmt returns the prepared statement for q. Statements are constants of the
// program, so there is a bounded number of them. pgx prepares by itself.
func (s *session) stmt(q string) (*sql.Stmt, error) {
	if st, ok := s.stmts[q]; ok {
		return st, nil
	}
	st, err := s.conn.PrepareContext(s.ctx, q)
	if err != nil {
		return nil, err
	}
	s.stmts[q] = st
	return st, nil
}

func (s *session) exec(q string, args ...any) (int64, error) {
	n, err := s.execRaw(q, args...)
	if err != nil {
		s.fail(err)
		return 0, Fault("store.Exec", err)
	}
	if n > 0 {
		s.wrote = true
	}
	return n, nil
}

func (s *session) fail(err error) {
	s.failed = true
	s.ended = s.ended || endsTransaction(err)
}

func (s *session) execRaw(q string, args ...any) (int64, error) {
	if s.lite != nil {
		return s.lite.exec(s.ctx, q, args)
	}
	r, err := s.conn.ExecContext(s.ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (s *session) query(q string, args ...any) (*sql.Rows, error) {
	s.noteQuery(q)
	var rows *sql.Rows
	var err error
	if s.db.dialect == onPostgres {
		rows, err = s.conn.QueryContext(s.ctx, q, args...)
	} else {
		var st *sql.Stmt
		if st, err = s.stmt(q); err == nil {
			rows, err = st.QueryContext(s.ctx, args...)
		}
	}
	if err != nil {
		s.fail(err)
		return nil, Fault("store.Query", err)
	}
	return rows, nil
}

func (s *session) queryRow(q string, args ...any) *sql.Row {
	s.noteQuery(q)
	if s.db.dialect != onPostgres {
		if st, err := s.stmt(q); err == nil {
			return st.QueryRowContext(s.ctx, args...)
		}
	}
	return s.conn.QueryRowContext(s.ctx, q, args...)
}

// noteQuery takes a query that is not a plain SELECT for a write (RETURNING).
func (s *session) noteQuery(q string) {
	if !strings.HasPrefix(strings.TrimLeft(q, " \n\t"), "SELECT") {
		s.wrote = true
	}
}

// begin opens a transaction. A connection that has died since its last use is
// replaced once.
func (s *session) begin() error {
	s.bytes = 0
	used := s.conn != nil
	err := s.ready()
	if err == nil {
		_, err = s.execRaw(s.db.dialect.begin())
	}
	if err == nil || !used {
		return err
	}
	s.drop()
	if err = s.ready(); err == nil {
		_, err = s.execRaw(s.db.dialect.begin())
	}
	return err
}

// rollback ends the transaction without effect; a connection that cannot even
// do that is given up.
func (s *session) rollback() {
	if s.conn == nil {
		return
	}
	if _, err := s.execRaw("ROLLBACK"); err != nil {
		s.drop()
	}
}

// leave ends the savepoint of a change that returned err.
func (s *session) leave(err error) error {
	if err != nil {
		if _, undo := s.execRaw("ROLLBACK TO SAVEPOINT change"); undo != nil {
			s.drop()
			return err
		}
	}
	if _, rel := s.execRaw("RELEASE SAVEPOINT change"); rel != nil {
		s.drop()
		return errors.Join(err, rel)
	}
	return err
}

// clean is true when a change that failed has left nothing in the
// transaction: SQLite takes back a statement that failed, PostgreSQL refuses
// all that follows it.
func (s *session) clean() bool {
	return !s.wrote && (s.db.dialect == onSQLite || !postgresFailed(s.conn))
}

// spoiled is true when a statement of the change failed. PostgreSQL would turn
// its COMMIT into a ROLLBACK without a word, and what a change that ignores
// that would do to SQLite must not differ.
func (s *session) spoiled() bool {
	return s.failed || (s.db.dialect == onPostgres && postgresFailed(s.conn))
}

// gone is true when the transaction is no more: the connection was lost, or
// SQLite has rolled all of it back by itself, as it may when the disk fails.
func (s *session) gone() bool {
	if s.conn == nil || s.ended {
		return true
	}
	return s.db.dialect == onPostgres && postgresClosed(s.conn)
}

// endsTransaction is true of the errors that may make SQLite roll back the
// whole transaction (https://sqlite.org/lang_transaction.html, section 3).
func endsTransaction(err error) bool {
	var lite *sqlite.Error
	if !errors.As(err, &lite) {
		return false
	}
	switch lite.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT:
		return true
	}
	return false
}
