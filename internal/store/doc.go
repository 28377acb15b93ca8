// Package store keeps rows and bodies: it opens, migrates, and transacts for
// exactly one tenant.
//
// It is the only room that knows a database driver. Other rooms own their
// tables and their SQL, written once in the subset common to SQLite and
// PostgreSQL: placeholders $1…, times as bigint microseconds since 1970, no
// arrays, RETURNING and ON CONFLICT allowed. What they write are constants of
// the types [TenantSQL], [RoadSQL] and [OperatorSQL]; which of them a door
// takes is checked by the compiler, and what they may say is checked by a test
// that reads every such constant of the tree:
//   - TenantSQL binds $1 to the door's tenant: a SELECT, UPDATE or DELETE has
//     "tenant = $1" in its WHERE, an INSERT gives $1 to the column tenant;
//   - RoadSQL inserts rows, and reads and updates only queue columns, no
//     content;
//   - OperatorSQL reads across tenants and leaves an audit event.
//
// Invariants:
//   - a Change that returned nil is on disk (SQLite synchronous=FULL, WAL;
//     PostgreSQL synchronous_commit on);
//   - a Change whose function failed leaves nothing, and its neighbours in the
//     same commit are not touched by it;
//   - a body that a row refers to is on disk before the row is;
//   - no statement can be executed without a door, no door opened without
//     naming a tenant, the road or a reason.
//
// Callers: every room that owns tables.
package store
