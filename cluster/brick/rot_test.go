package brick

import (
	"errors"
	"math/bits"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal/vfs"
	"petal/placement"
)

// filled is a rig whose brick has some data at home and nothing on its way.
func filled(t *testing.T, seed uint64) *rig {
	t.Helper()
	g := newRig(seed, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if err := g.issue(); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	g.o.Cache.DropFamily(1)
	return g
}

// TestFlippedBit: one bit of a block flips, anywhere, and reads of that block
// are medium errors that name it, and reads of all others are what they were.
func TestFlippedBit(t *testing.T) {
	g := filled(t, 5)
	for range 200 {
		k := placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(g.rng.IntN(6))}
		var e entry
		if err := g.b.pmap.lookup(k, &e); err != nil {
			t.Fatal(err)
		}
		i := g.rng.IntN(placement.BlocksPerChunk)
		if e.Valid>>i&1 == 0 {
			continue
		}
		off := int64(e.place(i).offset()) + g.rng.Int64N(placement.BlockSize)
		bit := byte(1) << g.rng.IntN(8)
		flip := func() {
			if err := g.mem.Damage("data/00000000", off, func(p []byte) { p[0] ^= bit }, 1); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		before := g.b.Stats().MediumErrors
		for _, r := range [][2]int{{0, 16}, {i, 1}, {0, i}, {i + 1, 15 - i}} {
			if r[1] > 0 {
				g.o.Cache.DropFamily(1)
				readAround(t, g, k, r[0], r[1], i)
			}
		}
		if n := g.b.Stats().MediumErrors - before; n != 2 {
			t.Errorf("%d medium errors counted, want 2", n)
		}
		flip()
		g.o.Cache.DropFamily(1)
		if err := g.verify(1, k.Chunk); err != nil {
			t.Fatal(err)
		}
	}
}

// readAround reads blocks of a chunk in which block bad is bad.
func readAround(t *testing.T, g *rig, k placement.Key, first, count, bad int) {
	t.Helper()
	over := false
	op := &ReadOp{Family: 1, Lineage: []placement.Node{1}, Chunk: k.Chunk, First: first, Count: count, Done: func(*ReadOp) { over = true }}
	g.b.Read(op)
	for !over && g.b.Step() {
	}
	defer op.Bufs.Release()
	var me *MediumError
	if first <= bad && bad < first+count {
		if !errors.As(op.Err, &me) || me.Blocks != 1<<bad || me.Key != k {
			t.Fatalf("read of %d from %d with %d bad: %v", count, first, bad, op.Err)
		}
	} else if op.Err != nil {
		t.Fatalf("read of %d from %d with %d bad: %v", count, first, bad, op.Err)
	}
	want := g.model.chunk(k).committed()
	i := first
	for _, r := range op.Bufs {
		for j := range r.Len / placement.BlockSize {
			id, ok := identify(block(r.Bytes(), j))
			if i == bad && (!ok || id != 0) {
				t.Fatalf("bad block %d is given as %d, not zeros", i, id)
			}
			if w := want[i]; i != bad && (!ok || id != w && !(w == absent && id == 0)) {
				t.Fatalf("block %d is given as %d, want %d", i, id, w)
			}
			i++
		}
	}
	if i != first+count {
		t.Fatalf("%d blocks given, want %d", i-first, count)
	}
}

// TestUnreadableSector: a read error of the disk is a medium error of the
// blocks it hits, not the end of the brick.
func TestUnreadableSector(t *testing.T) {
	var fault *vfs.Fault
	g := newRig(6, func(o *Options) {
		fault = vfs.NewFault(o.FS, nil, 1)
		o.FS = fault
	})
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	k := placement.Key{Family: 1, Node: 1, Chunk: 3}
	if err := g.append(&modelRecord{r: &Record{Key: k}, mask: placement.Full}); err != nil {
		t.Fatal(err)
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	g.o.Cache.DropFamily(1)
	plan, err := vfs.ParsePlan("read data/* at=20480+512 fail EIO")
	if err != nil {
		t.Fatal(err)
	}
	fault.SetPlan(plan)
	readAround(t, g, k, 0, 16, 5)
	readAround(t, g, k, 6, 10, 5)
	if err := g.b.Failed(); err != nil {
		t.Error(err)
	}
}

// TestRotInTheJournal: a block rots in the journal before it came home; when
// destage reads it back it must become a medium error, not the older data.
func TestRotInTheJournal(t *testing.T) {
	g := newRig(7, func(o *Options) { o.PendingBytes = 1 })
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	k := placement.Key{Family: 1, Node: 1, Chunk: 2}
	if err := g.append(&modelRecord{r: &Record{Key: k}, mask: placement.Full}); err != nil {
		t.Fatal(err)
	}
	if err := g.settleAll(); err != nil {
		t.Fatal(err)
	}
	r := &modelRecord{r: &Record{Key: k}, mask: placement.Span(4, 3)}
	if err := g.append(r); err != nil {
		t.Fatal(err)
	}
	for g.b.Step() {
	}
	at := int64(r.r.Position.Block+1) * placement.BlockSize // its second block
	if err := g.mem.Damage("journal/000000.seg", at+17, func(p []byte) { p[0]++ }, 1); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"in the journal", "at home"} {
		g.o.Cache.DropFamily(1)
		readAround(t, g, k, 0, 16, 5)
		if err := g.settleAll(); err != nil {
			t.Fatal(when, err)
		}
	}
	if n := g.b.Stats().LostBlocks; n != 1 {
		t.Errorf("%d lost blocks counted, want 1", n)
	}
}

// TestRottenHeads: where the head of an acknowledged record rots, nobody knows
// which blocks it wrote. The brick is not opened, however often one tries,
// until the operator accepts that older data is served.
func TestRottenHeads(t *testing.T) {
	g := newRig(9, nil)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	k := placement.Key{Family: 1, Node: 1, Chunk: 2}
	var first *modelRecord
	for i := range 3 { // groups of their own; the later ones vouch for the first
		r := &modelRecord{r: &Record{Key: k}, mask: placement.Span(i, 1)}
		if err := g.append(r); err != nil {
			t.Fatal(err)
		}
		for g.b.Step() {
		}
		if first == nil {
			first = r
		}
	}
	g.crash()
	g.b.pmap.close()
	g.mem, g.peb, g.crashed, g.open = g.crashed.mem, g.crashed.peb, nil, nil
	g.options(nil)
	at := int64(first.r.Position.Block-1) * placement.BlockSize // the header of its group
	if err := g.mem.Damage("journal/000000.seg", at+17, func(p []byte) { p[0]++ }, 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b, _, err := Open(g.o)
		if err == nil {
			b.Close()
			t.Fatal("opened in spite of lost writes")
		}
		var fe *FormatError
		if !errors.Is(err, ErrRotten) || !errors.As(err, &fe) || fe.Hint() == "" {
			t.Fatalf("error %v without its kind or hint", err)
		}
	}
	g.o.AcceptLoss = true
	b, rec, err := Open(g.o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(rec.Lost) != 1 || rec.Lost[0] != (LostRange{first.r.LSN, first.r.LSN}) {
		t.Errorf("lost %v, want record %d", rec.Lost, first.r.LSN)
	}
}

// TestFailedWriteIsForGood: any write or sync that fails ends the brick at
// once; nothing is acknowledged any more, though the disk recovers.
func TestFailedWriteIsForGood(t *testing.T) {
	for _, line := range []string{"sync data/* fail EIO", "write data/* fail EIO", "write journal/* fail EIO", "write super fail EIO"} {
		var fault *vfs.Fault
		var failed []error
		g := newRig(8, func(o *Options) {
			fault = vfs.NewFault(o.FS, nil, 1)
			o.FS = fault
			o.OnFail = func(err error) { failed = append(failed, err) }
		})
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		plan, err := vfs.ParsePlan(line)
		if err != nil {
			t.Fatal(err)
		}
		fault.SetPlan(plan)
		for i, m := range []placement.Mask{placement.Span(1, 2), placement.Full} {
			if err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(i)}}, mask: m}); err != nil {
				break
			}
			for g.b.Step() {
			}
		}
		g.b.UpdateSuper(func(*Super) error { return nil })
		g.b.StepDestage(0)
		if len(failed) != 1 || !errors.Is(failed[0], ErrFailed) || !errors.Is(g.b.Failed(), ErrFailed) {
			t.Errorf("%s: told %v, Failed %v", line, failed, g.b.Failed())
		}
		fault.SetPlan(nil)
		if err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: 1}}, mask: 1}); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: append afterwards: %v", line, err)
		}
		if _, err := g.read(1, 1, 0, 16); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: read afterwards: %v", line, err)
		}
		var flushed error
		g.b.Flush(func(err error) { flushed = err })
		if !errors.Is(flushed, ErrFailed) {
			t.Errorf("%s: flush afterwards: %v", line, flushed)
		}
		if g.b.StepDestage(0) {
			t.Errorf("%s: destage goes on", line)
		}
	}
}

// TestCheck finds each kind of planted damage, and nothing in a sound brick.
func TestCheck(t *testing.T) {
	g := filled(t, 9)
	for range 10 { // and some in the journal
		if err := g.issue(); err != nil {
			t.Fatal(err)
		}
	}
	for g.b.Step() {
	}
	var some, other placement.Key
	var e entry
	g.b.pmap.scan([]byte{keyData}, []byte{keyData + 1}, func(k placement.Key, x *entry) error {
		if x.Kind == kindExtent {
			some, other, e = k, some, *x
		}
		return nil
	})
	g.crash()
	pristine := g.crashed
	block := bits.TrailingZeros16(uint16(e.Valid))
	for name, c := range map[string]struct {
		damage func(m *vfs.Memory, p *pmap)
		want   string
		n      int64
	}{
		"nothing": {func(*vfs.Memory, *pmap) {}, "", 0},
		"super":   {func(m *vfs.Memory, _ *pmap) { m.Damage("super", 70, func(p []byte) { p[0]++ }, 1) }, "super", 1},
		"data": {func(m *vfs.Memory, _ *pmap) {
			m.Damage("data/00000000", int64(e.place(block).offset())+9, func(p []byte) { p[0]++ }, 1)
		}, "data", 1},
		"value": {func(_ *vfs.Memory, p *pmap) { p.db.Set(appendKey(nil, some), []byte("rubbish"), pebble.NoSync) }, "map", 1},
		"key":   {func(_ *vfs.Memory, p *pmap) { p.db.Set([]byte("dull"), e.append(nil), pebble.NoSync) }, "map", 1},
		"twice": {func(_ *vfs.Memory, p *pmap) {
			k := other
			k.Chunk = 999
			p.db.Set(appendKey(nil, k), e.append(nil), pebble.NoSync)
		}, "map", 1},
	} {
		t.Run(name, func(t *testing.T) {
			g.mem, g.crashed = pristine.mem.Crash(1), nil
			g.peb = clonePebble(pristine.peb)
			g.options(nil)
			p, err := openMap(g.o.MapFS, g.o.mapDir(), false, discard)
			if err != nil {
				t.Fatal(err)
			}
			c.damage(g.mem, p)
			if err := errors.Join(p.db.Flush(), p.close()); err != nil {
				t.Fatal(err)
			}
			var found []Problem
			s, err := Check(g.o, func(p Problem) { found = append(found, p) })
			if err != nil || s.Problems != c.n || int64(len(found)) != c.n || s.Blocks == 0 || s.Records == 0 {
				t.Fatalf("%+v, %v: %v", s, err, found)
			}
			for _, f := range found {
				if f.Thing != c.want || name == "data" && f.Blocks != 1<<block {
					t.Errorf("found %v, want one of %s", f, c.want)
				}
			}
		})
	}
}
