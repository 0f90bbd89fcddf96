// Package peer connects the servers of a cluster: four TCP connections for each
// pair, mutual TLS, frames in and out, credits, and word of who is there. It is a
// shell: it owns goroutines, sockets and timers, and knows nothing of links,
// bricks or raft. What messages mean is their handler's business.
//
//	               Send (never waits)
//	                     |
//	queue --> writer ----+---- connection ----> reader --> Handler.Receive
//	(bounded)  writev, or one copy into TLS       4 KiB: from the buffer
//	           whatever is queued goes            64 KiB: straight into slab memory
//
// The higher id dials. Ids grow with time, so a newcomer dials those whose
// addresses it got when it joined, and nobody has to know an address to be
// reached: not even one who was away while the cluster changed around it.
// One side only, because then sessions have one numbering and two that dial at
// once need no rule for which of them wins.
//
// Connections of a pair come in two bundles, of which each is up as a whole or
// not at all:
//
//	data   replicate, request, background   Handler.Up and Down tell of it
//	raft   raft                             best effort, tells nothing
//
// Raft and leases stay apart because they have to live on when data are stuck: a
// broken or jammed data connection must cost a link one of its members, not a
// server its lease. The data classes fall together, because then all that was in
// flight between two servers is lost at one moment that both are told.
//
//	        Hello (higher session)               all three Ready
//	idle ------------------------> forming ------------------------> up
//	  ^                               | timeout, any loss             | any loss
//	  |       goroutines have ended;  v                               v
//	  '------ Down, if it was up --- closing <------------------------'
//
// A bundle leaves closing only when every message it delivered has been handled
// (Receive returned), and a Hello of a new session or incarnation waits for
// that: so nothing of a peer's earlier life is handled after its new life has
// begun (R13). A Hello names cluster, both servers, incarnation and session (R1);
// with TLS the certificate has to name the same cluster and server.
//
// Order is kept per class while a bundle is up. Nothing is lost silently: a
// message that Send took is delivered, or Down is told. A peer that lets so much
// pile up that the queue is full is cut off for that reason.
//
// Connections are not rekeyed: package crypto/tls answers a key update, but offers
// none. RFC 8446 section 5.5 puts the margin of AES-GCM at 2^-57 after 388 GB
// under one key; it shrinks with the square, to about 2^-40 after 100 TB.
//
// Age (R13). Each side pings, and a Pong gives back the ping's time t0 and the
// other's time r, which is later than t0: so t0 - r is a lower bound of the
// difference between the two clocks, and the greatest of those seen, lowered by
// 2 % of the time gone by since for what clocks drift, is the tightest. It makes
// Message.Age an upper bound: a message is never taken for younger than it is.
// The smallest one-way delay seen would be as cheap, but is wrong for as long as
// every message is late.
package peer
