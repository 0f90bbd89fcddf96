// Package login is the target's side of the iSCSI login phase (RFC 7143,
// section 6) and of text negotiation in full feature phase, as machines without
// a socket, a clock or a goroutine: a request PDU goes in, a response PDU and a
// verdict come out. Who drives them owns the connection and the time limits.
//
//	                first request: names, version, session, admission
//	                         |
//	           CSG=0         |         CSG=1 (no authentication required)
//	        +----------------+----------------+
//	        v                                 v
//	+---------------+    T, NSG=1     +---------------+
//	|   security    |---------------->|  operational  |
//	| (auth.go)     |                 | (keys.go)     |
//	+---------------+                 +---------------+
//	        | T, NSG=3                        | T, NSG=3
//	        +----------------+----------------+
//	                         v
//	                       done      any state --> failed
//
// The login keys are rows of one table, in keys.go. Who may log in to what is
// not decided here but by an Authority; which sessions exist is known to
// Sessions.
package login
