package sim

import (
	"petal/cluster/wire"
	"petal/placement"
	"testing"
	"time"
)

// story is a history of one block, told by calls and returns in order.
type story struct{ h *history }

func (s *story) call(k kind, v value, seen ...value) *attempt {
	a := &attempt{kind: k, v: v, mask: 1, call: s.h.now(), ret: forever}
	if len(seen) > 0 {
		a.seen[0] = seen[0]
	}
	s.h.add(1, a)
	return a
}

func (s *story) end(a *attempt, o outcome) { a.outcome, a.ret = o, s.h.now() }

func (s *story) read(v value)  { s.end(s.call(opRead, 0, v), done) }
func (s *story) write(v value) { s.end(s.call(opWrite, v), done) }

// TestChecker tells stories that are possible, and the nearest ones that are not.
func TestChecker(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   bool
		tell func(s *story)
	}{
		{"what was written is read", true, func(s *story) { s.read(0); s.write(1); s.read(1) }},
		{"an old value", false, func(s *story) { s.write(1); s.write(2); s.read(1) }},
		{"a lost write", false, func(s *story) { s.write(1); s.read(0) }},
		{"a value nobody wrote", false, func(s *story) { s.read(9) }},
		{"overlapping", true, func(s *story) { a := s.call(opWrite, 1); s.write(2); s.end(a, done); s.read(1) }},
		{"flip-flop", false, func(s *story) { s.call(opWrite, 1); s.read(1); s.read(0) }},
		{"an open write shows late", true, func(s *story) { s.call(opWrite, 1); s.write(2); s.read(2); s.read(1) }},
		{"an open write shows twice", false, func(s *story) { s.call(opWrite, 1); s.write(2); s.read(1); s.read(2) }},
		{"an open write that never shows", true, func(s *story) { s.call(opWrite, 1); s.read(0); s.write(2); s.read(2) }},
		{"a bounded write shows late", false, func(s *story) { a := s.call(opWrite, 1); s.end(a, unknown); s.write(2); s.read(2); s.read(1) }},
		{"a bounded write shows in time", true, func(s *story) { a := s.call(opWrite, 1); s.end(a, unknown); s.read(1) }},
		{"a write that never was shows", false, func(s *story) { a := s.call(opWrite, 1); s.end(a, never); s.read(1) }},
		{"open zeros", true, func(s *story) { s.write(1); s.call(opZero, 0); s.read(1); s.read(0); s.write(2) }},
		{"open zeros end what was before them", false, func(s *story) { s.write(1); s.call(opZero, 0); s.read(0); s.read(1) }},
		{"compare and write", true, func(s *story) { s.write(1); s.end(s.call(opCAW, 2, 1), done); s.read(2) }},
		{"it compares with what is not there", false, func(s *story) { s.write(1); s.write(2); s.end(s.call(opCAW, 3, 1), done) }},
		{"it miscompares with what is there", false, func(s *story) { s.write(1); s.end(s.call(opCAW, 2, 1), miscompare) }},
		{"it miscompares with an open write", true, func(s *story) { s.write(1); s.call(opWrite, 9); s.end(s.call(opCAW, 2, 1), miscompare) }},
		{"a miscompare writes", false, func(s *story) { s.write(1); s.end(s.call(opCAW, 2, 5), miscompare); s.read(2) }},
		{"two of one counter", false, func(s *story) {
			s.write(1)
			a, b := s.call(opCAW, 2, 1), s.call(opCAW, 3, 1)
			s.end(a, done)
			s.end(b, done)
		}},
		{"one of two of one counter", true, func(s *story) {
			s.write(1)
			a, b := s.call(opCAW, 2, 1), s.call(opCAW, 3, 1)
			s.end(a, miscompare)
			s.end(b, done)
			s.read(3)
		}},
		{"an open one that took effect", true, func(s *story) { s.write(1); s.call(opCAW, 2, 1); s.read(2) }},
		{"an open one that can't have", false, func(s *story) { s.write(1); s.write(3); s.call(opCAW, 2, 1); s.read(2) }},
	} {
		s := &story{h: newHistory()}
		c.tell(s)
		bad, gaveUp := s.h.check(time.Minute)
		if (len(bad) == 0) != c.ok || gaveUp != 0 {
			t.Errorf("%s: possible %v, want %v\n%s", c.name, len(bad) == 0, c.ok, describe(s.h.blocks[1]))
		}
	}
}

func TestSectorsDescribeThemselves(t *testing.T) {
	p := make([]byte, 2*sectorBytes)
	fillAll(p, 77, 10*sectorBytes)
	if v, ok := tell(p[sectorBytes:], 11); v != 77 || !ok {
		t.Errorf("%d, %v", v, ok)
	}
	if _, ok := tell(p, 11); ok {
		t.Error("a sector is taken at another place")
	}
	for i := range sectorBytes {
		p[i] ^= 4
		if _, ok := tell(p, 10); ok {
			t.Errorf("a bit of byte %d changed, and nobody sees it", i)
		}
		p[i] ^= 4
	}
	torn := append([]byte{}, p[:sectorBytes]...)
	fill(torn, 78, 10)
	copy(torn[200:], p[200:sectorBytes])
	if _, ok := tell(torn, 10); ok {
		t.Error("a torn sector passes")
	}
	fillAll(p, 0, 0)
	if v, ok := tell(p, 5); v != 0 || !ok {
		t.Error("zeros are not zero")
	}
}

// TestSectorsDifferForChecksums: petal's checksum tells any two blocks apart
// that a run writes, which it can't if sectors end with a CRC of their own.
func TestSectorsDifferForChecksums(t *testing.T) {
	seen := map[uint32]value{}
	for v := value(0); v < 2000; v++ {
		p := make([]byte, placement.BlockSize)
		fillAll(p, v, 8192)
		sum := wire.Sum(p)
		if old, ok := seen[sum]; ok {
			t.Fatalf("values %d and %d have the same checksum", old, v)
		}
		seen[sum] = v
	}
}
