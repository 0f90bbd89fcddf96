// Package iscsi is the wire format of iSCSI (RFC 7143, with the additions of
// RFC 7144): PDUs, their headers, digests, text, and the Reader and Writer that
// frame them on a connection. It knows no state machine: what a PDU means, and
// whether it may come now, is the business of packages login and session.
//
// A PDU (section 11.1) is
//
//	byte 0    +------------------------------------------+
//	          | Basic Header Segment, 48 bytes           |  BHS and its views
//	48        +------------------------------------------+
//	          | Additional Header Segments (0..1020)     |  AHS
//	          +------------------------------------------+
//	          | Header-Digest, CRC32C (if negotiated)    |
//	          +------------------------------------------+
//	          | Data Segment (0..2^24-1), padded to 4    |
//	          +------------------------------------------+
//	          | Data-Digest, CRC32C (if negotiated, and  |
//	          | if there is data)                        |
//	          +------------------------------------------+
//
// A BHS is a sized view of 48 bytes. Its methods read and write the fields that
// all PDUs have; the kind of PDU is a view on the same bytes:
//
//	h, err := r.Next()
//	switch h.Opcode() {
//	case iscsi.OpSCSICommand:
//		c := h.SCSICommand()
//		c.CmdSN(), c.CDB(), ...
//
// Nothing in a header is trusted by this package beyond its framing: every
// length meets a bound of limits.go before memory is taken, and every other
// field is handed over as it came.
//
// An error's type is its blast radius: *ConnectionError means that the framing
// or the peer cannot be trusted any more and the connection has to be dropped,
// *RejectError that one PDU is refused and the connection goes on.
package iscsi
