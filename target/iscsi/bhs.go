package iscsi

import (
	"encoding/binary"

	"petal/target/serial"
)

// HeaderSize is the length of a Basic Header Segment.
const HeaderSize = 48

// BHS is a Basic Header Segment (section 11.2.1), big-endian:
//
//	byte     0               1               2               3
//	   0 |.|I| Opcode    |F|  Opcode-specific fields                     |
//	   4 |TotalAHSLength | DataSegmentLength                             |
//	   8 | LUN or Opcode-specific fields                                 |
//	  12 |                                                               |
//	  16 | Initiator Task Tag                                            |
//	  20 / Opcode-specific fields                                        /
//	  48
//
// The methods with Set write the field, the others read it. All are defined
// for any 48 bytes.
type BHS [HeaderSize]byte

var _ [48]byte = BHS{} // the size is the format

// Reset clears the header and sets its opcode.
func (h *BHS) Reset(op Opcode) {
	*h = BHS{byte(op)}
}

// Opcode is bits 0 to 5 of byte 0.
func (h *BHS) Opcode() Opcode { return Opcode(h[0] & 0x3f) }

// Immediate is the I bit: the request does not take part in CmdSN order.
func (h *BHS) Immediate() bool     { return h[0]&0x40 != 0 }
func (h *BHS) SetImmediate(v bool) { h.setBit(0, 0x40, v) }

// Final is the F bit. Login PDUs have their T bit there.
func (h *BHS) Final() bool     { return h[1]&0x80 != 0 }
func (h *BHS) SetFinal(v bool) { h.setBit(1, 0x80, v) }

// AHSLength is the length of all AHSs in bytes, 0 to MaxAHS.
func (h *BHS) AHSLength() int     { return int(h[4]) * 4 }
func (h *BHS) SetAHSLength(n int) { h[4] = byte(n / 4) }

// DataLength is DataSegmentLength in bytes, without padding, 0 to
// MaxDataSegmentField.
func (h *BHS) DataLength() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
func (h *BHS) SetDataLength(n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

// LUN is the 8-byte logical unit number (SAM-5, section 4.7).
func (h *BHS) LUN() uint64     { return binary.BigEndian.Uint64(h[8:]) }
func (h *BHS) SetLUN(v uint64) { binary.BigEndian.PutUint64(h[8:], v) }

// ITT is the Initiator Task Tag.
func (h *BHS) ITT() uint32     { return h.u32(16) }
func (h *BHS) SetITT(v uint32) { h.set32(16, v) }

func (h *BHS) u16(at int) uint16        { return binary.BigEndian.Uint16(h[at:]) }
func (h *BHS) u32(at int) uint32        { return binary.BigEndian.Uint32(h[at:]) }
func (h *BHS) set16(at int, v uint16)   { binary.BigEndian.PutUint16(h[at:], v) }
func (h *BHS) set32(at int, v uint32)   { binary.BigEndian.PutUint32(h[at:], v) }
func (h *BHS) bit(at int, m byte) bool  { return h[at]&m != 0 }
func (h *BHS) bits(at int, m byte) byte { return h[at] & m }
func (h *BHS) setBit(at int, m byte, v bool) {
	h[at] &^= m
	if v {
		h[at] |= m
	}
}
func (h *BHS) setBits(at int, m, v byte) { h[at] = h[at]&^m | v&m }

// Request is the part that the requests of an initiator have in common:
//
//	24 | CmdSN     |
//	28 | ExpStatSN |
//
// SCSI Data-Out and SNACK have no CmdSN.
type Request struct{ *BHS }

// CmdSN is the request's place in the session's order.
func (r Request) CmdSN() serial.CmdSN     { return serial.CmdSN(r.u32(24)) }
func (r Request) SetCmdSN(v serial.CmdSN) { r.set32(24, uint32(v)) }

// ExpStatSN acknowledges every response before it.
func (r Request) ExpStatSN() serial.StatSN     { return serial.StatSN(r.u32(28)) }
func (r Request) SetExpStatSN(v serial.StatSN) { r.set32(28, uint32(v)) }

// Response is the part that all PDUs of a target have in common:
//
//	24 | StatSN    |
//	28 | ExpCmdSN  |
//	32 | MaxCmdSN  |
type Response struct{ *BHS }

// StatSN numbers the response, or is the next number where the PDU carries no
// status.
func (r Response) StatSN() serial.StatSN     { return serial.StatSN(r.u32(24)) }
func (r Response) SetStatSN(v serial.StatSN) { r.set32(24, uint32(v)) }

// Window is ExpCmdSN and MaxCmdSN.
func (r Response) Window() serial.CmdWindow {
	return serial.CmdWindow{First: serial.CmdSN(r.u32(28)), Last: serial.CmdSN(r.u32(32))}
}
func (r Response) SetWindow(w serial.CmdWindow) {
	r.set32(28, uint32(w.First))
	r.set32(32, uint32(w.Last))
}

// The views. They are not checked against the opcode.

func (h *BHS) Request() Request               { return Request{h} }
func (h *BHS) Response() Response             { return Response{h} }
func (h *BHS) SCSICommand() SCSICommand       { return SCSICommand{Request{h}} }
func (h *BHS) SCSIResponse() SCSIResponse     { return SCSIResponse{Response{h}} }
func (h *BHS) DataOut() DataOut               { return DataOut{h} }
func (h *BHS) DataIn() DataIn                 { return DataIn{Response{h}} }
func (h *BHS) R2T() R2T                       { return R2T{Response{h}} }
func (h *BHS) TaskRequest() TaskRequest       { return TaskRequest{Request{h}} }
func (h *BHS) TaskResponse() TaskResponse     { return TaskResponse{Response{h}} }
func (h *BHS) LoginRequest() LoginRequest     { return LoginRequest{Request{h}} }
func (h *BHS) LoginResponse() LoginResponse   { return LoginResponse{Response{h}} }
func (h *BHS) TextRequest() TextRequest       { return TextRequest{Request{h}} }
func (h *BHS) TextResponse() TextResponse     { return TextResponse{Response{h}} }
func (h *BHS) NOPOut() NOPOut                 { return NOPOut{Request{h}} }
func (h *BHS) NOPIn() NOPIn                   { return NOPIn{Response{h}} }
func (h *BHS) LogoutRequest() LogoutRequest   { return LogoutRequest{Request{h}} }
func (h *BHS) LogoutResponse() LogoutResponse { return LogoutResponse{Response{h}} }
func (h *BHS) SNACK() SNACK                   { return SNACK{h} }
func (h *BHS) Reject() Reject                 { return Reject{Response{h}} }
func (h *BHS) AsyncMessage() AsyncMessage     { return AsyncMessage{Response{h}} }
