// Package wire is what servers of a cluster say to each other: one Message for
// all kinds, a table of the kinds, and the codec. Nothing in it waits, and it
// trusts no byte that it decodes. Connections, credits and time are package
// peer's; what a message means is said by who sends it (replica, meta).
//
// A message is a header, a detail whose parts depend on the kind, and a
// payload: blocks of data or a body, never both.
//
//	+-----------+---------------------------------+------------------------+
//	| header 64 | detail: fields of the kind, CRC | payload: data, or body |
//	+-----------+---------------------------------+------------------------+
//	 <------ CRC32C in the header covers --------> <- CRCs in the detail ->
//
// The header (DESIGN J), all numbers little-endian:
//
//	 0  4  magic "ptl" and 0x1a
//	 4  1  version
//	 5  1  kind
//	 6  2  flags
//	 8  4  op: coordinator           the command that this is about (R12)
//	12  4  op: incarnation
//	16  8  op: number
//	24  8  ver of the link (R1)
//	32  8  vver of the virtual disk (R1)
//	40  8  chunk
//	48  4  payload, in bytes
//	52  2  detail, in bytes
//	54  6  sent: microseconds of the sender's clock, modulo 2^48 (R13)
//	60  4  CRC32C of the bytes before and of the detail
//
// The detail is a word of four small numbers, 8 bytes, followed by those fields
// that the kind's row in the table names, in this order:
//
//	+0  1  status   +1  1  excluded   +2  1  code   +3  1  0   +4  4  CRC32C of the body
//	key        8  family u32, node u32
//	link       8  gmap u32, position u32
//	span       8  from u32, to u32: bytes of the chunk
//	masks      8  bucket u16, mask u16, zeros u16, bad u16
//	stamp     16  ver u64, seq u64
//	committed 16  ver u64, seq u64
//	load      16  queue u32, 0 u32, avail u64
//	head       8  server u32, 0 u32
//	index      8
//	at         8  microseconds
//	sums     4*n  CRC32C of each piece of data: see Message.Pieces
//
// Bytes 0 to 3 and 48 to 63 keep their meaning in every version: they suffice to
// check the CRC, and only then is the version believed, so that a damaged version
// is damage and not a newer program.
//
// The checksums of data are made where data enter the cluster and travel with
// them from end to end: the receiver of a Write or a Replicate calls
// Message.Verify before it journals, and journals them with the data. A damaged
// header or body ends the connection, for nothing behind it can be trusted;
// damaged data fail their message only.
package wire
