package brick

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"

	"petal/cluster/cache"
	"petal/cluster/slab"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// put appends a write and lets it become durable; with commit, it is committed.
func (g *memberRig) put(t testing.TB, k placement.Key, m placement.Mask, s placement.Stamp, commit bool) *memberOp {
	t.Helper()
	o := g.enter(&memberOp{typ: typeWrite, key: k, mask: m, stamp: s})
	o.r = g.record(o)
	if err := g.b.Append(o.r); err != nil {
		t.Fatal(err)
	}
	o.r.Buf.Release()
	g.settleDone()
	if !o.done {
		t.Fatal("a write does not end")
	}
	if commit {
		o.committed = true
		g.b.Commit(o.r)
	}
	return o
}

func (g *memberRig) last(b placement.Bucket) (l Last) {
	g.b.Lasts(memberLink, func(x placement.Bucket, now Last) {
		if x == b {
			l = now
		}
	})
	return l
}

// again takes the power away and opens the brick.
func (g *memberRig) again(t testing.TB) {
	t.Helper()
	g.crash()
	if err := g.reopen(hold); err != nil {
		t.Fatal(err)
	}
}

func startMember(t testing.TB, seed uint64) *memberRig {
	g := newMemberRig(seed)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestCut: what a bucket's last stamp is said to be holds through a crash, be it
// in the journal or in the map; records up to it are not in doubt any more, and
// those behind it still are.
func TestCut(t *testing.T) {
	for _, flush := range []bool{false, true} {
		g := startMember(t, 3)
		k := placement.Key{Family: 1, Node: 1, Chunk: 9}
		bucket := placement.BucketOf(1, 9)
		g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 1}, true)
		g.put(t, k, 2, placement.Stamp{Ver: 1, Seq: 2}, false)
		cut := placement.Stamp{Ver: 4, Seq: 7}
		over := false
		g.b.AddMissing(memberLink, 1, []Mark{{5, placement.Key{Family: 1, Node: 1, Chunk: placement.Buckets + 9}, 0xf}}, placement.Stamp{}, func(error) {})
		g.b.AddMissing(memberLink, bucket, nil, cut, func(err error) { over = err == nil })
		if g.last(bucket).Committed == cut {
			t.Error("the cut is in force before it is durable")
		}
		g.settleDone()
		if !over || g.last(bucket) != (Last{cut, cut}) {
			t.Fatalf("after the cut: %+v", g.last(bucket))
		}
		behind := g.put(t, k, 4, placement.Stamp{Ver: 4, Seq: 8}, false)
		if flush {
			g.b.StepDestage(0)
			if err := g.b.StepFlushMap(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			g.again(t)
			if p := g.recovery.Prepared; len(p) != 1 || p[0].Stamp() != behind.stamp {
				t.Fatalf("flush %v: in doubt are %v", flush, p)
			}
			if l := g.last(bucket); l != (Last{behind.stamp, cut}) {
				t.Fatalf("flush %v: the last is %+v", flush, l)
			}
			for _, o := range g.ops[:2] {
				o.committed = true
			}
			if err := g.verify(k); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCloseInDoubt: a brick that is closed with records in doubt gives their memory
// back, and has them when it is opened again.
func TestCloseInDoubt(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 9}
	o := g.put(t, k, 0xff, placement.Stamp{Ver: 1, Seq: 1}, false)
	g.put(t, placement.Key{Family: 1, Node: 1, Chunk: 10}, placement.Full, placement.Stamp{Ver: 1, Seq: 1}, false)
	if err := g.b.Close(); err != nil {
		t.Fatal(err)
	}
	g.o.Cache.DropFamily(1)
	if n := g.o.Pool.Stats().InUse; n != 0 {
		t.Errorf("%d bytes are still lent", n)
	}
	b, rec, err := Open(g.o)
	if err != nil || len(rec.Prepared) != 2 || rec.Prepared[0].Stamp() != o.stamp {
		t.Fatalf("opened again: %+v, %v", rec, err)
	}
	g.b = b
	b.Kill()
}

// TestDropMarks: marks go by the version under which they were made: a drop that
// comes late leaves those that have been made since, in the journal and at home.
func TestDropMarks(t *testing.T) {
	g := startMember(t, 3)
	bucket := placement.BucketOf(1, 9)
	excluded := func(c placement.Chunk, ver uint64) {
		t.Helper()
		k := placement.Key{Family: 1, Node: 1, Chunk: c}
		o := g.enter(&memberOp{typ: typeWrite, key: k, mask: 3, stamp: placement.Stamp{Ver: ver, Seq: 1}, excl: 2})
		o.r = g.record(o)
		if err := g.b.Append(o.r); err != nil {
			t.Fatal(err)
		}
		g.settleDone()
		g.b.Commit(o.r)
	}
	check := func(when string, want ...placement.Chunk) {
		t.Helper()
		marks, err := g.b.Marks(memberLink, 1, bucket, placement.Key{}, make([]Mark, 0, 8))
		var got []placement.Chunk
		for _, m := range marks {
			got = append(got, m.Key.Chunk)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: marks of chunks %v, want %v (%v)", when, got, want, err)
		}
		if n := g.b.MarkCount(memberLink, 1); n < int64(len(want)) {
			t.Errorf("%s: %d marks counted", when, n)
		}
	}
	home := func() {
		t.Helper()
		for range 3 {
			g.b.StepDestage(0)
		}
		if err := g.b.StepFlushMap(); err != nil {
			t.Fatal(err)
		}
	}
	excluded(9, 1)
	excluded(placement.Buckets+9, 3)
	home()
	excluded(2*placement.Buckets+9, 1)
	excluded(3*placement.Buckets+9, 3)
	check("before", 9, placement.Buckets+9, 2*placement.Buckets+9, 3*placement.Buckets+9)
	over := false
	g.b.DropMarks(memberLink, 1, 2, func(err error) { over = err == nil })
	g.settleDone()
	if !over {
		t.Fatal("it does not end")
	}
	want := []placement.Chunk{placement.Buckets + 9, 3*placement.Buckets + 9}
	check("at once", want...)
	g.again(t)
	check("after a crash", want...)
	for _, r := range g.recovery.Prepared {
		g.b.Commit(r)
	}
	home()
	check("at home", want...)
	g.again(t)
	check("at home, after a crash", want...)
	if n := g.b.MarkCount(memberLink, 1); n != 2 {
		t.Errorf("%d marks counted", n)
	}
}

// TestConflict: a record in doubt conflicts, from Append until it is committed or
// abandoned, with its blocks and no others, at its node and for those below it.
func TestConflict(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 2, Chunk: 9}
	check := func(when string, lineage []placement.Node, m placement.Mask, want bool) {
		t.Helper()
		if got := g.b.Conflict(1, lineage, 9, m); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("at first", []placement.Node{2, 1}, placement.Full, false)
	o := g.enter(&memberOp{typ: typeWrite, key: k, mask: 0x0ff0, stamp: placement.Stamp{Ver: 1, Seq: 1}})
	o.r = g.record(o)
	if err := g.b.Append(o.r); err != nil {
		t.Fatal(err)
	}
	check("appended", []placement.Node{2, 1}, 0x0010, true)
	g.settleDone()
	check("durable", []placement.Node{3, 2, 1}, 0x0810, true)
	check("other blocks", []placement.Node{2, 1}, 0xf00f, false)
	check("another node", []placement.Node{1}, placement.Full, false)
	p := g.put(t, k, 0x1000, placement.Stamp{Ver: 1, Seq: 2}, false)
	g.b.Abandon(p.r, func(error) {})
	g.settleDone()
	check("abandoned", []placement.Node{2}, 0x1000, false)
	g.b.Commit(o.r)
	check("committed", []placement.Node{2}, placement.Full, false)
	f := &Record{Kind: Zero, Key: k, Mask: 1, Link: memberLink, Bucket: o.bucket, Done: func(*Record, error) {}}
	if err := g.b.AppendFill(f); err != nil {
		t.Fatal(err)
	}
	check("a fill", []placement.Node{2}, placement.Full, false)
}

// TestCheckpoint: what is called checkpointed is in the map for good: with no
// journal at all a brick would still have it; and what is in doubt is not.
func TestCheckpoint(t *testing.T) {
	var told []journal.LSN
	g := startMember(t, 3)
	g.b.o.OnCheckpoint = func(l journal.LSN) { told = append(told, l) }
	k := placement.Key{Family: 1, Node: 1, Chunk: 9}
	a := g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 1}, true)
	b := g.put(t, k, 2, placement.Stamp{Ver: 1, Seq: 2}, false)
	flush := func() {
		t.Helper()
		g.b.StepDestage(0)
		if err := g.b.StepFlushMap(); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	if len(told) != 1 || told[0] < a.r.LSN || told[0] >= b.r.LSN {
		t.Fatalf("told %v, want at least %d and less than %d", told, a.r.LSN, b.r.LSN)
	}
	g.b.Commit(b.r)
	flush()
	if len(told) != 2 || told[1] < b.r.LSN {
		t.Fatalf("told %v, want at least %d", told, b.r.LSN)
	}
}

// TestDiscard: what a link's buckets held is gone, with marks, missing blocks and
// lasts, and stays gone; other buckets are not touched, and the space is free.
func TestDiscard(t *testing.T) {
	g := startMember(t, 3)
	at := func(c placement.Chunk) placement.Key { return placement.Key{Family: 1, Node: 1, Chunk: c} }
	gone, kept := placement.BucketOf(1, 0), placement.BucketOf(1, 1)
	var seq [2]uint64
	for i := range 6 {
		n := i % 2
		seq[n]++
		g.put(t, at(placement.Chunk(n+placement.Buckets*(i/4))), []placement.Mask{placement.Full, 0x30, 0xc000}[i/2], placement.Stamp{Ver: 1, Seq: seq[n]}, true)
		if i == 3 {
			g.b.StepDestage(0)
		}
	}
	g.b.AddMarks(memberLink, 2, []Mark{{gone, at(0), 1}}, 1, func(error) {})
	g.b.AddMissing(memberLink, gone, []Mark{{gone, at(0), 1}}, placement.Stamp{}, func(error) {})
	g.settleDone()
	over := false
	g.b.Discard(memberLink, func(b placement.Bucket) bool { return b == gone }, []placement.Family{1}, func(err error) { over = err == nil })
	g.settleDone()
	check := func(when string) {
		t.Helper()
		for _, c := range []placement.Chunk{0, placement.Buckets} {
			for _, o := range g.ops {
				o.gone = o.gone || o.key == at(c)
			}
			if err := g.verify(at(c)); err != nil {
				t.Error(when, err)
			}
		}
		for _, c := range []placement.Chunk{1, placement.Buckets + 1} {
			if err := g.verify(at(c)); err != nil {
				t.Error(when, err)
			}
		}
		marks, err := g.b.Marks(memberLink, 1, gone, placement.Key{}, make([]Mark, 0, 4))
		missing, err2 := g.b.Missing(memberLink, Mark{}, make([]Mark, 0, 4))
		if len(marks)+len(missing) != 0 || err != nil || err2 != nil || g.b.MarkCount(memberLink, 1)+g.b.MissingCount(memberLink) != 0 {
			t.Errorf("%s: left are marks %v, missing %v (%d, %d)", when, marks, missing, g.b.MarkCount(memberLink, 1), g.b.MissingCount(memberLink))
		}
		if g.last(gone) != (Last{}) || g.last(kept) != (Last{}) {
			t.Errorf("%s: lasts %+v, %+v", when, g.last(gone), g.last(kept))
		}
	}
	if over {
		t.Fatal("done before it is so")
	}
	for range 5 {
		g.b.StepDestage(0)
	}
	if !over {
		t.Fatal("discard does not end")
	}
	check("at once")
	g.again(t) // nothing was flushed: the journal says it all again
	for range 5 {
		g.b.StepDestage(0)
	}
	check("after a crash")
	if err := g.audit(); err != nil {
		t.Fatal(err)
	}
	g.again(t)
	check("after a flush")
}

// TestRepair: a block that has rotted, at home or in the journal, is readable
// again after a repair, for good; a repair with other content does nothing.
func TestRepair(t *testing.T) {
	for _, home := range []bool{true, false} {
		g := startMember(t, 3)
		g.b.o.PendingBytes = 1
		g.b.o.Cache = nil
		k := placement.Key{Family: 1, Node: 1, Chunk: 9}
		o := g.put(t, k, 0x0ff0, placement.Stamp{Ver: 1, Seq: 1}, true)
		name, off := "journal/000000.seg", int64(o.r.Position.Block+1)*placement.BlockSize
		if home {
			g.b.StepDestage(0)
			var e entry
			if err := g.b.pmap.lookup(k, &e); err != nil {
				t.Fatal(err)
			}
			name, off = "data/00000000", int64(e.place(5).offset())
		}
		if err := g.mem.Damage(name, off+5, func(p []byte) { p[0]++ }, 1); err != nil {
			t.Fatal(err)
		}
		var me *MediumError
		if _, err := g.at(k); !errors.As(err, &me) || me.Blocks != 1<<5 {
			t.Fatalf("home %v: %v", home, err)
		}
		repair := func(id uint64) {
			t.Helper()
			x := &memberOp{typ: typeRepair, key: k, bucket: o.bucket, mask: 1 << 5, set: state{5: id}}
			r := g.record(x)
			if err := g.b.AppendRepair(r); err != nil {
				t.Fatal(err)
			}
			r.Buf.Release()
			g.settleDone()
		}
		repair(4711)
		if _, err := g.at(k); !errors.As(err, &me) {
			t.Fatalf("repaired with something else: %v", err)
		}
		repair(o.set[5])
		for i := range 4 {
			if err := g.verify(k); err != nil {
				t.Fatalf("home %v, %d: %v", home, i, err)
			}
			if i == 0 {
				g.b.StepDestage(0)
			} else {
				g.again(t)
				g.b.StepDestage(0)
				if err := g.b.StepFlushMap(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestRottenData: a record whose head is sound but whose data has rotted is told
// of, by name.
func TestRottenData(t *testing.T) {
	g := startMember(t, 3)
	k := placement.Key{Family: 1, Node: 1, Chunk: 9}
	o := g.put(t, k, 0x0ff0, placement.Stamp{Ver: 1, Seq: 1}, true)
	g.put(t, k, 1, placement.Stamp{Ver: 1, Seq: 2}, true)
	g.crash()
	if err := g.crashed.mem.Damage("journal/000000.seg", int64(o.r.Position.Block+1)*placement.BlockSize, func(p []byte) { p[0]++ }, 1); err != nil {
		t.Fatal(err)
	}
	if err := g.reopen(hold); err != nil {
		t.Fatal(err)
	}
	if r := g.recovery.Rotten; len(r) != 1 || r[0].Stamp != o.stamp || r[0].Key != k || r[0].Mask != o.mask || r[0].Link != memberLink {
		t.Errorf("rotten is %+v", r)
	}
}

// TestDiskDeterministic: two runs of one seed on a Disk, crashes included, make
// the same requests to the disk in the same order and leave the same.
func TestDiskDeterministic(t *testing.T) {
	run := func(seed uint64) string {
		g := newMemberRig(seed)
		h := fnv.New64a()
		disk := NewDisk(1 << 30)
		for life := range 4 {
			pool := slab.New(64 << 20)
			g.o = Options{Pool: pool, Cache: cache.New(pool, 1<<20), HoldPrepared: true, Now: g.o.Now, JournalBytes: 1 << 20, SegmentBytes: 128 << 10, CapacityBytes: 16 << 20, PendingBytes: 64 << 10}
			disk.Use(&g.o)
			disk.FS.OnOp(func(o vfs.Op) { fmt.Fprintln(h, o) })
			if life == 0 {
				if err := Create(g.o, testID); err != nil {
					t.Fatal(err)
				}
			}
			b, rec, err := Open(g.o)
			if err != nil {
				t.Fatal(err)
			}
			g.b, g.recovery = b, rec
			prepared, err := g.survivors()
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range prepared {
				o.committed = true
				b.Commit(o.r)
			}
			for _, o := range g.ops { // the model does not matter here
				o.gone = o.gone || !o.done
			}
			g.ver++
			clear(g.seq)
			for range 200 {
				switch g.rng.IntN(6) {
				case 0, 1:
					err = g.write()
				case 2:
					g.commit()
				case 3:
					err = g.local([]headType{typeMissing, typeFill, typeMarks}[g.rng.IntN(3)])
				case 4:
					b.Step()
				default:
					b.StepDestage(0)
					if g.rng.IntN(5) == 0 {
						err = b.StepFlushMap()
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range g.keys() {
				var s Sums
				if err := b.Sums(k, &s); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(h, k, s)
			}
			g.before()
			next := disk.Crash(seed + uint64(life))
			g.after()
			b.Kill()
			pool.Discard()
			disk = next
		}
		return fmt.Sprintf("%x", h.Sum64())
	}
	seen := map[string]bool{}
	for range uint64(5) {
		seed := rand.Uint64()
		a, b := run(seed), run(seed)
		if a != b {
			t.Errorf("seed %d: %s and %s", seed, a, b)
		}
		seen[a] = true
	}
	if len(seen) < 2 {
		t.Error("all runs are the same")
	}
}
