// Package fault is the one vocabulary of failure of this project.
//
// Every room returns errors of type [Error] for what a caller may want to
// tell apart. The [Kind] decides what the outside sees, and it is translated
// exactly once at each border: an SMTP reply in edge, an HTTP status and
// problem document in api, an exit code in the command line. It knows nothing
// of any of those borders.
//
// Callers: every room.
package fault
