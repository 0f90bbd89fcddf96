package brick

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"petal/placement"
)

// TestMemberModel: without a crash, a brick does for a member of a link what its
// model does.
func TestMemberModel(t *testing.T) {
	var sum memberStats
	for seed := range uint64(30) {
		g := newMemberRig(seed)
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if err := g.memberAct(); err != nil {
				t.Fatalf("seed %d, act %d: %v", seed, i, err)
			}
		}
		if err := g.verifyAll(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sum.add(&g.stats)
		if err := g.b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%+v", sum)
	if sum.abandoned == 0 || sum.fills == 0 || sum.missing == 0 || sum.repairs == 0 {
		t.Error("the model did not reach what it is for")
	}
}

func (s *memberStats) add(o *memberStats) {
	s.prepared += o.prepared
	s.abandoned += o.abandoned
	s.committed += o.committed
	s.fills += o.fills
	s.missing += o.missing
	s.repairs += o.repairs
	s.torn += o.torn
}

func (g *memberRig) verifyAll() error {
	for _, k := range g.keys() {
		if err := g.verify(k); err != nil {
			return err
		}
	}
	if err := g.verifyLasts(); err != nil {
		return err
	}
	return g.verifyNotes()
}

// verifyLasts checks how far each bucket is said to have come, in a life without
// a crash.
func (g *memberRig) verifyLasts() (err error) {
	now := map[placement.Bucket]Last{}
	g.b.Lasts(memberLink, func(b placement.Bucket, l Last) { now[b] = l })
	g.inOrder(func(b placement.Bucket, ops []*memberOp) {
		var committed, durable placement.Stamp
		for _, o := range ops {
			if o.done {
				durable = o.stamp
			}
			if o.done && o.committed {
				committed = o.stamp
			}
		}
		if l := now[b]; err == nil && (l.Committed != committed || l.Durable.Before(committed) || durable.Before(l.Durable)) {
			err = fmt.Errorf("bucket %d has come to %+v, want %v and %v", b, l, durable, committed)
		}
	})
	return err
}

// restart opens the brick on what a crash has left, checks what it says of it,
// decides about what is in doubt, and checks what the chunks hold then.
func (g *memberRig) restart() error {
	if err := g.reopen(hold); err != nil {
		return err
	}
	g.rewind()
	g.stats.torn += g.recovery.Torn
	prepared, err := g.survivors()
	if err != nil {
		return err
	}
	if err := g.readPrepared(prepared); err != nil {
		return err
	}
	if g.rng.IntN(2) == 0 {
		for _, o := range prepared {
			o.committed = true
			g.b.Commit(o.r)
		}
	} else {
		g.discardPrepared(prepared)
	}
	g.settleDone()
	for range 20 { // the journal may be full
		if !slices.ContainsFunc(prepared, func(o *memberOp) bool { return o.aborting && !o.aborted }) {
			break
		}
		if err := g.b.drain(); err != nil {
			return err
		}
		g.settleDone()
	}
	g.ver++
	clear(g.seq)
	for _, k := range g.keys() {
		if err := g.settleLocal(k); err != nil {
			return err
		}
	}
	for _, k := range g.keys() {
		if err := g.verify(k); err != nil {
			return err
		}
	}
	return g.verifyNotes()
}

// survivors finds out which records of the link's order there still are, and
// returns those in doubt.
func (g *memberRig) survivors() (prepared []*memberOp, err error) {
	rec := g.recovery
	lasts := map[placement.Bucket]Last{}
	g.b.Lasts(memberLink, func(b placement.Bucket, l Last) { lasts[b] = l })
	inDoubt := map[int]*Record{}
	for _, r := range rec.Prepared {
		inDoubt[int(r.Op.Number)] = r
	}
	g.inOrder(func(b placement.Bucket, ops []*memberOp) {
		told := true // all before were acknowledged
		for _, o := range ops {
			r, doubt := inDoubt[o.n], inDoubt[o.n] != nil
			l := lasts[b]
			known := !l.Committed.Before(o.stamp)
			switch {
			case doubt && (o.abortAcked || r.Key != o.key || r.Mask != o.mask || r.Stamp() != o.stamp || r.Excluded != o.excl || r.Link != memberLink || r.Bucket != b):
				err = fmt.Errorf("in doubt is %+v, want %+v", r, o)
			case doubt && known:
				err = fmt.Errorf("%v of bucket %d is in doubt and committed: %+v", o.stamp, b, l)
			case doubt && !told:
				err = fmt.Errorf("%v of bucket %d is in doubt behind one that is lost", o.stamp, b)
			case doubt && l.Durable.Before(o.stamp):
				err = fmt.Errorf("%v of bucket %d is there, but the last is %+v", o.stamp, b, l)
			case doubt:
				o.r, o.done, o.committed, o.aborting, o.aborted = r, true, false, false, false
				prepared = append(prepared, o)
				g.stats.prepared++
				continue
			case known && (!o.committed || o.aborting):
				err = fmt.Errorf("%v of bucket %d is said to be committed", o.stamp, b)
			case known:
				continue
			case o.acked && told && !o.aborting:
				err = fmt.Errorf("%v of bucket %d is lost (%+v)", o.stamp, b, l)
			case !o.acked || !told || o.aborting:
				told = told && o.acked
				o.gone = true
			}
			if err != nil {
				return
			}
		}
	})
	return prepared, err
}

// readPrepared reads what the records in doubt wrote.
func (g *memberRig) readPrepared(prepared []*memberOp) error {
	for _, o := range prepared {
		if o.typ == typeZero {
			continue
		}
		over := false
		op := &ReadOp{Done: func(*ReadOp) { over = true }}
		g.b.ReadPrepared(o.r, op)
		err := g.finish(op, &over, func() error {
			var got state
			if err := g.readInto(op, &got); err != nil {
				return err
			}
			k := 0
			for i := range got {
				if o.mask>>i&1 != 0 {
					if got[k] != o.set[i] && !g.above(o, i, got[k]) {
						return fmt.Errorf("block %d of %+v is %d", i, o, got[k])
					}
					k++
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// above reports whether a later record in doubt, or a fill, wrote that to a block
// of a record in doubt whose data lay in its extent.
func (g *memberRig) above(o *memberOp, i int, id uint64) bool {
	return o.mask == placement.Full && slices.ContainsFunc(g.ops[o.n:], func(x *memberOp) bool {
		return x.key == o.key && x.mask>>i&1 != 0 && x.set[i] == id && !x.gone
	})
}

// discardPrepared does what an excluded member does with its tail (R9).
func (g *memberRig) discardPrepared(prepared []*memberOp) {
	for _, o := range prepared {
		g.addMissing([]Mark{{o.bucket, o.key, o.mask}}, placement.Stamp{})
	}
	for _, o := range slices.Backward(prepared) {
		o.aborting = true
		g.stats.abandoned++
		g.b.Abandon(o.r, func(err error) { o.aborted, o.gone = true, true })
	}
}

// settleLocal finds out how many of the brick's own records there still are of
// those that were under way when the power went: a chunk's first few.
func (g *memberRig) settleLocal(k placement.Key) error {
	var unknown []*memberOp
	for _, o := range g.ops {
		if o.key == k && !o.typ.ordered() && !o.done && !o.gone {
			unknown = append(unknown, o)
		}
	}
	got, err := g.at(k)
	if err != nil {
		return err
	}
	var want state
	for n := 0; n <= len(unknown); n++ {
		want = g.foldOf(k, func(o *memberOp) bool {
			i := slices.Index(unknown, o)
			return o.seen() || i >= 0 && i < n
		})
		if !same(k, got, want) {
			continue
		}
		for i, o := range unknown {
			if o.typ == typeMarks {
				continue // it may be there, and stays so
			}
			o.done, o.gone = i < n, i >= n
		}
		return nil
	}
	return fmt.Errorf("%+v holds\n%v after the crash, want\n%v or less (%d unknown)", k, got, want, len(unknown))
}

// TestMemberCrashAtEveryCall takes the power away from a member's brick at every
// device call of a run, and at others in its next lives.
func TestMemberCrashAtEveryCall(t *testing.T) {
	var sum memberStats
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		stride := 7
		if seed == 0 && !testing.Short() {
			stride = 1
		}
		for at := 1 + int(seed); ; at += stride {
			more, err := memberLives(seed, at, &sum)
			if err != nil {
				t.Fatalf("seed %d, crash at call %d: %v", seed, at, err)
			}
			if !more {
				break
			}
		}
	}
	t.Logf("%+v", sum)
	if sum.prepared == 0 || sum.torn == 0 || sum.abandoned == 0 {
		t.Error("the crashes did not reach what they are for")
	}
}

func memberLives(seed uint64, at int, sum *memberStats) (more bool, err error) {
	g := newMemberRig(seed)
	if err := g.start(); err != nil {
		return false, err
	}
	for life := range 4 {
		g.crashAtCall(at)
		err := g.guard(func() error {
			for range 150 {
				if g.powerless() {
					return nil
				}
				if err := g.memberAct(); err != nil {
					return err
				}
			}
			g.crash()
			return nil
		})
		if err != nil {
			return false, fmt.Errorf("life %d: %w", life, err)
		}
		more = more || life == 0 && g.counted() >= at
		if err := g.restart(); err != nil {
			return false, fmt.Errorf("after life %d: %w", life, err)
		}
		at = 1 + g.rng.IntN(80)
	}
	sum.add(&g.stats)
	if err := g.auditMember(); err != nil {
		return false, err
	}
	err = g.b.Close()
	g.o.Cache.DropFamily(1)
	return more, errors.Join(err, g.o.Pool.Close())
}

// auditMember is audit, with everything committed.
func (g *memberRig) auditMember() error {
	if !g.quiet() {
		return fmt.Errorf("not everything ends")
	}
	if err := g.b.drain(); err != nil { // so that aborts find room
		return err
	}
	return g.audit()
}
