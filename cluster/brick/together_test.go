package brick

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"syscall"
	"testing"

	"petal/placement"
)

// togetherRig appends records that are one: each time, the same mask of some
// chunks gets the next version of its content.
type togetherRig struct {
	*rig
	masks  []placement.Mask // by chunk
	issued uint64           // version
	acked  uint64           // all are committed
	open   int              // records of the last version that are not
}

func newTogetherRig(seed uint64, masks ...placement.Mask) *togetherRig {
	return &togetherRig{rig: newRig(seed, roomy), masks: masks}
}

// roomy gives the journal segments that 1 MiB fits into.
func roomy(o *Options) { o.SegmentBytes, o.JournalBytes = 2<<20, 8<<20 }

// records makes the next version.
func (g *togetherRig) records(lazy bool) (rs []*Record) {
	g.issued++
	version := g.issued
	for c, m := range g.masks {
		k := placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)}
		r := &Record{Key: k, Mask: m, Bucket: placement.BucketOf(1, k.Chunk), Seq: version}
		r.Lazy = lazy
		r.Buf = g.o.Pool.Get(blocks(m) * placement.BlockSize)
		for i := range blocks(m) {
			fill(block(r.Buf.Bytes(), i), version)
			r.Sum[i] = crc32.Checksum(block(r.Buf.Bytes(), i), castagnoli)
		}
		r.Done = func(r *Record, err error) {
			if err != nil {
				return
			}
			g.b.Commit(r)
			if g.open--; g.open == 0 {
				g.model.mu.Lock()
				g.acked = version
				g.model.mu.Unlock()
			}
		}
		rs = append(rs, r)
	}
	g.open = len(rs)
	return rs
}

func (g *togetherRig) appendAll(lazy bool) error {
	rs := g.records(lazy)
	err := g.b.AppendAll(rs)
	for _, r := range rs {
		r.Buf.Release()
	}
	return err
}

// extent makes an extent-write beside them.
func (g *togetherRig) extent() error {
	r := record(g.b, g.rng, placement.Key{Family: 1, Node: 1, Chunk: 1000}, placement.Full, Write)
	defer r.Buf.Release()
	r.Done = func(r *Record, err error) {
		if err == nil {
			g.b.Commit(r)
		}
	}
	return g.b.Append(r)
}

// steps does random things until the power goes.
func (g *togetherRig) steps(n int) error {
	return g.guard(func() error {
		for range n {
			var err error
			switch x := g.rng.IntN(12); {
			case x < 4 && g.open == 0:
				err = g.appendAll(g.rng.IntN(3) == 0)
			case x < 5:
				err = g.extent()
				for g.b.Step() {
				}
			case x < 9:
				g.b.StepJournal()
			case x < 11:
				g.b.StepDestage(0)
			default:
				err = g.b.StepFlushMap()
			}
			if err != nil {
				return err
			}
		}
		g.crash()
		return nil
	})
}

// version reads all chunks, which must be of one version.
func (g *togetherRig) version() (v uint64, err error) {
	for c, m := range g.masks {
		s, _, err := g.entryAt(placement.Key{Family: 1, Node: 1, Chunk: placement.Chunk(c)})
		if err != nil {
			return 0, err
		}
		for i := range s {
			switch {
			case m>>i&1 == 0:
			case c == 0 && m&(1<<i-1) == 0:
				v = s[i]
			case s[i] != v:
				return 0, fmt.Errorf("chunk %d: block %d is of version %d, others of %d", c, i, s[i], v)
			}
		}
	}
	return v, nil
}

// TestCrashTogether takes the power away at every device call: all chunks of an
// AppendAll hold the new version or none does.
func TestCrashTogether(t *testing.T) {
	news := 0
	for seed := range uint64(3) {
		stride := 1
		if seed > 0 || testing.Short() {
			stride = 5
		}
		for at := 1; ; at += stride {
			g := newTogetherRig(seed, placement.Full, placement.Full, placement.Span(0, 7), placement.Full)
			if err := g.start(); err != nil {
				t.Fatal(err)
			}
			g.crashAtCall(at)
			if err := g.steps(60); err != nil {
				t.Fatal(err)
			}
			acked, issued, more := g.acked, g.issued, g.counted() >= at
			if err := g.reopen(roomy); err != nil {
				t.Fatalf("seed %d, call %d: %v", seed, at, err)
			}
			v, err := g.version()
			if err != nil || v < acked || v > issued {
				t.Fatalf("seed %d, call %d: version %d, want %d to %d: %v", seed, at, v, acked, issued, err)
			}
			if v > acked {
				news++
			}
			if err := g.b.Close(); err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
		}
	}
	if news == 0 {
		t.Error("no crash ever left what was not acknowledged")
	}
}

// Without space for one of the records none is taken, and no space is lost.
func TestNoSpaceTogether(t *testing.T) {
	for _, mask := range []placement.Mask{placement.Full, placement.Span(3, 9)} {
		g := newTogetherRig(0, mask, mask, mask)
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		for c := placement.Chunk(100); ; c++ { // all but two extents
			if g.b.alloc.slack() <= 2 {
				break
			}
			r := record(g.b, g.rng, placement.Key{Family: 1, Node: 1, Chunk: c}, placement.Full, Write)
			r.Done = func(r *Record, err error) { g.b.Commit(r) }
			if err := g.b.Append(r); err != nil {
				t.Fatal(err)
			}
			r.Buf.Release()
			for g.b.Step() {
			}
		}
		if err := g.settleAll(); err != nil {
			t.Fatal(err)
		}
		slack := g.b.alloc.slack()
		if err := g.appendAll(false); err != syscall.ENOSPC {
			t.Fatalf("%v, want ENOSPC", err)
		}
		if now := g.b.alloc.slack(); now != slack {
			t.Errorf("%d extents are left, were %d", now, slack)
		}
		if v, err := g.version(); v != 0 || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		g.masks = g.masks[:2]
		if err := g.appendAll(false); err != nil {
			t.Error(err)
		}
		for g.b.Step() {
		}
		if v, err := g.version(); v != g.issued || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		if err := g.audit(); err != nil {
			t.Error(err)
		}
		if err := g.b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppendAllRefuses(t *testing.T) {
	g := newTogetherRig(1, slices.Repeat([]placement.Mask{placement.Full}, MaxTogether/placement.BlocksPerChunk)...)
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	if err := g.appendAll(false); err != nil {
		t.Errorf("the most: %v", err)
	}
	for g.b.Step() {
	}
	g.masks = append(g.masks, placement.Span(0, 1))
	slack := g.b.alloc.slack()
	if err := g.appendAll(false); err != syscall.EINVAL {
		t.Errorf("one block more: %v", err)
	}
	bad := g.records(false)
	bad[1].Mask = 0
	if err := g.b.AppendAll(bad); err != syscall.EINVAL {
		t.Errorf("a malformed one: %v", err)
	}
	if err := g.b.AppendAll(nil); err != syscall.EINVAL {
		t.Errorf("none: %v", err)
	}
	if now := g.b.alloc.slack(); now != slack {
		t.Errorf("%d extents are left, were %d", now, slack)
	}
	g.masks = g.masks[:2]
	g.b.fail(errors.New("broken"))
	if err := g.appendAll(false); err == nil {
		t.Error("a failed brick takes records")
	}
	small := newTogetherRig(1, placement.Full, placement.Full)
	small.rig = newRig(1, nil) // segments of 128 KiB
	if err := small.start(); err != nil {
		t.Fatal(err)
	}
	if err := small.appendAll(false); err != syscall.EINVAL {
		t.Errorf("segments too small: %v", err)
	}
	small.masks[1] = placement.Span(0, 8)
	if err := small.appendAll(false); err != nil {
		t.Errorf("small enough: %v", err)
	}
	for small.b.Step() {
	}
	if err := small.audit(); err != nil {
		t.Error(err)
	}
}
