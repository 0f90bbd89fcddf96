package journal

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"petal/journal/record"
	"petal/journal/vfs"
)

// tally counts the Dones of a Manual journal.
type tally struct {
	done int
	err  error // the last one
}

// records makes one of so many blocks each; their heads are numbers from n on.
func (o *tally) records(n uint64, blocks ...int) (rs []*Record) {
	for i, k := range blocks {
		r := &Record{Head: fmt.Appendf(nil, "%d", n+uint64(i)), Done: func(_ *Record, err error) {
			o.done++
			if err != nil {
				o.err = err
			}
		}}
		for b := range k {
			block := vfs.AlignedBuffer(BlockSize)
			copy(block, fmt.Sprintf("%d.%d", n+uint64(i), b))
			r.Data = append(r.Data, block)
			r.CRC = append(r.CRC, record.Checksum(block))
		}
		rs = append(rs, r)
	}
	return rs
}

// together makes a journal on a disk of memory with the groups
//
//	[1 | 2 3 4 | 5] [6 (only with a second group)]
//
// where 2, 3 and 4 are one, and returns the file and the first block of the first.
func together(t *testing.T, second bool) (o Options, file string, at Position) {
	m := vfs.NewMemory(16 << 20)
	o = small(m)
	o.Manual, o.Create = true, true
	j, _ := mustOpen(t, o)
	o.Create = false
	var out tally
	rs := out.records(1, 1, 2, 0, 3, 1, 1)
	j.Append(rs[0])
	j.AppendAll(rs[1:4])
	j.Append(rs[4])
	if !j.Commit() || j.Commit() {
		t.Fatal("not one group")
	}
	if second {
		j.Append(rs[5])
		j.Commit()
	}
	for i, r := range rs[:5] {
		if r.LSN != LSN(i+1) || r.Position.Segment != rs[0].Position.Segment {
			t.Fatalf("record %d: LSN %d at %v", i, r.LSN, r.Position)
		}
	}
	if at = rs[0].Position; rs[3].Position.Block != at.Block+3 {
		t.Fatalf("%v", rs[3].Position)
	}
	return o, o.Dir + "/" + segmentName(at.Segment), at
}

// A group torn at any one block: recovery keeps what comes before, but never a part
// of the records that are one.
func TestTornTogether(t *testing.T) {
	//                 1  2        4           5
	for i, want := range []LSN{0, 1, 1, 1, 1, 1, 4} {
		o, file, at := together(t, false)
		tear(t, o, file, at.Block+uint32(i))
		j, rec := mustOpen(t, o)
		if rec.Last != want || !rec.Cut || rec.Rotten != nil {
			t.Errorf("block %d torn: %+v, want last %d", i, rec, want)
		}
		if got := heads(t, j); len(got) != int(want) {
			t.Errorf("block %d torn: %q", i, got)
		}
		// What was cut stays cut, and its numbers are free again.
		var out tally
		for _, r := range out.records(100, 1, 1) {
			j.Append(r)
		}
		j.Commit()
		j, rec = mustOpen(t, o)
		if rec.Last != want+2 || rec.Rotten != nil {
			t.Errorf("block %d torn, next life: %+v", i, rec)
		}
		if got := heads(t, j); len(got) != int(want)+2 || got[want] != "100" {
			t.Errorf("block %d torn, next life: %q", i, got)
		}
	}
}

// A block that rots after it was durable costs its record, and no other.
func TestRottenTogether(t *testing.T) {
	for i, want := range []LSN{1, 2, 2, 4, 4, 4, 5} {
		o, file, at := together(t, true)
		tear(t, o, file, at.Block+uint32(i))
		j, rec := mustOpen(t, o)
		if rec.Last != 6 || rec.Cut || !slices.Equal(rec.Rotten, []Range{{want, want}}) {
			t.Errorf("block %d rotten: %+v, want %d", i, rec, want)
		}
		if got := heads(t, j); len(got) != 6 {
			t.Errorf("block %d rotten: %q", i, got)
		}
	}
}

// A part of a chain that was trimmed vouches for the rest: it was durable.
func TestTrimInsideAChain(t *testing.T) {
	m := vfs.NewMemory(16 << 20)
	o := small(m)
	o.Manual, o.Create = true, true
	j, _ := mustOpen(t, o)
	o.Create = false
	var out tally
	rs := out.records(1, 1, 1, 1)
	j.AppendAll(rs)
	j.Commit()
	j.Trim(2)
	for range 5 { // until a segment's header carries the trim; no group ever does
		if !j.roll() {
			t.Fatal("no segment")
		}
	}
	tear(t, o, o.Dir+"/"+segmentName(rs[2].Position.Segment), rs[2].Position.Block)
	_, rec := mustOpen(t, o)
	if rec.First != 2 || rec.Last != 3 || !slices.Equal(rec.Rotten, []Range{{3, 3}}) {
		t.Errorf("%+v, want 2 to 3 with 3 rotten", rec)
	}
}

// tear overwrites a block.
func tear(t *testing.T, o Options, file string, block uint32) {
	t.Helper()
	f, err := o.FS.Open(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(vfs.AlignedBuffer(BlockSize), int64(block)*BlockSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Records that are one never leave their group, wherever they stand in the queue and
// however little the segment has left.
func TestTogetherStaysTogether(t *testing.T) {
	for before := range 40 {
		o := small(vfs.NewMemory(64 << 20))
		o.Segment, o.Capacity = 2<<20, 16<<20
		o.Manual, o.Create = true, true
		j, _ := mustOpen(t, o)
		o.Create = false
		var out tally
		for range before {
			for _, r := range out.records(0, 16) {
				j.Append(r)
			}
		}
		// 1 MiB that begins in the middle of a chunk.
		blocks := slices.Repeat([]int{16}, 17)
		blocks[0], blocks[16] = 8, 9
		rs := out.records(1, blocks...)
		j.AppendAll(rs)
		for j.Commit() {
		}
		if out.done != before+17 || j.Durable() != LSN(before+17) {
			t.Fatalf("%d records are done, %v", out.done, out.err)
		}
		block := rs[0].Position.Block
		for i, r := range rs {
			if r.LSN != rs[0].LSN+LSN(i) || r.Position != (Position{rs[0].Position.Segment, block}) {
				t.Errorf("%d before: record %d has LSN %d and lies at %v", before, i, r.LSN, r.Position)
			}
			block += uint32(r.blocks())
		}
		if _, rec := mustOpen(t, o); rec.Last != j.Durable() || rec.Cut {
			t.Errorf("%+v", rec)
		}
	}
}

func TestAppendAllRefusesTooMuch(t *testing.T) {
	for name, c := range map[string]struct {
		segment int64
		blocks  []int
		want    bool
	}{
		"a whole segment":           {64 << 10, []int{7, 7}, true},
		"more than a segment":       {64 << 10, []int{7, 8}, false},
		"the most":                  {4 << 20, slices.Repeat([]int{16}, MaxTogether/16), true},
		"one block more":            {4 << 20, append(slices.Repeat([]int{16}, MaxTogether/16), 1), false},
		"more records than allowed": {4 << 20, make([]int, 4097), false},
	} {
		o := small(vfs.NewMemory(64 << 20))
		o.Segment, o.Capacity, o.Manual, o.Create = c.segment, 4*c.segment, true, true
		j, _ := mustOpen(t, o)
		var out tally
		rs := out.records(1, c.blocks...)
		if got := j.Fits(rs); got != c.want {
			t.Errorf("%s: fits %t", name, got)
		}
		func() {
			defer func() {
				if (recover() == nil) != c.want {
					t.Errorf("%s: panic or none", name)
				}
			}()
			j.AppendAll(rs)
		}()
	}
}

// One that is not lazy takes the others along, and a closed journal ends each.
func TestAppendAllLazyAndClosed(t *testing.T) {
	o := small(osFS(t))
	o.Create, o.LazyInterval = true, 1<<40
	j, _ := mustOpen(t, o)
	var out tally
	ended := make(chan error, 6)
	rs := out.records(1, 1, 1, 1)
	for i, r := range rs {
		r.Lazy = i != 1
		r.Done = func(_ *Record, err error) { ended <- err }
	}
	j.AppendAll(rs)
	for range rs {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j.AppendAll(rs)
	for range rs {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
}
