package explore

// hashSet is a set of 64-bit hashes, eight bytes each: open addressing, at most
// two thirds full.
type hashSet struct {
	slots []uint64
	n     int
}

func newHashSet() *hashSet { return &hashSet{slots: make([]uint64, 1<<16)} }

// add reports whether h is new.
func (t *hashSet) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	if 3*t.n >= 2*len(t.slots) {
		old := t.slots
		t.slots, t.n = make([]uint64, 2*len(old)), 0
		for _, h := range old {
			if h != 0 {
				t.add(h)
			}
		}
	}
	for i := h & uint64(len(t.slots)-1); ; i = (i + 1) & uint64(len(t.slots)-1) {
		switch t.slots[i] {
		case h:
			return false
		case 0:
			t.slots[i] = h
			t.n++
			return true
		}
	}
}

// frontier holds the states of one depth, as bytes in large pieces that are
// let go of as they are read.
type frontier struct {
	pieces [][]byte
	n      int
}

const pieceSize = 1 << 20

func newFrontier() *frontier { return &frontier{} }

func (f *frontier) push(b []byte, id int32) {
	need := len(b) + 8
	if len(f.pieces) == 0 || cap(f.pieces[len(f.pieces)-1])-len(f.pieces[len(f.pieces)-1]) < need {
		f.pieces = append(f.pieces, make([]byte, 0, pieceSize))
	}
	p := &f.pieces[len(f.pieces)-1]
	n := uint32(len(b))
	*p = append(*p, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	*p = append(*p, b...)
	f.n++
}

func (f *frontier) each(g func(b []byte, id int32) bool) {
	for i, p := range f.pieces {
		for len(p) > 0 {
			n := uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
			id := int32(uint32(p[4]) | uint32(p[5])<<8 | uint32(p[6])<<16 | uint32(p[7])<<24)
			if !g(p[8:8+n], id) {
				return
			}
			p = p[8+n:]
		}
		f.pieces[i] = nil
	}
}
