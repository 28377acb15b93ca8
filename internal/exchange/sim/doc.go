// Package sim is a simulator of Microsoft 365 as a mail gateway meets it: the
// SMTP front of Exchange Online with its connectors and replies, a plain
// stand-in for the cmdlets that manage connectors, the Entra token endpoint,
// and the parts of Graph that manage an application's keys and read the logs.
//
// It is not Microsoft 365: it keeps no mail, only what arrived (recipient,
// Message-ID, size), has no mailboxes to read, no EWS, no users or groups.
// docs/simulator.md says of each behaviour which documented fact it follows
// and which are switches because the fact is not verified.
//
// Invariants:
//   - what it does not know it refuses with 501, counts and names ([Sim.Unknown]);
//     it never answers a request that it does not understand as if it did;
//   - every time it records or compares is Config.Now's: log delay, token life
//     and propagation need no waiting;
//   - a row of a log is written when the act happens and shown when its delay
//     is over, whatever has become of the act's credential since;
//   - an arrival is counted before its 250;
//   - one tenant's administrator or application reaches one tenant.
//
// With a directory it keeps its state there and survives being killed; a loss
// of power may cost the last changes.
//
// Callers: the command line (`sallyport sim m365`) and the suites of the rooms
// that talk to Microsoft 365.
package sim
