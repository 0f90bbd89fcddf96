package brick

import (
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// DoneOp names an operation that took effect at a link.
type DoneOp struct {
	Link LinkID
	Op   OpID
}

// doneOps are the operations of the records that came home lately. An operation
// may be sent again for some seconds (R12, R13), also after a crash of everybody
// who remembers it, and by then its record may have left the journal. So each
// flush of the map, after which the journal is trimmed, writes them down:
//
//	"mdone-ops" -> count of { gmap u32, position u32, coordinator u32, incarnation u32, number u64 }, little-endian
//
// Only the destager uses it.
type doneOps struct {
	list  []homeOp // oldest first
	saved bool     // the map has some
	keep  time.Duration
}

type homeOp struct {
	DoneOp
	at int64 // when it came home, nanoseconds of Options.Now
}

const (
	// doneOpsFor is how long an operation may be sent again, unless the owner says
	// that it is longer.
	doneOpsFor  = 10 * time.Second
	doneOpsMax  = 1 << 18
	doneOpBytes = 24
)

var keyDoneOps = []byte("mdone-ops")

// add notes the operations of records that have come home.
func (d *doneOps) add(done []*pend, now int64) {
	for _, p := range done {
		if p.typ.ordered() && p.op.Number != 0 && p.last != nil {
			d.list = append(d.list, homeOp{DoneOp{p.last.link, p.op}, now})
		}
	}
	d.forget(now)
}

func (d *doneOps) forget(now int64) {
	n := max(0, len(d.list)-doneOpsMax)
	for n < len(d.list) && now-d.list[n].at > d.keep.Nanoseconds() {
		n++
	}
	d.list = d.list[n:]
}

// save has a batch write them down.
func (d *doneOps) save(batch *pebble.Batch, now int64) error {
	d.forget(now)
	if len(d.list) == 0 {
		if !d.saved {
			return nil
		}
		d.saved = false
		return batch.Delete(keyDoneOps, nil)
	}
	d.saved = true
	le, v := binary.LittleEndian, make([]byte, 0, doneOpBytes*len(d.list))
	for i := range d.list {
		x := &d.list[i]
		v = le.AppendUint32(le.AppendUint32(v, x.Link.GMap), x.Link.Position)
		v = le.AppendUint32(le.AppendUint32(v, x.Op.Coordinator), x.Op.Incarnation)
		v = le.AppendUint64(v, x.Op.Number)
	}
	return batch.Set(keyDoneOps, v, nil)
}

// load reads what the map has. From now on they count as new: how long they have
// been there is not known.
func (d *doneOps) load(m *pmap, now int64) (ops []DoneOp, err error) {
	err = m.raw(keyDoneOps, append(keyDoneOps[:len(keyDoneOps):len(keyDoneOps)], 0), func(_, v []byte) error {
		if len(v)%doneOpBytes != 0 || len(v) > doneOpBytes*doneOpsMax {
			return rotten("map", "has a list of operations of %d bytes", len(v))
		}
		for le := binary.LittleEndian; len(v) > 0; v = v[doneOpBytes:] {
			x := DoneOp{LinkID{GMap: le.Uint32(v), Position: le.Uint32(v[4:])}, OpID{Coordinator: le.Uint32(v[8:]), Incarnation: le.Uint32(v[12:]), Number: le.Uint64(v[16:])}}
			ops = append(ops, x)
			d.list = append(d.list, homeOp{x, now})
		}
		return nil
	})
	d.saved = len(ops) > 0
	return ops, err
}
