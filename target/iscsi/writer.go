package iscsi

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// Writer collects PDUs and sends them with as few system calls as can be. It
// copies headers; data is not copied but referred to, and must not change until
// it has been sent: see Appended and Sent.
//
//	vectors   [hdr|ahs|hdgst][data 0][data 1][pad|ddgst|hdr][data]...
//	             arena          caller's         arena       caller's
//
// In steady state a Writer allocates nothing. It is not safe for concurrent
// use. The zero Writer is ready for use.
type Writer struct {
	// HeaderDigest and DataDigest say that PDUs get these digests. They may be
	// changed between PDUs.
	HeaderDigest, DataDigest bool

	// Spoil is for tests of the other side: the next PDU gets this wrong.
	Spoil Fault

	vectors  [][]byte    // appended and not sent, from first on
	first    int         // vectors before it have been sent
	joinable bool        // the last vector ends where the arena goes on
	out      net.Buffers // vectors while they are being sent
	one      [1][]byte

	arena [][]byte // blocks of arenaBlock
	block int      // the one in use
	used  int      // bytes of it

	appended, sent uint64
}

// Fault is something a Writer can be told to do wrong.
type Fault uint8

// The faults of a Writer.
const (
	SpoilHeaderDigest Fault = 1 << iota
	SpoilDataDigest
)

const (
	arenaBlock = 4 << 10
	arenaKeep  = 64 // blocks kept after a flush
)

// Append adds a PDU. The header is copied, and gets its lengths from ahs (a
// multiple of 4 bytes) and data; ahs is copied, data is not. It panics on
// lengths that the header cannot express.
func (w *Writer) Append(h *BHS, ahs []byte, data [][]byte) {
	length := 0
	for _, d := range data {
		length += len(d)
	}
	if length > MaxDataSegmentField || len(ahs) > MaxAHS || len(ahs)&3 != 0 {
		panic(fmt.Sprintf("iscsi: %v with %d bytes of AHS and %d of data", h.Opcode(), len(ahs), length))
	}
	w.appendHeader(h, ahs, length)
	if length == 0 {
		return
	}
	for _, d := range data {
		if len(d) > 0 {
			w.vectors = append(w.vectors, d)
			w.joinable = false
		}
	}
	w.appended += uint64(length)
	w.appendTrailer(data, length)
	w.Spoil = 0
}

// AppendBytes is Append with data in one piece, or nil.
func (w *Writer) AppendBytes(h *BHS, data []byte) {
	w.one[0] = data
	w.Append(h, nil, w.one[:])
	w.one[0] = nil
}

// AppendRaw adds bytes as they are, which are not copied. It is for tests of
// the other side.
func (w *Writer) AppendRaw(b []byte) {
	w.vectors = append(w.vectors, b)
	w.joinable = false
	w.appended += uint64(len(b))
}

func (w *Writer) appendHeader(h *BHS, ahs []byte, length int) {
	n := HeaderSize + len(ahs)
	size := n
	if w.HeaderDigest {
		size += digestSize
	}
	b := w.alloc(size)
	c := (*BHS)(b)
	*c = *h
	c.SetAHSLength(len(ahs))
	c.SetDataLength(length)
	copy(b[HeaderSize:], ahs)
	if w.HeaderDigest {
		crc := crcUpdate(0, b[:n])
		if w.Spoil&SpoilHeaderDigest != 0 {
			crc++
		}
		binary.LittleEndian.PutUint32(b[n:], crc)
	}
}

// appendTrailer adds padding and data digest.
func (w *Writer) appendTrailer(data [][]byte, length int) {
	p := pad(length)
	size := p
	if w.DataDigest {
		size += digestSize
	}
	if size == 0 {
		return
	}
	b := w.alloc(size)
	copy(b, zeros[:p])
	if !w.DataDigest {
		return
	}
	crc := uint32(0)
	for _, d := range data {
		crc = crcUpdate(crc, d)
	}
	crc = crcUpdate(crc, zeros[:p])
	if w.Spoil&SpoilDataDigest != 0 {
		crc++
	}
	binary.LittleEndian.PutUint32(b[p:], crc)
}

// alloc adds n bytes of the arena to the vectors and returns them, uncleared.
func (w *Writer) alloc(n int) []byte {
	if len(w.arena) == 0 || w.used+n > arenaBlock {
		w.nextBlock()
	}
	b := w.arena[w.block][w.used : w.used+n]
	w.used += n
	w.appended += uint64(n)
	if w.joinable {
		last := &w.vectors[len(w.vectors)-1]
		*last = (*last)[:len(*last)+n]
		return b
	}
	w.vectors = append(w.vectors, b)
	w.joinable = true
	return b
}

func (w *Writer) nextBlock() {
	if w.used > 0 {
		w.block++
	}
	if w.block == len(w.arena) {
		w.arena = append(w.arena, make([]byte, arenaBlock))
	}
	w.used, w.joinable = 0, false
}

// Pending is how many bytes have been appended and not been sent.
func (w *Writer) Pending() int { return int(w.appended - w.sent) }

// Appended and Sent count the bytes of the stream. Data that was appended when
// Appended was n may be reused once Sent is at least n.
func (w *Writer) Appended() uint64 { return w.appended }

// Sent counts the bytes that the connection has taken: see Appended.
func (w *Writer) Sent() uint64 { return w.sent }

// Flush sends all that is pending. It uses writev(2) if conn is one of package
// net's connections. After an error the Writer is of no more use.
func (w *Writer) Flush(conn io.Writer) error {
	if w.Pending() == 0 {
		return nil
	}
	w.out = w.vectors[w.first:]
	n, err := w.out.WriteTo(conn)
	w.out = nil
	w.sent += uint64(n)
	if err != nil {
		return err
	}
	w.reset()
	return nil
}

// reset makes the memory free again; all has been sent.
func (w *Writer) reset() {
	clear(w.vectors)
	w.vectors = w.vectors[:0]
	w.first, w.block, w.used, w.joinable = 0, 0, 0, false
	if len(w.arena) > arenaKeep {
		clear(w.arena[arenaKeep:])
		w.arena = w.arena[:arenaKeep]
	}
}
