package brick

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"petal/placement"
)

// A map value says where the blocks of one chunk lie that were written at one
// node of the family's epoch tree. Little-endian; frozen.
//
//	 0  kind     u8   low 4 bits: valueKind; high 4 bits: format, 1
//	 1  extent   u40  of kindExtent; else 0
//	 6  valid    u16  blocks that are present here
//	 8  zero     u16  blocks that read as zeros and hide older nodes
//	10  missing  u16  blocks that this copy lacks; ask another
//	12  crc      u32 for each valid block, in order
//	    slot     u48 for each valid block, in order; kindFrags only: extent << 4 | block within it
//
// valid, zero and missing are disjoint. A block in none of them is found at the
// parent node, and reads as zeros where there is none.
const (
	valueFormat = 1
	valueFixed  = 12
	valueMax    = valueFixed + placement.BlocksPerChunk*4
	fragsMax    = 4 // most valid blocks of a kindFrags entry; 4*(4+6) < 16*4
)

type valueKind uint8

const (
	kindExtent valueKind = 1 // valid blocks lie at their own places in a 64 KiB extent
	kindFrags  valueKind = 2 // each valid block lies in a 4 KiB slot of a shared extent
	kindZero   valueKind = 3 // no valid blocks
	kindEC     valueKind = 4 // reserved: a shard of a parity stripe
)

// maxExtent is the greatest extent number: 40 bits, 64 PiB of extents.
const maxExtent = 1<<40 - 1

// slot is a 4 KiB place: extent << 4 | block within it.
type slot uint64

func (s slot) extent() uint64 { return uint64(s >> 4) }
func (s slot) offset() uint64 { return uint64(s) * placement.BlockSize }

// entry is a decoded map value. Sum and Slot are indexed by block of the chunk
// and mean something for valid blocks only.
type entry struct {
	Kind    valueKind
	Valid   placement.Mask
	Zero    placement.Mask
	Missing placement.Mask
	Extent  uint64
	Sum     [placement.BlocksPerChunk]uint32
	Slot    [placement.BlocksPerChunk]slot // kindFrags only
}

// place returns where valid block i lies.
func (e *entry) place(i int) slot {
	if e.Kind == kindFrags {
		return e.Slot[i]
	}
	return slot(e.Extent<<4 | uint64(i))
}

// empty reports that the entry says nothing that an absent one would not.
func (e *entry) empty() bool { return e.Valid|e.Zero|e.Missing == 0 }

// append encodes e behind b.
func (e *entry) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, byte(e.Kind)|valueFormat<<4)
	ext := uint64(0)
	if e.Kind == kindExtent {
		ext = e.Extent
	}
	b = le.AppendUint32(b, uint32(ext))
	b = append(b, byte(ext>>32))
	b = le.AppendUint16(b, uint16(e.Valid))
	b = le.AppendUint16(b, uint16(e.Zero))
	b = le.AppendUint16(b, uint16(e.Missing))
	for m := e.Valid; m != 0; m &= m - 1 {
		b = le.AppendUint32(b, e.Sum[bits.TrailingZeros16(uint16(m))])
	}
	if e.Kind == kindFrags {
		for m := e.Valid; m != 0; m &= m - 1 {
			s := uint64(e.Slot[bits.TrailingZeros16(uint16(m))])
			b = le.AppendUint32(b, uint32(s))
			b = le.AppendUint16(b, uint16(s>>32))
		}
	}
	return b
}

// parseEntry decodes a map value; ErrNewer or ErrRotten.
func parseEntry(b []byte, e *entry) error {
	if len(b) < valueFixed {
		return rotten("map value", "of %d bytes is shorter than %d", len(b), valueFixed)
	}
	le := binary.LittleEndian
	if f := b[0] >> 4; f != valueFormat {
		return newer("map value", int(f), valueFormat)
	}
	*e = entry{
		Kind:    valueKind(b[0] & 15),
		Extent:  uint64(le.Uint32(b[1:])) | uint64(b[5])<<32,
		Valid:   placement.Mask(le.Uint16(b[6:])),
		Zero:    placement.Mask(le.Uint16(b[8:])),
		Missing: placement.Mask(le.Uint16(b[10:])),
	}
	if err := e.check(len(b)); err != nil {
		return err
	}
	b = b[valueFixed:]
	for m := e.Valid; m != 0; m &= m - 1 {
		e.Sum[bits.TrailingZeros16(uint16(m))] = le.Uint32(b)
		b = b[4:]
	}
	if e.Kind == kindFrags {
		for m := e.Valid; m != 0; m &= m - 1 {
			s := uint64(le.Uint32(b)) | uint64(le.Uint16(b[4:]))<<32
			if s>>4 > maxExtent {
				return rotten("map value", "names slot %#x", s)
			}
			e.Slot[bits.TrailingZeros16(uint16(m))] = slot(s)
			b = b[6:]
		}
	}
	return nil
}

// check refuses a value of n bytes that no brick ever wrote.
func (e *entry) check(n int) error {
	if e.Valid&e.Zero|e.Valid&e.Missing|e.Zero&e.Missing != 0 {
		return rotten("map value", "has overlapping masks: valid %#x zero %#x missing %#x", e.Valid, e.Zero, e.Missing)
	}
	if e.empty() {
		return rotten("map value", "says nothing")
	}
	valid := bits.OnesCount16(uint16(e.Valid))
	want := valueFixed + 4*valid
	switch e.Kind {
	case kindExtent:
		if valid == 0 {
			return rotten("map value", "holds extent %d without a valid block", e.Extent)
		}
	case kindFrags:
		if valid == 0 || valid > fragsMax || e.Extent != 0 {
			return rotten("map value", "of frags has %d valid blocks and extent %d", valid, e.Extent)
		}
		want += 6 * valid
	case kindZero:
		if valid != 0 || e.Extent != 0 {
			return rotten("map value", "of zeros has %d valid blocks and extent %d", valid, e.Extent)
		}
	case kindEC:
		return newer("map value kind", int(e.Kind), int(kindZero))
	default:
		return rotten("map value", "has unknown kind %d", e.Kind)
	}
	if n != want {
		return rotten("map value", "has %d bytes, not %d", n, want)
	}
	return nil
}

// Keys of the map. Entries sort by family, then chunk, newest node first.
//
//	'd' | family u32 | chunk u64 | ^node u32     big-endian: a map value
//	'm' | name                                   one of the marks below
const (
	keyData = 'd'
	keyMark = 'm'
	keySize = 1 + 4 + 8 + 4
)

var keyApplied = []byte("mapplied") // u64: every record up to this LSN is wholly in the map

func appendKey(b []byte, k placement.Key) []byte {
	b = append(b, keyData)
	b = binary.BigEndian.AppendUint32(b, uint32(k.Family))
	b = binary.BigEndian.AppendUint64(b, uint64(k.Chunk))
	return binary.BigEndian.AppendUint32(b, ^uint32(k.Node))
}

func parseKey(b []byte) (k placement.Key, err error) {
	if len(b) != keySize || b[0] != keyData {
		return k, rotten("map key", "%x is none", b)
	}
	k.Family = placement.Family(binary.BigEndian.Uint32(b[1:]))
	k.Chunk = placement.Chunk(binary.BigEndian.Uint64(b[5:]))
	k.Node = placement.Node(^binary.BigEndian.Uint32(b[13:]))
	if k.Family == 0 || k.Node == 0 || k.Chunk > maxChunk {
		return k, rotten("map key", "names family %d node %d chunk %d", k.Family, k.Node, k.Chunk)
	}
	return k, nil
}

// familyBounds returns the keys of a family: from lo up to, not including, hi.
func familyBounds(f placement.Family) (lo, hi []byte) {
	lo = binary.BigEndian.AppendUint32([]byte{keyData}, uint32(f))
	hi = binary.BigEndian.AppendUint64([]byte{keyData}, uint64(f)+1)
	if uint64(f)+1 > 1<<32-1 {
		return lo, []byte{keyData + 1}
	}
	return lo, append([]byte{keyData}, hi[5:]...)
}

func (k valueKind) String() string {
	switch k {
	case kindExtent:
		return "extent"
	case kindFrags:
		return "frags"
	case kindZero:
		return "zero"
	case kindEC:
		return "ec"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}
