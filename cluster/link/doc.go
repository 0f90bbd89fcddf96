// Package link is the replication protocol of one link: what one member does
// with writes, acknowledgements, configurations, leases and reconnections. It
// is a pure machine. An event goes in, effects come out; there is no goroutine,
// clock, disk, socket or randomness here, and nothing depends on map order.
// Package replica is the shell that has those; package explore runs the same
// machine through every order of events of small cases.
//
// A link has one, two or three members, of which the agreed configuration
// (placement.Config) names those in sync and one of them as head. The head
// numbers the writes of each bucket; all in sync keep them:
//
//	coordinator      head                              other members in sync
//	   | write        |                                     |
//	   |------------->| Admit: Take, stamp (ver, seq)       |
//	   |              | brick.Append; Appended ------------>| Accept: Take
//	   |              | :  Replicate(stamp, committed)      | brick.Append; Appended
//	   |              | Durable                             | :
//	   |              |<------------------------------ Ack -| Durable
//	   |<-------------| Commit: visible, answered (R2, R4)  |
//	   |              |- Committed, or on the next Replicate>| Commit: visible
//
// The rules of DESIGN A.1 and where they live here:
//
//	R1  stamp       every Msg carries ver; receive drops any other       message.go
//	R2  ack         mayCommit                                            questions.go
//	R3  order       Accept: only the next; resend after PeerUp           questions.go, replicate.go
//	R4  visibility  MayRead                                              questions.go
//	R5  lease       leased, StillMayRead, lapse                          lease.go
//	R7  solo        alone in sync: marks, then commits under a lease     open.go
//	R8  marks       excluded names who lacks a record                    questions.go
//	R9  rejoin      bucket by bucket                                     join.go, leave.go
//	R10 opening     the union of what is durable                         open.go
//	R11 index       SendRange asks the shell for it                      open.go
//	R14 witness     before a configuration opens                         machine.go
//
// R6, R12 and R13 and the use of leases for exclusion are not the link's: they
// belong to packages meta and replica.
package link
