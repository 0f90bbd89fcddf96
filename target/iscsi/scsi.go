package iscsi

import "petal/target/serial"

// SCSICommand is a SCSI Command PDU (section 11.3; priority RFC 7144, 5.1):
//
//	 0 |.|I| 0x01      |F|R|W|0 0|ATTR |0 0 0 0| PRI   | Reserved      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8)                                                       |
//	16 | Initiator Task Tag                                            |
//	20 | Expected Data Transfer Length                                 |
//	24 | CmdSN                                                         |
//	28 | ExpStatSN                                                     |
//	32 | CDB (16)                                                      |
type SCSICommand struct{ Request }

// Read and Write are the R and W bits: data is expected to come in, or go out.
func (c SCSICommand) Read() bool      { return c.bit(1, 0x40) }
func (c SCSICommand) SetRead(v bool)  { c.setBit(1, 0x40, v) }
func (c SCSICommand) Write() bool     { return c.bit(1, 0x20) }
func (c SCSICommand) SetWrite(v bool) { c.setBit(1, 0x20, v) }

// Attribute is the task attribute; 5 to 7 are reserved.
func (c SCSICommand) Attribute() TaskAttribute     { return TaskAttribute(c.bits(1, 7)) }
func (c SCSICommand) SetAttribute(v TaskAttribute) { c.setBits(1, 7, byte(v)) }

// Priority is the task priority of SAM-4, 0 none, else 1 (highest) to 15.
func (c SCSICommand) Priority() uint8     { return c.bits(2, 0x0f) }
func (c SCSICommand) SetPriority(v uint8) { c.setBits(2, 0x0f, v) }

// ExpectedLength is the Expected Data Transfer Length in bytes: of the write
// where W is set, else of the read.
func (c SCSICommand) ExpectedLength() uint32     { return c.u32(20) }
func (c SCSICommand) SetExpectedLength(v uint32) { c.set32(20, v) }

// CDB is the CDB's first 16 bytes, in place. The rest, if any, is in an AHS.
func (c SCSICommand) CDB() []byte { return c.BHS[32:48:48] }

// Residual says how the data that a command wanted to transfer compares with
// the length that the initiator expected (section 11.4.5).
type Residual struct {
	Overflow, Underflow bool   // O and U; not both
	Count               uint32 // bytes not transferred for it
}

// SCSIResponse is a SCSI Response PDU (section 11.4; qualifier RFC 7144, 5.2):
//
//	 0 |.|.| 0x21      |1|. .|o|u|O|U|.| Response      | Status        |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | Status Qualifier              | Reserved                      |
//	12 | Reserved                                                      |
//	16 | Initiator Task Tag                                            |
//	20 | SNACK Tag or Reserved                                         |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | ExpDataSN or Reserved                                         |
//	40 | Bidirectional Read Residual Count or Reserved                 |
//	44 | Residual Count or Reserved                                    |
//
// The data segment is SenseLength (2 bytes) and the sense data, or nothing.
type SCSIResponse struct{ Response }

// Code is the iSCSI service response. Status holds only if it is
// CommandCompleted.
func (r SCSIResponse) Code() ResponseCode     { return ResponseCode(r.BHS[2]) }
func (r SCSIResponse) SetCode(v ResponseCode) { r.BHS[2] = byte(v) }

// Status is the SCSI status (SAM-5, section 5.3.1).
func (r SCSIResponse) Status() uint8     { return r.BHS[3] }
func (r SCSIResponse) SetStatus(v uint8) { r.BHS[3] = v }

// StatusQualifier is SAM-4's status qualifier.
func (r SCSIResponse) StatusQualifier() uint16     { return r.u16(8) }
func (r SCSIResponse) SetStatusQualifier(v uint16) { r.set16(8, v) }

// ExpDataSN is the count of the R2T and Data-In PDUs that the command was sent.
func (r SCSIResponse) ExpDataSN() serial.DataSN     { return serial.DataSN(r.u32(36)) }
func (r SCSIResponse) SetExpDataSN(v serial.DataSN) { r.set32(36, uint32(v)) }

// Residual is that of the only transfer, or of the write of a bidirectional
// command.
func (r SCSIResponse) Residual() Residual { return residual(r.BHS, 0x04, 0x02, 44) }
func (r SCSIResponse) SetResidual(v Residual) {
	setResidual(r.BHS, 0x04, 0x02, 44, v)
}

// ReadResidual is that of the read of a bidirectional command.
func (r SCSIResponse) ReadResidual() Residual { return residual(r.BHS, 0x10, 0x08, 40) }
func (r SCSIResponse) SetReadResidual(v Residual) {
	setResidual(r.BHS, 0x10, 0x08, 40, v)
}

func residual(h *BHS, o, u byte, at int) Residual {
	return Residual{Overflow: h.bit(1, o), Underflow: h.bit(1, u), Count: h.u32(at)}
}

func setResidual(h *BHS, o, u byte, at int, v Residual) {
	h.setBit(1, o, v.Overflow)
	h.setBit(1, u, v.Underflow)
	h.set32(at, v.Count)
}

// DataOut is a SCSI Data-Out PDU (section 11.7.1):
//
//	 0 |.|.| 0x05      |F| Reserved                                    |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8)                                                       |
//	16 | Initiator Task Tag                                            |
//	20 | Target Transfer Tag, or 0xffffffff for unsolicited data       |
//	24 | Reserved                                                      |
//	28 | ExpStatSN                                                     |
//	32 | Reserved                                                      |
//	36 | DataSN                                                        |
//	40 | Buffer Offset                                                 |
//	44 | Reserved                                                      |
type DataOut struct{ *BHS }

func (d DataOut) TTT() uint32                  { return d.u32(20) }
func (d DataOut) SetTTT(v uint32)              { d.set32(20, v) }
func (d DataOut) ExpStatSN() serial.StatSN     { return serial.StatSN(d.u32(28)) }
func (d DataOut) SetExpStatSN(v serial.StatSN) { d.set32(28, uint32(v)) }
func (d DataOut) DataSN() serial.DataSN        { return serial.DataSN(d.u32(36)) }
func (d DataOut) SetDataSN(v serial.DataSN)    { d.set32(36, uint32(v)) }
func (d DataOut) BufferOffset() uint32         { return d.u32(40) }
func (d DataOut) SetBufferOffset(v uint32)     { d.set32(40, v) }

// DataIn is a SCSI Data-In PDU (section 11.7.2):
//
//	 0 |.|.| 0x25      |F|A|0 0 0|O|U|S| Reserved      | Status or Rsvd|
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8), only with A                                          |
//	16 | Initiator Task Tag                                            |
//	20 | Target Transfer Tag, only with A, else 0xffffffff             |
//	24 | StatSN or Reserved, ExpCmdSN, MaxCmdSN (12)                   |
//	36 | DataSN                                                        |
//	40 | Buffer Offset                                                 |
//	44 | Residual Count                                                |
type DataIn struct{ Response }

// Acknowledge is the A bit: the initiator is to send a DataACK SNACK. Not used
// with ErrorRecoveryLevel 0.
func (d DataIn) Acknowledge() bool     { return d.bit(1, 0x40) }
func (d DataIn) SetAcknowledge(v bool) { d.setBit(1, 0x40, v) }

// HasStatus is the S bit: Status, StatSN and Residual hold, and no SCSI
// Response follows.
func (d DataIn) HasStatus() bool     { return d.bit(1, 0x01) }
func (d DataIn) SetHasStatus(v bool) { d.setBit(1, 0x01, v) }

func (d DataIn) Status() uint8             { return d.BHS[3] }
func (d DataIn) SetStatus(v uint8)         { d.BHS[3] = v }
func (d DataIn) TTT() uint32               { return d.u32(20) }
func (d DataIn) SetTTT(v uint32)           { d.set32(20, v) }
func (d DataIn) DataSN() serial.DataSN     { return serial.DataSN(d.u32(36)) }
func (d DataIn) SetDataSN(v serial.DataSN) { d.set32(36, uint32(v)) }
func (d DataIn) BufferOffset() uint32      { return d.u32(40) }
func (d DataIn) SetBufferOffset(v uint32)  { d.set32(40, v) }
func (d DataIn) Residual() Residual        { return residual(d.BHS, 0x04, 0x02, 44) }
func (d DataIn) SetResidual(v Residual)    { setResidual(d.BHS, 0x04, 0x02, 44, v) }

// R2T is a Ready To Transfer PDU (section 11.8):
//
//	 0 |.|.| 0x31      |1| Reserved                                    |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8)                                                       |
//	16 | Initiator Task Tag                                            |
//	20 | Target Transfer Tag                                           |
//	24 | StatSN, ExpCmdSN, MaxCmdSN (12)                               |
//	36 | R2TSN                                                         |
//	40 | Buffer Offset                                                 |
//	44 | Desired Data Transfer Length                                  |
type R2T struct{ Response }

func (r R2T) TTT() uint32               { return r.u32(20) }
func (r R2T) SetTTT(v uint32)           { r.set32(20, v) }
func (r R2T) R2TSN() serial.R2TSN       { return serial.R2TSN(r.u32(36)) }
func (r R2T) SetR2TSN(v serial.R2TSN)   { r.set32(36, uint32(v)) }
func (r R2T) BufferOffset() uint32      { return r.u32(40) }
func (r R2T) SetBufferOffset(v uint32)  { r.set32(40, v) }
func (r R2T) DesiredLength() uint32     { return r.u32(44) }
func (r R2T) SetDesiredLength(v uint32) { r.set32(44, v) }

// SNACK is a SNACK Request (section 11.16):
//
//	 0 |.|.| 0x10      |1|.|.|.|Type   | Reserved                      |
//	 4 |TotalAHSLength | DataSegmentLength                             |
//	 8 | LUN (8) or Reserved                                           |
//	16 | Initiator Task Tag or 0xffffffff                              |
//	20 | Target Transfer Tag or SNACK Tag or 0xffffffff                |
//	24 | Reserved                                                      |
//	28 | ExpStatSN                                                     |
//	32 | Reserved (8)                                                  |
//	40 | BegRun                                                        |
//	44 | RunLength                                                     |
type SNACK struct{ *BHS }

func (s SNACK) Type() SNACKType              { return SNACKType(s.bits(1, 0x0f)) }
func (s SNACK) SetType(v SNACKType)          { s.setBits(1, 0x0f, byte(v)) }
func (s SNACK) TTT() uint32                  { return s.u32(20) }
func (s SNACK) SetTTT(v uint32)              { s.set32(20, v) }
func (s SNACK) ExpStatSN() serial.StatSN     { return serial.StatSN(s.u32(28)) }
func (s SNACK) SetExpStatSN(v serial.StatSN) { s.set32(28, uint32(v)) }
func (s SNACK) BegRun() uint32               { return s.u32(40) }
func (s SNACK) SetBegRun(v uint32)           { s.set32(40, v) }
func (s SNACK) RunLength() uint32            { return s.u32(44) }
func (s SNACK) SetRunLength(v uint32)        { s.set32(44, v) }
