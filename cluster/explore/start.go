package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// begin makes the first state of the case.
func (s *state) begin() {
	w := &s.w
	for b := range s.k.Blocks {
		w.mon[b] = bit(0, 0)
	}
	w.agree(entry{entryConfig, 1, s.k.members(), 0})
	for x := range s.k.Members {
		w.srv[x].up, w.srv[x].leased, w.srv[x].raft = true, true, true
		for y := range x {
			for _, e := range [2][2]int{{x, y}, {y, x}} {
				s.step(e[0], &link.Event{Kind: link.EventUp, Member: placement.Member(e[1])}, 0)
			}
		}
	}
	for x := range s.k.Members {
		s.apply(x)
		s.step(x, &link.Event{Kind: link.EventLease, Until: forever, Index: 1}, 0)
	}
	s.quiesce()
	switch s.k.Start {
	case Degraded:
		s.degrade()
	case Joined, Forsaken:
		s.degrade()
		s.quiesce()
		s.do(move{kind: mvRejoined, a: uint8(s.k.Members - 1)})
		s.quiesce()
		if s.k.Start == Forsaken {
			s.forsake()
		}
	case Tailed:
		s.tail()
	case Marked:
		s.marked()
	case Halfway:
		s.all(move{kind: mvAdmit})
		s.degrade()
		s.quiesce()
		s.all(move{kind: mvAdmit, c: uint8(len(s.k.Writes) - 1)}, move{kind: mvDestage}, move{kind: mvRot, a: 1}, move{kind: mvCrash}, move{kind: mvDisconnect, b: 1})
		s.comeBack(0)
		s.comeBack(1)
	case Lonely:
		s.desert()
		s.comeBack(1)
		s.comeBack(2)
	case Bereft:
		s.desert()
		s.comeBack(1)
		s.quiesce()
		s.bereave()
		s.comeBack(2)
	case Unheard:
		s.unheard()
	case Outlived:
		s.outlived()
	case Remembered:
		s.remembered()
	}
	w.used = Budget{}
}

// quiesce makes all moves that wait for nobody.
func (s *state) quiesce() {
	for again := true; again; {
		again = false
		s.each(func(mv move) {
			switch mv.kind {
			case mvSync, mvApply, mvDeliver, mvTell, mvSendCut:
				if !again {
					again = true
					s.do(mv)
				}
			}
		})
	}
}

// desert excludes all but the head, which makes all writes but the last.
func (s *state) desert() {
	for x := uint8(2); x > 0; x-- {
		for _, mv := range []move{{kind: mvCrash, a: x}, {kind: mvDisconnect, a: 0, b: x}, {kind: mvDisconnect, a: 1, b: 2}, {kind: mvExclude, a: x}} {
			if mv.kind != mvDisconnect || s.w.net[pairOf(int(mv.a), int(mv.b))] != netDown {
				s.do(mv)
				s.quiesce()
			}
		}
	}
	for i := range len(s.k.Writes) - 1 {
		s.do(move{mvAdmit, 0, 0, uint8(i)})
		s.quiesce()
	}
}

func (s *state) comeBack(x uint8) {
	s.do(move{kind: mvRestart, a: x})
	s.do(move{kind: mvGrant, a: x})
}

// bereave lets member 1 in and excludes the head, the only one that has what
// the others miss.
func (s *state) bereave() {
	for _, mv := range []move{{kind: mvRejoined, a: 1}, {kind: mvCrash, a: 0}, {kind: mvDisconnect, a: 0, b: 1}, {kind: mvExclude, a: 0}} {
		s.do(mv)
		s.quiesce()
	}
	if s.w.current().insync != placement.Members(0).With(1) {
		panic("explore: member 1 is not alone")
	}
}

// forsake excludes the only member that has what the other misses.
func (s *state) forsake() {
	for _, mv := range []move{{kind: mvCrash, a: 0}, {kind: mvDisconnect, a: 0, b: 1}, {kind: mvExclude, a: 0}, {kind: mvApply, a: 1}, {kind: mvAdmit, a: 1, c: 1}} {
		s.do(mv)
		s.quiesce()
	}
}

// tail excludes the head while a record of it is durable at itself alone.
func (s *state) tail() {
	for _, mv := range []move{
		{kind: mvAdmit, a: 0, c: 0}, {kind: mvSync, a: 0}, {kind: mvCrash, a: 0}, {kind: mvDisconnect, a: 0, b: 1}, {kind: mvExclude, a: 0},
		{kind: mvApply, a: 1}, {kind: mvAdmit, a: 1, c: 1}, {kind: mvSync, a: 1}, {kind: mvRestart, a: 0}, {kind: mvGrant, a: 0},
	} {
		s.do(mv)
	}
}

// degrade excludes the last member, and has head write what there is to write
// but for the last, then brings the member back, out of sync.
func (s *state) degrade() {
	x := uint8(s.k.Members - 1)
	for _, mv := range []move{{kind: mvCrash, a: x}, {kind: mvDisconnect, a: 0, b: x}, {kind: mvDisconnect, a: x - 1, b: x}, {kind: mvExclude, a: x}} {
		if mv.kind == mvDisconnect && (mv.a == mv.b || s.w.net[pairOf(int(mv.a), int(mv.b))] == netDown) {
			continue
		}
		s.do(mv)
		s.quiesce()
	}
	for i := range len(s.k.Writes) - 1 {
		if s.w.wst[i] == wNew {
			s.do(move{mvAdmit, 0, 0, uint8(i)})
			s.quiesce()
		}
	}
	s.do(move{kind: mvRestart, a: x})
	s.w.srv[x].leased = true
	s.step(int(x), &link.Event{Kind: link.EventLease, Until: forever, Index: uint64(s.w.nlog)}, 0)
}

// marked has member 1 copy what member 0 had marked for it, and write it anew while
// 0 is out: so 0 misses what it once had marked. Then 1 falls out again.
func (s *state) marked() {
	out := func(x uint8) {
		s.all(move{kind: mvCrash, a: x}, move{kind: mvDisconnect, b: 1}, move{kind: mvExclude, a: x})
	}
	in := func(x uint8) {
		s.comeBack(x)
		s.quiesce()
		s.all(move{kind: mvRejoined, a: x})
	}
	out(1)
	s.all(move{kind: mvAdmit})
	in(1)
	s.all(move{kind: mvFetch, a: 1}, move{kind: mvFill, a: 1})
	out(0)
	s.all(move{kind: mvAdmit, a: 1, c: 1})
	in(0)
	out(1)
	s.comeBack(1)
	if s.w.current().insync != 1 || s.w.srv[0].disk.missing != 1 || s.w.srv[1].disk.missing != 0 {
		panic("explore: the start is not as it should be")
	}
}

// unheard has member 2 fall out with write 0, of which it has not heard that it
// was committed, while 1 is out; then it is as in Bereft.
func (s *state) unheard() {
	s.all(move{kind: mvCrash, a: 1}, move{kind: mvDisconnect, a: 0, b: 1}, move{kind: mvDisconnect, a: 1, b: 2}, move{kind: mvExclude, a: 1})
	for _, mv := range []move{
		{kind: mvAdmit, a: 0}, {kind: mvDeliver, a: 0, b: 2}, {kind: mvSync, a: 0}, {kind: mvSync, a: 2}, {kind: mvDeliver, a: 2, b: 0}, {kind: mvCrash, a: 2},
	} {
		s.do(mv)
	}
	s.all(move{kind: mvDisconnect, a: 0, b: 2}, move{kind: mvExclude, a: 2}, move{kind: mvAdmit, c: 1})
	s.comeBack(1)
	s.quiesce()
	s.bereave()
	s.comeBack(2)
}

// remembered has 1 see 2 fall out with nothing, and be cut off itself while 2 is
// let in, makes write 0 and falls out again without having heard that it was
// committed; then it is as in Bereft.
func (s *state) remembered() {
	s.all(move{kind: mvCrash, a: 2}, move{kind: mvDisconnect, a: 0, b: 2}, move{kind: mvDisconnect, a: 1, b: 2}, move{kind: mvExclude, a: 2},
		move{kind: mvFence, a: 1}, move{kind: mvDisconnect, a: 0, b: 1}, move{kind: mvExclude, a: 1})
	s.comeBack(2)
	s.do(move{kind: mvDisconnect, a: 1, b: 2})
	s.quiesce()
	s.all(move{kind: mvRejoined, a: 2})
	for _, mv := range []move{
		{kind: mvAdmit, a: 0}, {kind: mvDeliver, a: 0, b: 2}, {kind: mvSync, a: 0}, {kind: mvSync, a: 2}, {kind: mvDeliver, a: 2, b: 0}, {kind: mvCrash, a: 2},
	} {
		s.do(mv)
	}
	s.all(move{kind: mvDisconnect, a: 0, b: 2}, move{kind: mvExclude, a: 2}, move{kind: mvAdmit, c: 1}, move{kind: mvConnect, a: 0, b: 1})
	s.bereave()
	s.comeBack(2)
}

// outlived has the head fall out with write 0 in its tail; of the others 2 is
// stopped before it opens without it, and let in again by 1, which has made
// write 1 and then falls out, too; the first head comes back.
func (s *state) outlived() {
	for _, mv := range []move{{kind: mvAdmit, a: 0}, {kind: mvSync, a: 0}, {kind: mvCrash, a: 0}, {kind: mvDisconnect, a: 0, b: 1}, {kind: mvDisconnect, a: 0, b: 2}, {kind: mvExclude, a: 0},
		{kind: mvFence, a: 2}, {kind: mvApply, a: 2}, {kind: mvApply, a: 2}, {kind: mvExclude, a: 2}} {
		s.do(mv)
	}
	s.quiesce()
	s.all(move{kind: mvAdmit, a: 1, c: 1}, move{kind: mvRejoined, a: 2}, move{kind: mvCrash, a: 1}, move{kind: mvDisconnect, a: 1, b: 2}, move{kind: mvExclude, a: 1})
	s.comeBack(0)
}

// all makes moves, each with what follows of itself.
func (s *state) all(moves ...move) {
	for _, mv := range moves {
		s.do(mv)
		s.quiesce()
	}
}
