package iscsi

import "petal/target/serial"

// TaskRequest is a Task Management Function Request (section 11.5):
//
//	 0 |.|I| 0x02      |1| Function    | Reserved                      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag                                            |
//	20 | Referenced Task Tag or 0xffffffff                             |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN                                                     |
//	32 | RefCmdSN or Reserved                                          |
//	36 | ExpDataSN or Reserved                                         |
//	40 | Reserved (8)                                                  |
type TaskRequest struct{ Request }

func (t TaskRequest) Function() TaskFunction       { return TaskFunction(t.bits(1, 0x7f)) }
func (t TaskRequest) SetFunction(v TaskFunction)   { t.setBits(1, 0x7f, byte(v)) }
func (t TaskRequest) RefITT() uint32               { return t.u32(20) }
func (t TaskRequest) SetRefITT(v uint32)           { t.set32(20, v) }
func (t TaskRequest) RefCmdSN() serial.CmdSN       { return serial.CmdSN(t.u32(32)) }
func (t TaskRequest) SetRefCmdSN(v serial.CmdSN)   { t.set32(32, uint32(v)) }
func (t TaskRequest) ExpDataSN() serial.DataSN     { return serial.DataSN(t.u32(36)) }
func (t TaskRequest) SetExpDataSN(v serial.DataSN) { t.set32(36, uint32(v)) }

// TaskResponse is a Task Management Function Response (section 11.6; response
// information RFC 7144, 4.2):
//
//	 0 |.|.| 0x22      |1| Reserved    | Response      | Reserved      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | Additional Response Information (3)           | Reserved (5)  |
//	16 | Initiator Task Tag                                            |
//	20 | Reserved                                                      |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | Reserved (12)                                                 |
type TaskResponse struct{ Response }

func (t TaskResponse) Code() TaskResponseCode     { return TaskResponseCode(t.BHS[2]) }
func (t TaskResponse) SetCode(v TaskResponseCode) { t.BHS[2] = byte(v) }

// TextRequest is a Text Request (section 11.10):
//
//	 0 |.|I| 0x04      |F|C| Reserved                                  |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag                                            |
//	20 | Target Transfer Tag or 0xffffffff                             |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN                                                     |
//	32 | Reserved (16)                                                 |
type TextRequest struct{ Request }

// Continue is the C bit: the text goes on in the next PDU.
func (t TextRequest) Continue() bool     { return t.bit(1, 0x40) }
func (t TextRequest) SetContinue(v bool) { t.setBit(1, 0x40, v) }
func (t TextRequest) TTT() uint32        { return t.u32(20) }
func (t TextRequest) SetTTT(v uint32)    { t.set32(20, v) }

// TextResponse is a Text Response (section 11.11):
//
//	 0 |.|.| 0x24      |F|C| Reserved                                  |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag                                            |
//	20 | Target Transfer Tag or 0xffffffff                             |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | Reserved (12)                                                 |
type TextResponse struct{ Response }

// Continue is the C bit: the text goes on in the next PDU.
func (t TextResponse) Continue() bool     { return t.bit(1, 0x40) }
func (t TextResponse) SetContinue(v bool) { t.setBit(1, 0x40, v) }
func (t TextResponse) TTT() uint32        { return t.u32(20) }
func (t TextResponse) SetTTT(v uint32)    { t.set32(20, v) }

// LoginRequest is a Login Request (section 11.12):
//
//	 0 |.|1| 0x03      |T|C|.|.|CSG|NSG| Version-max   | Version-min   |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | ISID (6)                                                      |
//	14                                 | TSIH                          |
//	16 | Initiator Task Tag                                            |
//	20 | CID                           | Reserved                      |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN or Reserved                                         |
//	32 | Reserved (16)                                                 |
type LoginRequest struct{ Request }

// Transit is the T bit: the initiator is ready to go to stage NSG.
func (l LoginRequest) Transit() bool         { return l.Final() }
func (l LoginRequest) SetTransit(v bool)     { l.SetFinal(v) }
func (l LoginRequest) Continue() bool        { return l.bit(1, 0x40) }
func (l LoginRequest) SetContinue(v bool)    { l.setBit(1, 0x40, v) }
func (l LoginRequest) CSG() Stage            { return Stage(l.bits(1, 0x0c) >> 2) }
func (l LoginRequest) SetCSG(v Stage)        { l.setBits(1, 0x0c, byte(v)<<2) }
func (l LoginRequest) NSG() Stage            { return Stage(l.bits(1, 0x03)) }
func (l LoginRequest) SetNSG(v Stage)        { l.setBits(1, 0x03, byte(v)) }
func (l LoginRequest) VersionMax() uint8     { return l.BHS[2] }
func (l LoginRequest) SetVersionMax(v uint8) { l.BHS[2] = v }
func (l LoginRequest) VersionMin() uint8     { return l.BHS[3] }
func (l LoginRequest) SetVersionMin(v uint8) { l.BHS[3] = v }
func (l LoginRequest) ISID() ISID            { return ISID(l.BHS[8:14]) }
func (l LoginRequest) SetISID(v ISID)        { copy(l.BHS[8:14], v[:]) }
func (l LoginRequest) TSIH() uint16          { return l.u16(14) }
func (l LoginRequest) SetTSIH(v uint16)      { l.set16(14, v) }
func (l LoginRequest) CID() uint16           { return l.u16(20) }
func (l LoginRequest) SetCID(v uint16)       { l.set16(20, v) }

// LoginResponse is a Login Response (section 11.13):
//
//	 0 |.|.| 0x23      |T|C|.|.|CSG|NSG| Version-max   | Version-active|
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | ISID (6)                                                      |
//	14                                 | TSIH                          |
//	16 | Initiator Task Tag                                            |
//	20 | Reserved                                                      |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | Status-Class  | Status-Detail | Reserved                      |
//	40 | Reserved (8)                                                  |
type LoginResponse struct{ Response }

// Transit is the T bit: the target goes to stage NSG.
func (l LoginResponse) Transit() bool            { return l.Final() }
func (l LoginResponse) SetTransit(v bool)        { l.SetFinal(v) }
func (l LoginResponse) Continue() bool           { return l.bit(1, 0x40) }
func (l LoginResponse) SetContinue(v bool)       { l.setBit(1, 0x40, v) }
func (l LoginResponse) CSG() Stage               { return Stage(l.bits(1, 0x0c) >> 2) }
func (l LoginResponse) SetCSG(v Stage)           { l.setBits(1, 0x0c, byte(v)<<2) }
func (l LoginResponse) NSG() Stage               { return Stage(l.bits(1, 0x03)) }
func (l LoginResponse) SetNSG(v Stage)           { l.setBits(1, 0x03, byte(v)) }
func (l LoginResponse) VersionMax() uint8        { return l.BHS[2] }
func (l LoginResponse) SetVersionMax(v uint8)    { l.BHS[2] = v }
func (l LoginResponse) VersionActive() uint8     { return l.BHS[3] }
func (l LoginResponse) SetVersionActive(v uint8) { l.BHS[3] = v }
func (l LoginResponse) ISID() ISID               { return ISID(l.BHS[8:14]) }
func (l LoginResponse) SetISID(v ISID)           { copy(l.BHS[8:14], v[:]) }
func (l LoginResponse) TSIH() uint16             { return l.u16(14) }
func (l LoginResponse) SetTSIH(v uint16)         { l.set16(14, v) }
func (l LoginResponse) Status() LoginStatus      { return LoginStatus(l.u16(36)) }
func (l LoginResponse) SetStatus(v LoginStatus)  { l.set16(36, uint16(v)) }

// LogoutRequest is a Logout Request (section 11.14):
//
//	 0 |.|I| 0x06      |1| Reason Code | Reserved                      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | Reserved (8)                                                  |
//	16 | Initiator Task Tag                                            |
//	20 | CID or Reserved               | Reserved                      |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN                                                     |
//	32 | Reserved (16)                                                 |
type LogoutRequest struct{ Request }

func (l LogoutRequest) Reason() LogoutReason     { return LogoutReason(l.bits(1, 0x7f)) }
func (l LogoutRequest) SetReason(v LogoutReason) { l.setBits(1, 0x7f, byte(v)) }
func (l LogoutRequest) CID() uint16              { return l.u16(20) }
func (l LogoutRequest) SetCID(v uint16)          { l.set16(20, v) }

// LogoutResponse is a Logout Response (section 11.15):
//
//	 0 |.|.| 0x26      |1| Reserved    | Response      | Reserved      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | Reserved (8)                                                  |
//	16 | Initiator Task Tag                                            |
//	20 | Reserved                                                      |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | Reserved                                                      |
//	40 | Time2Wait                     | Time2Retain                   |
//	44 | Reserved                                                      |
type LogoutResponse struct{ Response }

func (l LogoutResponse) Code() LogoutCode     { return LogoutCode(l.BHS[2]) }
func (l LogoutResponse) SetCode(v LogoutCode) { l.BHS[2] = byte(v) }

// Time2Wait and Time2Retain are seconds.
func (l LogoutResponse) Time2Wait() uint16       { return l.u16(40) }
func (l LogoutResponse) SetTime2Wait(v uint16)   { l.set16(40, v) }
func (l LogoutResponse) Time2Retain() uint16     { return l.u16(42) }
func (l LogoutResponse) SetTime2Retain(v uint16) { l.set16(42, v) }

// NOPOut is a NOP-Out PDU (section 11.18):
//
//	 0 |.|I| 0x00      |1| Reserved                                    |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag or 0xffffffff (no answer wanted)           |
//	20 | Target Transfer Tag or 0xffffffff                             |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN                                                     |
//	32 | Reserved (16)                                                 |
type NOPOut struct{ Request }

func (n NOPOut) TTT() uint32     { return n.u32(20) }
func (n NOPOut) SetTTT(v uint32) { n.set32(20, v) }

// NOPIn is a NOP-In PDU (section 11.19):
//
//	 0 |.|.| 0x20      |1| Reserved                                    |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag or 0xffffffff                              |
//	20 | Target Transfer Tag or 0xffffffff (no answer wanted)          |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | Reserved (12)                                                 |
type NOPIn struct{ Response }

func (n NOPIn) TTT() uint32     { return n.u32(20) }
func (n NOPIn) SetTTT(v uint32) { n.set32(20, v) }

// Reject is a Reject PDU (section 11.17). Its data segment is the header of
// the rejected PDU.
//
//	 0 |.|.| 0x3f      |1| Reserved    | Reason        | Reserved      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | Reserved (8)                                                  |
//	16 | 0xffffffff                                                    |
//	20 | Reserved                                                      |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | DataSN/R2TSN or Reserved                                      |
//	40 | Reserved (8)                                                  |
type Reject struct{ Response }

func (r Reject) Reason() RejectReason      { return RejectReason(r.BHS[2]) }
func (r Reject) SetReason(v RejectReason)  { r.BHS[2] = byte(v) }
func (r Reject) DataSN() serial.DataSN     { return serial.DataSN(r.u32(36)) }
func (r Reject) SetDataSN(v serial.DataSN) { r.set32(36, uint32(v)) }

// AsyncMessage is an Asynchronous Message (section 11.9):
//
//	 0 |.|.| 0x32      |1| Reserved                                    |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | 0xffffffff                                                    |
//	20 | Reserved                                                      |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | AsyncEvent    | AsyncVCode    | Parameter1 or Reserved        |
//	40 | Parameter2 or Reserved        | Parameter3 or Reserved        |
//	44 | Reserved                                                      |
type AsyncMessage struct{ Response }

func (a AsyncMessage) Event() AsyncEvent     { return AsyncEvent(a.BHS[36]) }
func (a AsyncMessage) SetEvent(v AsyncEvent) { a.BHS[36] = byte(v) }

// Parameters depend on the event; times among them are seconds.
func (a AsyncMessage) Parameters() (p1, p2, p3 uint16) { return a.u16(38), a.u16(40), a.u16(42) }
func (a AsyncMessage) SetParameters(p1, p2, p3 uint16) {
	a.set16(38, p1)
	a.set16(40, p2)
	a.set16(42, p3)
}
