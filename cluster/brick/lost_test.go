package brick

import (
	"testing"

	"petal/placement"
)

// rot damages the heads of records in the journal between two lives. Each must
// have been a group of its own.
func (g *memberRig) rot(t *testing.T, ops ...*memberOp) {
	t.Helper()
	g.crash()
	for _, o := range ops {
		if err := g.crashed.mem.Damage("journal/000000.seg", int64(o.r.Position.Block-1)*placement.BlockSize+17, func(p []byte) { p[0]++ }, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostStamps: of records whose heads have rotted, the stamps are told by
// their neighbours where there are any; what lies behind is not claimed.
func TestLostStamps(t *testing.T) {
	gap := func(first, last placement.Stamp) []Gap {
		return []Gap{{memberLink, placement.BucketOf(1, 0), first, last}}
	}
	stamp := func(ver, seq uint64) placement.Stamp { return placement.Stamp{Ver: ver, Seq: seq} }
	for _, c := range []struct {
		name     string
		rotten   []int // of nine records: of bucket 0, of another, and again
		gaps     []Gap
		unknown  int
		prepared int
		durable  placement.Stamp // what bucket 0 claims
	}{
		{"between two", []int{2}, gap(stamp(1, 2), stamp(1, 2)), 0, 5, stamp(1, 1)},
		{"nothing before it", []int{0}, gap(stamp(1, 1), stamp(1, 1)), 0, 4, stamp(0, 0)},
		{"the first of a version", []int{6}, gap(stamp(2, 1), stamp(2, 1)), 0, 7, stamp(1, 3)},
		{"and the last of the one before", []int{4, 6}, gap(stamp(2, 1), stamp(2, 1)), 1, 6, stamp(1, 2)},
		{"nothing behind it", []int{8}, nil, 1, 8, stamp(2, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startMember(t, 3)
			var ops []*memberOp
			for i, s := range []placement.Stamp{stamp(1, 1), stamp(1, 2), stamp(1, 3), stamp(2, 1), stamp(2, 2)} {
				ops = append(ops, g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 0}, 1<<i, s, false))
				if i < 4 {
					ops = append(ops, g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 1}, 1<<i, stamp(1, uint64(i)+1), false))
				}
			}
			g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 2}, 1, stamp(1, 1), true) // says that all before are durable
			var rotten []*memberOp
			for _, i := range c.rotten {
				rotten = append(rotten, ops[i])
			}
			g.rot(t, rotten...)
			if err := g.reopen(hold); err != nil {
				t.Fatal(err)
			}
			rec := g.recovery
			if len(rec.Gaps) != len(c.gaps) || len(c.gaps) > 0 && rec.Gaps[0] != c.gaps[0] || rec.LostUnknown != c.unknown || len(rec.Prepared) != c.prepared+1 {
				t.Errorf("gaps %v, unknown %d, %d prepared", rec.Gaps, rec.LostUnknown, len(rec.Prepared)-1)
			}
			if l := g.last(placement.BucketOf(1, 0)); l.Durable != c.durable {
				t.Errorf("claims %+v", l)
			}
		})
	}
}

// TestGivenUp: what a member has acknowledged alone stays, although records of its
// bucket before it are lost and given up; what others may have does not. Whoever
// is let in later cannot have the bucket's last record.
func TestGivenUp(t *testing.T) {
	lonely := placement.Members(0).With(1)
	bucket := placement.BucketOf(1, 0)
	k := placement.Key{Family: 1, Node: 1, Chunk: 0}
	for _, c := range []struct {
		name    string
		lost    int // of four records
		unknown bool
		left    []bool
	}{
		{"in the middle", 1, false, []bool{true, false, true, true, false}},
		{"at the beginning", 0, false, []bool{false, true, true, true, false}},
		{"nobody knows which", -1, true, []bool{true, true, true, true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startMember(t, 3)
			put := func(i int, excl placement.Members) *memberOp {
				o := g.enter(&memberOp{typ: typeWrite, key: k, mask: 1 << i, stamp: placement.Stamp{Ver: 3, Seq: uint64(i) + 1}, excl: excl})
				o.r = g.record(o)
				if err := g.b.Append(o.r); err != nil {
					t.Fatal(err)
				}
				o.r.Buf.Release()
				g.settleDone()
				return o
			}
			var ops []*memberOp
			for i := range 4 {
				ops = append(ops, put(i, lonely))
			}
			ops = append(ops, put(4, 0)) // another member gets it, too
			elsewhere := g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 1}, 1, placement.Stamp{Ver: 3, Seq: 1}, false)
			g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 2}, 1, placement.Stamp{Ver: 3, Seq: 1}, false)
			lost := elsewhere
			if !c.unknown {
				lost = ops[c.lost]
			}
			g.rot(t, lost)
			give := func(o *Options) {
				hold(o)
				o.OnLost = func(rec *Recovery) error {
					rec.GivenUp = []GivenUp{{memberLink, 9, lonely}}
					return nil
				}
			}
			if err := g.reopen(give); err != nil {
				t.Fatal(err)
			}
			if got := g.recovery.LostUnknown > 0; got != c.unknown {
				t.Fatalf("%d unknown", g.recovery.LostUnknown)
			}
			for i, o := range ops {
				o.committed, o.gone = c.left[i], !c.left[i]
			}
			check := func(when string) {
				t.Helper()
				if err := g.verify(k); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				over := placement.Stamp{Ver: 9, Seq: 1}
				if l := g.last(bucket); l.Committed != over || l.Durable != over {
					t.Errorf("%s: claims %+v", when, l)
				}
				for _, r := range g.recovery.Prepared {
					if r.Bucket == bucket {
						t.Errorf("%s: in doubt is %v", when, r.Stamp())
					}
				}
			}
			check("at once")
			g.settleDone()
			g.crash()
			if err := g.reopen(give); err != nil {
				t.Fatal(err)
			}
			check("after a crash")
			for _, r := range g.recovery.Prepared {
				g.b.Commit(r)
			}
			g.settleDone()
			if err := g.b.drain(); err != nil {
				t.Fatal(err)
			}
			if err := g.b.StepFlushMap(); err != nil {
				t.Fatal(err)
			}
			g.again(t) // nobody is asked any more
			if len(g.recovery.Lost) != 0 {
				t.Fatal("the loss is not behind the map")
			}
			check("after a flush")
		})
	}
}
