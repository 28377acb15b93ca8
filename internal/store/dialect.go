package store

// dialect is which of the two databases a DB talks to.
type dialect int

const (
	onSQLite dialect = iota
	onPostgres
)

// String returns goose's and our own word for it.
func (d dialect) String() string {
	if d == onPostgres {
		return "postgres"
	}
	return "sqlite"
}

// begin opens a transaction that holds SQLite's write lock from the start, so
// that no statement in it can meet a busy database.
func (d dialect) begin() string {
	if d == onPostgres {
		return "BEGIN"
	}
	return "BEGIN IMMEDIATE"
}
