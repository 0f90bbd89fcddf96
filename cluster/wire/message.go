package wire

import (
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"

	"petal/cluster/cache"
	"petal/placement"
)

// Load tells who chooses where to read how busy a server is (DESIGN H).
type Load struct {
	Queue uint32 // operations at its disks
	Avail uint64 // bytes that it can still allocate
}

// Message is any message. Which fields a kind carries is in its row of the
// table: others are not sent, and read as zero on the other side.
//
// Who sends a message may reuse it at once: what is needed longer is copied
// (Body), or referred to (Data, whose memory must not change until it has been
// written). A received message is its receiver's until Receive returns; Data may
// be kept longer by Retain of its buffers.
type Message struct {
	Kind   Kind
	Flags  Flags
	Status Status
	Code   uint8 // its meaning is the kind's

	Op   placement.OpID // the command that this is about (R12)
	Ver  uint64         // of the link (R1); from a coordinator only a hint
	VVer uint64         // of the virtual disk (R1)
	Link placement.LinkID
	Key  placement.Key

	// From and To are bytes of the chunk, multiples of 512: [From, To). In a
	// Reply without data From may be any byte: see Miscompare.
	From, To uint32

	Bucket placement.Bucket
	Mask   placement.Mask // the blocks that it is about, or those that Data are of
	Zeros  placement.Mask // Reply, Fetched: blocks that read as zeros
	Bad    placement.Mask // Reply, Fetched: blocks that can't be had

	Stamp     placement.Stamp
	Committed placement.Stamp
	Excluded  placement.Members // members out of date that lack this record (R8)

	Load  Load
	Head  placement.Server // a hint where to go
	Index uint64           // raft's, or a count
	At    time.Duration    // a time of the receiver's own clock, given back; microseconds count

	// Sum[i] is the CRC32C of the i-th piece of Data: see Pieces.
	Sum  [placement.BlocksPerChunk]uint32
	Data cache.Refs
	Body []byte

	// Sent is the sender's clock when it was sent, in whole microseconds: of use
	// only in comparison with others of the same connection.
	Sent time.Duration
	// Age is how long the message was under way at most, as estimated on receipt
	// (R13). It is never too low. Not sent.
	Age time.Duration
	// Room is what the message occupies of the room that its receiver has
	// promised its sender: see Room. Not sent.
	Room Room
}

// Room is a part of what a connection's receiver has promised to take, in
// bytes. It goes back to the sender when Receive returns, unless the receiver
// keeps it: then by Return. So one who has more work than it can do slows down
// those who send it.
type Room struct {
	From  interface{ ReturnRoom(bytes int) }
	Bytes int
}

// Keep takes the message's room over; the caller owes one Return.
func (m *Message) Keep() Room {
	r := m.Room
	m.Room = Room{}
	return r
}

// Return gives the room back to the sender. From any goroutine.
func (r Room) Return() {
	if r.From != nil {
		r.From.ReturnRoom(r.Bytes)
	}
}

func (m *Message) String() string {
	return fmt.Sprintf("%v op %d.%d.%d link %v ver %d %v", m.Kind, m.Op.Coordinator, m.Op.Incarnation, m.Op.Number, m.Link, m.Ver, m.Status)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum returns the CRC32C of b, the checksum of all of petal's data.
func Sum(b []byte) uint32 { return crc32.Update(0, castagnoli, b) }

// SpanMask returns the blocks that bytes [from, to) of a chunk touch.
func SpanMask(from, to uint32) placement.Mask {
	if from >= to || to > placement.ChunkSize {
		return 0
	}
	first, last := from/placement.BlockSize, (to-1)/placement.BlockSize
	return placement.Span(int(first), int(last-first)+1)
}

// Pieces calls f with the length of each piece of the message's data, in order,
// and returns how many there are. A piece is what has a checksum of its own: the
// part of one block that the data hold. f may be nil.
//
//	Write              [From, To): one piece for each block that it touches
//	Reply              the same, but only blocks of Mask
//	CompareAndWrite    two pieces, To-From bytes each: expected, new
//	Replicate, Fetched each block of Mask, whole
func (m *Message) Pieces(f func(i, length int)) int {
	switch kinds[m.Kind].form {
	case formSpan:
		return m.spanPieces(SpanMask(m.From, m.To), f)
	case formReply:
		return m.spanPieces(SpanMask(m.From, m.To)&m.Mask, f)
	case formPair:
		for i := range 2 {
			if f != nil {
				f(i, int(m.To-m.From))
			}
		}
		return 2
	case formBlocks:
		if m.Flags&FlagZero != 0 {
			return 0
		}
		n := bits.OnesCount16(uint16(m.Mask))
		for i := 0; f != nil && i < n; i++ {
			f(i, placement.BlockSize)
		}
		return n
	}
	return 0
}

func (m *Message) spanPieces(mask placement.Mask, f func(i, length int)) int {
	n := bits.OnesCount16(uint16(mask))
	for i := 0; f != nil && mask != 0; i++ {
		block := uint32(bits.TrailingZeros16(uint16(mask)))
		mask &= mask - 1
		from, to := max(m.From, block*placement.BlockSize), min(m.To, (block+1)*placement.BlockSize)
		f(i, int(to-from))
	}
	return n
}

// DataLength is how many bytes of data the message has, as its fields say.
func (m *Message) DataLength() int {
	switch kinds[m.Kind].form {
	case formSpan:
		return int(m.To - m.From)
	case formPair:
		return 2 * int(m.To-m.From)
	case formReply, formBlocks:
		n := 0
		m.Pieces(func(_, length int) { n += length })
		return n
	}
	return 0
}

// Verify reports whether each piece of Data matches its Sum. Who receives data
// calls it before it trusts them: data come with a matching length, but nobody
// has looked at them on the way.
func (m *Message) Verify() bool {
	return m.eachSum(func(i int, sum uint32) bool { return m.Sum[i] == sum })
}

// SetSums computes Sum from Data.
func (m *Message) SetSums() {
	m.eachSum(func(i int, sum uint32) bool { m.Sum[i] = sum; return true })
}

// eachSum calls f with the checksum of each piece until it returns false.
func (m *Message) eachSum(f func(i int, sum uint32) bool) bool {
	good, ref, off := true, 0, 0
	m.Pieces(func(i, length int) {
		sum := uint32(0)
		for length > 0 && ref < len(m.Data) {
			b := m.Data[ref].Bytes()[off:]
			b = b[:min(len(b), length)]
			sum = crc32.Update(sum, castagnoli, b)
			length -= len(b)
			if off += len(b); off == m.Data[ref].Len {
				ref, off = ref+1, 0
			}
		}
		good = good && length == 0 && f(i, sum)
	})
	return good
}
