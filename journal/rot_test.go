package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"petal/journal/record"
	"petal/journal/vfs"
)

// sample makes a journal of a few groups in one segment, with heads and data of
// several sizes, and returns its disk and the groups. With closed, the last group
// has one after it that vouches for it.
func sample(t *testing.T, closed bool) (*vfs.Memory, Options, []group) {
	t.Helper()
	m := vfs.NewMemory(16 << 20)
	o := small(m)
	o.Segment, o.Capacity = 2*segmentMin, 8*segmentMin
	o.Manual, o.Create = true, true
	j, _ := mustOpen(t, o)
	n := uint64(0)
	for _, records := range []int{1, 2, 4, 1} {
		for range records {
			n++
			r := fill(new(Record), n)
			r.Done = func(_ *Record, err error) {
				if err != nil {
					t.Error(err)
				}
			}
			j.Append(r)
		}
		j.Commit()
	}
	if closed {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	o.Create = false
	clone := o
	clone.FS = m.Crash(0)
	k, rec := mustOpen(t, clone)
	if rec.Last != LSN(n) || rec.Cut || len(k.groups) != 4 {
		t.Fatalf("sample: %+v, %d groups", rec, len(k.groups))
	}
	return m, o, k.groups
}

// harm says what damage to a block of the sample must lead to.
func harm(groups []group, views map[LSN]record.View, block uint32) (lost Range) {
	for _, g := range groups {
		switch {
		case block < g.block || block >= g.block+g.header+g.data:
		case block < g.block+g.header:
			return Range{g.first, g.end - 1}
		default:
			views[g.first].Frames(func(lsn uint64, first int, f record.Frame) bool {
				at := g.block + uint32(first)
				if block >= at && block < at+uint32(f.Blocks()) {
					lost = Range{LSN(lsn), LSN(lsn)}
				}
				return true
			})
			return lost
		}
	}
	return Range{}
}

// views parses the groups again, to know whose each block is.
func views(t *testing.T, m *vfs.Memory, groups []group) map[LSN]record.View {
	v := map[LSN]record.View{}
	f, err := m.Open("journal/"+segmentName(groups[0].seg.slot), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		b := make([]byte, g.header*BlockSize)
		if _, err := f.ReadAt(b, int64(g.block)*BlockSize); err != nil {
			t.Fatal(err)
		}
		if v[g.first], err = record.Parse(b, testUUID); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// Flip a bit of each byte of a journal: a record is lost if the byte was one of
// its own or of its group's header, and no other. It is rotten if something
// later vouches for it, else it is cut with what follows.
func TestFlipEachByte(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%v", closed), func(t *testing.T) { flipEachByte(t, closed) })
	}
}

func flipEachByte(t *testing.T, closed bool) {
	m, o, groups := sample(t, closed)
	whose := views(t, m, groups)
	last := groups[len(groups)-1]
	name := "journal/" + segmentName(last.seg.slot)
	end := int64(last.block)*BlockSize + last.size() + 2*BlockSize
	for off := int64(0); off < end; off = nextByte(off) {
		o.FS = m.Crash(0)
		bit := byte(1) << (off % 8)
		if err := o.FS.(*vfs.Memory).Damage(name, off, func(p []byte) { p[0] ^= bit }, 1); err != nil {
			t.Fatal(err)
		}
		lost := harm(groups, whose, uint32(off/BlockSize))
		wantLast, wantRotten := last.end-1, []Range(nil)
		switch {
		case lost == Range{}:
		case closed || lost.To < last.first:
			wantRotten = []Range{lost}
		default:
			wantLast = lost.From - 1
		}
		j, rec, err := Open(o)
		if err != nil {
			t.Fatalf("byte %d: %v", off, err)
		}
		if rec.Last != wantLast || !slices.Equal(rec.Rotten, wantRotten) || rec.First != 1 {
			t.Fatalf("byte %d (damage to %v): %+v, want last %d, rotten %v", off, lost, rec, wantLast, wantRotten)
		}
		replaySound(t, j, rec, fmt.Sprintf("byte %d", off))
	}
}

// nextByte visits each byte of headers, and some of what is only summed up.
func nextByte(off int64) int64 {
	if off%BlockSize < 112 {
		return off + 1
	}
	return min(off+397, (off/BlockSize+1)*BlockSize)
}

// replaySound checks that everything replayed that is not marked is as written,
// and that nothing is missing but what is said to be.
func replaySound(t *testing.T, j *Journal, rec *Recovery, what string) {
	t.Helper()
	seen := map[LSN]bool{}
	before := LSN(0)
	err := j.Replay(0, func(e Entry) error {
		if e.LSN <= before || e.LSN < rec.First || e.LSN > rec.Last {
			return fmt.Errorf("%s: LSN %d after %d", what, e.LSN, before)
		}
		before = e.LSN
		if !e.Rotten {
			seen[e.LSN] = true
			return checkEntry(j, e, uint64(e.LSN))
		}
		want := fill(new(Record), uint64(e.LSN))
		if !bytes.Equal(e.Head, want.Head) || !slices.Equal(e.CRC, want.CRC) {
			return fmt.Errorf("%s: head of rotten record %d is wrong", what, e.LSN)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for x := rec.First; x <= rec.Last; x++ {
		rotten := slices.ContainsFunc(rec.Rotten, func(r Range) bool { return r.From <= x && x <= r.To })
		if seen[x] == rotten {
			t.Fatalf("%s: record %d: replayed %v, rotten %v", what, x, seen[x], rotten)
		}
	}
}

// Cut the file short at each sector. What is gone is rotten as far as anything
// left vouches for it.
func TestTruncateEverywhere(t *testing.T) {
	m, o, groups := sample(t, true)
	whose := views(t, m, groups)
	name := "journal/" + segmentName(groups[0].seg.slot)
	for size := o.Segment; size >= BlockSize; size -= vfs.SectorSize {
		o.FS = m.Crash(0)
		f, err := o.FS.Open(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		j, rec, err := Open(o)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		replaySound(t, j, rec, fmt.Sprintf("size %d", size))
		first := harm(groups, whose, uint32(size/BlockSize)).From
		if first == 0 {
			first = groups[3].end
		}
		if rec.Last+1 < first {
			t.Fatalf("size %d: last %d, but %d is whole", size, rec.Last, first-1)
		}
		// Where it goes on, it works.
		r := fill(new(Record), uint64(rec.Last)+1)
		r.Done = func(_ *Record, err error) {
			if err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
		}
		j.Append(r)
		for j.Commit() {
		}
		if now, _ := f.Size(); r.Position.Segment == groups[0].seg.slot && now != o.Segment {
			t.Fatalf("size %d: the segment is written to while it has %d bytes", size, now)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// forge writes groups by hand: each has one-block records without data.
type forge struct {
	t       *testing.T
	file    vfs.File
	block   uint32
	gen     uint64
	opening uint64
	base    LSN
}

func (f *forge) group(first LSN, records int, durable LSN, broken bool) {
	f.t.Helper()
	var b record.Builder
	b.Reset(vfs.AlignedBuffer(BlockSize))
	for i := range records {
		b.Add(fmt.Appendf(nil, "%d of opening %d", int(first)+i, f.opening), nil, 0)
	}
	h := b.Finish(&record.Group{
		UUID: testUUID, Generation: f.gen, Block: f.block, First: uint64(first), Durable: uint64(durable),
		Opening: f.opening, Base: uint64(f.base), Trim: 1,
	})
	if broken {
		h[len(h)-1] ^= 1
	}
	if _, err := f.file.WriteAt(h, int64(f.block)*BlockSize); err != nil {
		f.t.Fatal(err)
	}
	f.block++
}

func forged(t *testing.T) (*vfs.Memory, Options, *forge) {
	m := vfs.NewMemory(16 << 20)
	o := small(m)
	o.Manual, o.Create = true, true
	j, _ := mustOpen(t, o)
	o.Create = false
	s := j.ready[0]
	return m, o, &forge{t: t, file: s.file, block: 1, gen: s.generation, opening: 1, base: 1}
}

// heads replays a journal into strings.
func heads(t *testing.T, j *Journal) (list []string) {
	t.Helper()
	if err := j.Replay(0, func(e Entry) error { list = append(list, string(e.Head)); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// The table of the package comment, with groups as several outstanding writes
// would leave them, too, though today's committer has one.
func TestTornOrRotten(t *testing.T) {
	type g struct {
		first   LSN
		records int
		durable LSN
		broken  bool
	}
	for _, c := range []struct {
		name   string
		groups []g
		last   LSN
		rotten []Range
		cut    bool
	}{
		{"empty", nil, 0, nil, false},
		{"sound", []g{{1, 2, 0, false}, {3, 2, 2, false}}, 4, nil, false},
		{"torn at the end", []g{{1, 2, 0, false}, {3, 2, 2, true}}, 2, nil, true},
		{"rotten in the middle", []g{{1, 2, 0, false}, {3, 2, 2, true}, {5, 1, 4, false}}, 5, []Range{{3, 4}}, false},
		{"rotten at the start", []g{{1, 2, 0, true}, {3, 2, 2, false}}, 4, []Range{{1, 2}}, false},
		{"two rotten", []g{{1, 1, 0, true}, {2, 1, 1, true}, {3, 1, 2, false}}, 3, []Range{{1, 2}}, false},
		{"torn with a sound one after it", []g{{1, 2, 0, false}, {3, 2, 2, true}, {5, 1, 2, false}}, 2, nil, true},
		{"rotten, then torn", []g{{1, 1, 0, true}, {2, 1, 1, false}, {3, 1, 2, true}}, 2, []Range{{1, 1}}, true},
		{"part of a gap was durable", []g{{1, 1, 0, false}, {2, 2, 1, true}, {4, 1, 2, false}}, 2, []Range{{2, 2}}, true},
		{"a mark vouches", []g{{1, 1, 0, false}, {2, 1, 1, true}, {3, 0, 2, false}}, 2, []Range{{2, 2}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, o, f := forged(t)
			for _, g := range c.groups {
				f.group(g.first, g.records, g.durable, g.broken)
			}
			_, rec := mustOpen(t, o)
			if rec.Last != c.last || !slices.Equal(rec.Rotten, c.rotten) || rec.Cut != c.cut {
				t.Errorf("%+v, want last %d, rotten %v, cut %v", rec, c.last, c.rotten, c.cut)
			}
		})
	}
}

// A sound group beyond a cut stays dead in all later lives, even those that write
// nothing, and whether or not its LSNs are used again.
func TestCutBytesStayDead(t *testing.T) {
	for appends := range 12 {
		grouped := appends >= 6 // LSNs grow faster than blocks, and meet the dead ones
		m, o, f := forged(t)
		f.group(1, 2, 0, false)
		f.group(3, 2, 2, true)  // torn
		f.group(5, 1, 2, false) // issued with it, and whole
		f.group(6, 1, 2, false)
		f.group(7, 1, 2, false)
		want := []string{"1 of opening 1", "2 of opening 1"}
		for life := range 4 {
			j, rec := mustOpen(t, o)
			if rec.Rotten != nil {
				t.Fatalf("%d appends, life %d: %+v", appends, life, rec)
			}
			if got := heads(t, j); !slices.Equal(got, want) {
				t.Fatalf("%d appends, life %d: %q, want %q", appends, life, got, want)
			}
			if life == 1 {
				for i := range appends % 6 {
					r := &Record{Head: fmt.Appendf(nil, "new %d", i), Done: func(*Record, error) {}}
					want = append(want, string(r.Head))
					j.Append(r)
					if !grouped {
						j.Commit()
					}
				}
				j.Commit()
			}
			m = m.Crash(uint64(life))
			o.FS = m
		}
	}
}

// A group kept in part keeps that part, and no more, later.
func TestCutInsideAGroup(t *testing.T) {
	m, o, groups := sample(t, false)
	g := groups[2] // pretend it was the last: destroy the one after it
	name := "journal/" + segmentName(g.seg.slot)
	wipe := func(p []byte) { clear(p) }
	if err := m.Damage(name, int64(groups[3].block)*BlockSize, wipe, int(groups[3].size())); err != nil {
		t.Fatal(err)
	}
	torn := LSN(0)
	views(t, m, groups[2:3])[g.first].Frames(func(lsn uint64, at int, fr record.Frame) bool {
		if LSN(lsn) > g.first && fr.Blocks() > 0 {
			torn = LSN(lsn)
			if err := m.Damage(name, (int64(g.block)+int64(at))*BlockSize, wipe, 512); err != nil {
				t.Fatal(err)
			}
			return false
		}
		return true
	})
	if torn == 0 || torn == g.end-1 {
		t.Fatalf("the sample does not serve: torn %d in %d..%d", torn, g.first, g.end-1)
	}
	for life, last := 0, torn-1; life < 4; life++ {
		j, rec := mustOpen(t, o)
		if rec.Last != last || rec.Rotten != nil || rec.Cut != (life == 0) {
			t.Fatalf("life %d: %+v, want last %d", life, rec, last)
		}
		replaySound(t, j, rec, "cut inside")
		if life == 0 {
			continue
		}
		// The LSN that was torn is used again, and is sound now.
		last++
		r := fill(new(Record), uint64(last))
		r.Done = func(*Record, error) {}
		j.Append(r)
		j.Commit()
	}
}

func TestUnreadableEndIsNotCut(t *testing.T) {
	m, o, groups := sample(t, false)
	last := groups[3]
	if last.data == 0 {
		t.Fatal("the sample does not serve: no data in the last group")
	}
	name := "journal/" + segmentName(last.seg.slot)
	for _, c := range []struct {
		block uint32
		open  bool
		lost  []Range
	}{
		{0, false, nil}, // the header tells the generation
		{groups[1].block, true, []Range{{groups[1].first, groups[1].end - 1}}},
		{last.block, false, nil},
		{last.block + last.header, false, nil},
		{last.block + last.header + last.data, false, nil}, // a group may have been there
		{last.block + last.header + last.data + 1, true, nil},
	} {
		f := vfs.NewFault(m.Crash(0), vfs.MustPlan(fmt.Sprintf("read %s at=%d+512 fail EIO", name, c.block*BlockSize)), 1)
		o.FS = f
		j, rec, err := Open(o)
		switch {
		case !c.open:
			if !errors.Is(err, ErrUnreadable) {
				t.Errorf("block %d: %v", c.block, err)
			}
		case err != nil:
			t.Errorf("block %d: %v", c.block, err)
		case !slices.Equal(rec.Rotten, c.lost) || rec.Last != last.end-1 || rec.Unreadable != 1:
			t.Errorf("block %d: %+v, want rotten %v", c.block, rec, c.lost)
		default:
			replaySound(t, j, rec, "unreadable")
		}
	}
}

func TestNewerVersionIsNotCorruption(t *testing.T) {
	for _, at := range []int64{0, BlockSize} {
		m, o, _ := sample(t, false)
		name := "journal/" + segmentName(0)
		bump := func(p []byte) { p[8]++; record.Reseal(p) }
		if err := m.Damage(name, at, bump, BlockSize); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(o); !errors.Is(err, record.ErrVersion) {
			t.Errorf("header at %d: %v", at, err)
		}
	}
}

// round makes a journal whose segments have all been used several times, closes
// it, and returns its disk.
func round(t *testing.T) (*vfs.Memory, Options, *Recovery) {
	t.Helper()
	m := vfs.NewMemory(16 << 20)
	o := small(m)
	o.Capacity = 4 * o.Segment
	o.Manual, o.Create = true, true
	j, _ := mustOpen(t, o)
	for n := uint64(1); n <= 150; n++ {
		r := fill(new(Record), n)
		r.Done = func(*Record, error) {}
		j.Append(r)
		j.Commit()
		if n > 10 {
			j.Trim(LSN(n) - 10)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	o.Create = false
	clone := o
	clone.FS = m.Crash(0)
	_, rec := mustOpen(t, clone)
	if rec.Last != 150 || rec.First != 140 {
		t.Fatalf("%+v", rec)
	}
	return m, o, rec
}

// What an earlier use of a segment left in it is not even seen, and without the
// headers the newest use is the one that is found.
func TestRecycledSegmentsAreDead(t *testing.T) {
	for _, headers := range []bool{true, false} {
		m, o, want := round(t)
		if !headers {
			for _, name := range m.Files() {
				if err := m.Damage(name, 0, func(p []byte) { clear(p) }, BlockSize); err != nil {
					t.Fatal(err)
				}
			}
		}
		j, rec := mustOpen(t, o)
		if rec.First != want.First || rec.Last != want.Last || rec.Rotten != nil {
			t.Errorf("headers %v: %+v, want %+v", headers, rec, want)
		}
		replaySound(t, j, rec, "recycled")
		scans, err := j.scanAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, sc := range scans {
			for i := 1; i < len(sc.groups); i++ {
				a, b := sc.groups[i-1], sc.groups[i]
				if b.first != a.end || b.block != a.block+a.header+a.data {
					t.Errorf("segment %d: group of %d at block %d follows that of %d", sc.seg.slot, b.first, b.block, a.first)
				}
			}
		}
	}
}

// A group that was written to the wrong place is not there.
func TestMisdirectedGroup(t *testing.T) {
	_, o, f := forged(t)
	f.group(1, 2, 0, false)
	f.group(3, 1, 2, false)
	f.file.WriteAt(vfs.AlignedBuffer(BlockSize), 2*BlockSize) // where it should be
	f.block = 2
	moved := &forge{t: t, file: misdirected{f.file}, block: 2, gen: f.gen, opening: 1, base: 1}
	moved.group(3, 1, 2, false)
	_, rec := mustOpen(t, o)
	if rec.Last != 2 || rec.Rotten != nil {
		t.Errorf("%+v", rec)
	}
}

type misdirected struct{ vfs.File }

func (m misdirected) WriteAt(p []byte, off int64) (int, error) {
	return m.File.WriteAt(p, off+BlockSize)
}

// A later opening's base vouches for all below it, even if it is only in the
// header of a segment without groups; then the log does not go on over what
// rotted, but in a new segment.
func TestBaseVouches(t *testing.T) {
	header := func(generation, opening, base uint64) *record.Segment {
		return &record.Segment{Generation: generation, Opening: opening, Base: base, Trim: 1}
	}
	first := &scan{seg: &segment{size: segmentMin}, size: segmentMin, generation: 1, header: header(1, 1, 1)}
	first.groups = []group{{seg: first.seg, block: 1, header: 1, first: 1, end: 3, opening: 1, base: 1, trim: 1}}
	empty := &scan{seg: &segment{slot: 1, size: segmentMin}, size: segmentMin, generation: 2, header: header(2, 2, 6)}
	v, err := judge([]*scan{first, empty})
	if err != nil {
		t.Fatal(err)
	}
	if v.Last != 5 || !slices.Equal(v.Rotten, []Range{{3, 5}}) || v.tail != nil {
		t.Errorf("%+v", v)
	}
}
