//go:build !race

package replica

import (
	"testing"

	"petal/cluster/wire"
	"petal/placement"
)

// TestWriteAllocatesNothing: a whole block to a link of one member, as a node
// alone does all day. The brick and the world allocate for themselves, so they
// are left out: a store that takes everything.
func TestWriteAllocatesNothing(t *testing.T) {
	w := newWorld(t, 1, 1, placement.Stripe)
	w.opened()
	n := w.nodes[0]
	st := &steady{Store: n.s.c.Store}
	op := &Op{Kind: Write, Key: placement.Key{Family: testFamily, Node: testNode, Chunk: 5}, From: 4096, To: 8192, VVer: 1, Buf: n.pool.Get(4096)}
	n.s.c.Store = st
	op.ID.Coordinator = uint32(n.id)
	ended := 0
	op.Done = func(*Op) {
		if op.Status != wire.OK {
			t.Fatal(op.Status)
		}
		op.Bufs.Release()
		ended++
	}
	for range historyMax + 10 { // until memory of the past is full
		n.s.Do(op)
		st.durable()
	}
	if a := testing.AllocsPerRun(1000, func() { n.s.Do(op); st.durable() }); a != 0 {
		t.Errorf("%v allocations a write", a)
	}
	op.Buf.Release()
	op.Kind, op.Buf = Read, nil
	if a := testing.AllocsPerRun(1000, func() { n.s.Do(op) }); a != 0 {
		t.Errorf("%v allocations a read", a)
	}
	if ended != historyMax+10+2*1001 {
		t.Errorf("%d ended", ended)
	}
}
