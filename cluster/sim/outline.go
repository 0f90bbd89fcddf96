package sim

import (
	"encoding/binary"
	"fmt"
	"strings"

	"petal/cluster/wire"
	"petal/placement"
)

// outline is a message for the trace: its fields, and of its data which values
// the sectors hold.
func outline(m *wire.Message) string {
	if m.Kind.Class() == wire.ClassRaft {
		return fmt.Sprintf("%v %d bytes", m.Kind, len(m.Body))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v", m.Kind)
	add := func(show bool, format string, args ...any) {
		if show {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	add(m.Op.Number != 0, "op %d.%d.%d", m.Op.Coordinator, m.Op.Incarnation, m.Op.Number)
	add(m.Link.GMap != 0, "link %v ver %d", m.Link, m.Ver)
	add(m.Key.Family != 0, "chunk %d", m.Key.Chunk)
	add(m.Bucket != 0, "bucket %d", m.Bucket)
	add(m.To != 0, "bytes %d to %d", m.From, m.To)
	add(m.Mask != 0, "mask %#x", m.Mask)
	add(m.Zeros != 0, "zeros %#x", m.Zeros)
	add(m.Bad != 0, "bad %#x", m.Bad)
	add(m.Stamp != placement.Stamp{}, "stamp %v", m.Stamp)
	add(m.Committed != placement.Stamp{}, "committed %v", m.Committed)
	add(m.Excluded != 0, "excluded %b", m.Excluded)
	add(m.Flags != 0, "flags %#x", uint16(m.Flags))
	add(m.Code != 0, "code %d", m.Code)
	add(m.Head != 0, "head %d", m.Head)
	add(m.Status != wire.OK, "(%v)", m.Status)
	add(len(m.Body) > 0, "body %d bytes", len(m.Body))
	if len(m.Data) > 0 {
		b.WriteString(" holds")
	}
	last := uint64(1<<64 - 1)
	for i := range m.Data {
		for p := m.Data[i].Bytes(); len(p) >= sectorBytes; p = p[sectorBytes:] {
			if v := binary.LittleEndian.Uint64(p); v != last {
				fmt.Fprintf(&b, " %d@%d", v, binary.LittleEndian.Uint64(p[8:]))
				last = v
			}
		}
	}
	return b.String()
}
