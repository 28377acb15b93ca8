// Package store keeps rows and bodies: it opens, migrates, and transacts for
// exactly one tenant.
//
// It is the only room that knows a database driver. Other rooms own their
// tables and their SQL, written once in the subset common to SQLite and
// PostgreSQL: placeholders $1…, times as bigint microseconds since 1970, no
// arrays, RETURNING and ON CONFLICT allowed. What they write are constants of
// the types [TenantSQL], [KeySQL], [RoadSQL], [OperatorSQL] and [KeeperSQL]; which of them a door
// takes is checked by the compiler, and what they may say is checked by a test
// (doors_sql_test.go, sql_rules_test.go) that reads every such constant of the
// tree:
//   - TenantSQL binds $1 to the door's tenant: a SELECT, UPDATE or DELETE has
//     "tenant = $1" in its WHERE, and so has each subselect; a table joined to
//     another is bound too; an INSERT gives $1 to the column tenant;
//   - KeySQL is a TenantSQL that reads one row by the primary key of its table;
//   - RoadSQL inserts rows, and reads and updates only queue columns, no
//     content;
//   - OperatorSQL reads across tenants and leaves an audit event;
//   - KeeperSQL speaks of the keeper's tables only, and no other of these does.
//
// The keeper's database ([OpenKeeper]) is apart from the gateway's: another
// place, another type, another door (docs/decisions/0008-keeper-database.md).
//
// It knows nothing of what a row or a body means. Migrations of every room lie
// in migrations/, whose README has the words in which the two databases
// differ.
//
// Invariants:
//   - a Change that returned nil is on disk (SQLite synchronous=FULL, WAL;
//     PostgreSQL synchronous_commit on), and so are the names that lead to it;
//   - a Change whose function failed leaves nothing, and its neighbours in the
//     same commit are not touched by it;
//   - a Change that could not be done for want of the database or of space has
//     an error of kind later; if the connection was lost during the commit
//     itself, the change may be there all the same;
//   - a body that a row refers to is on disk before the row is; its file is
//     removed, or written over by another body, only after the row's removal
//     is on disk, and never while it is being read;
//   - no statement can be executed without a door, no door opened without
//     naming a tenant, the road or a reason.
//
// Callers: every room that owns tables.
package store
