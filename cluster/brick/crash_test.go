package brick

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/placement"
)

// audit checks that an idle brick has lost and promised nothing: after a drain
// every extent is either named by the map or free.
func (g *rig) audit() error {
	b := g.b
	if err := g.settleAll(); err != nil {
		return err
	}
	named := map[uint64]bool{}
	slots := map[slot]bool{}
	err := b.pmap.scan([]byte{keyData}, []byte{keyData + 1}, func(k placement.Key, e *entry) error {
		if e.Kind == kindExtent {
			if named[e.Extent] {
				return errors.New("an extent is named twice")
			}
			named[e.Extent] = true
		}
		for i := range e.Slot {
			if e.Kind == kindFrags && e.Valid>>i&1 != 0 {
				if slots[e.Slot[i]] {
					return errors.New("a slot is named twice")
				}
				slots[e.Slot[i]] = true
			}
		}
		return nil
	})
	a := &b.alloc
	switch {
	case err != nil:
		return err
	case a.used != int64(len(named)+len(a.frags.used)):
		return fmt.Errorf("%d extents are used, %d named, %d hold frags", a.used, len(named), len(a.frags.used))
	case len(a.frags.resting) != 0:
		return errors.New("slots still rest")
	case a.reserved != 0:
		return errors.New("promises are left")
	case len(a.resting) != 0:
		return errors.New("extents still rest")
	case b.order.n != 0:
		return errors.New("records are left in order")
	case b.pending.bytes.Load() != 0:
		return fmt.Errorf("%d bytes of buffers are left in the pending index, %d chunks", b.pending.bytes.Load(), b.Stats().PendingChunks)
	}
	for x, m := range a.frags.used {
		for i := range placement.BlocksPerChunk {
			if slots[slot(x<<4|uint64(i))] != (m>>i&1 != 0) {
				return fmt.Errorf("slot %d of extent %d: used and named differ", i, x)
			}
		}
		named[x] = true
	}
	for e := range named {
		w, m := bit(e)
		if a.files[e/extentsPerFile].used[w]&m == 0 {
			return errors.New("the map names an extent that counts as free")
		}
	}
	return nil
}

// settleAll lets everything that was appended end, and reach the map.
func (g *rig) settleAll() error {
	for range 1000 {
		for g.b.Step() {
		}
		if err := g.b.drain(); err != nil {
			return err
		}
		if len(g.open) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%d records do not end", len(g.open))
}

// start makes the rig's brick.
func (g *rig) start() error {
	if err := Create(g.o, testID); err != nil {
		return err
	}
	b, _, err := Open(g.o)
	g.b = b
	return err
}

// runActs does random things until the power goes, and returns how many device
// calls that took.
func (g *rig) runActs(n int) error {
	return g.guard(func() error {
		for range n {
			if g.powerless() {
				return nil
			}
			if err := g.act(); err != nil {
				return err
			}
		}
		g.crash()
		return nil
	})
}

// TestModel: without a crash, a brick does what its model does.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		g := newRig(seed, nil)
		if err := g.start(); err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if err := g.act(); err != nil {
				t.Fatalf("seed %d, act %d: %v", seed, i, err)
			}
		}
		if err := g.audit(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := g.b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrashAtEveryCall takes the power away at every single device call of a
// run, at every ninth of some more, again at one in the next life, and again.
func TestCrashAtEveryCall(t *testing.T) {
	var sum Recovery
	const acts = 150
	for seed := range uint64(6) {
		stride := 1
		if seed > 0 || testing.Short() {
			stride = 9
		}
		for at := 1 + int(seed); ; at += stride {
			more, err := crashLives(seed, acts, at, &sum)
			if err != nil {
				t.Fatalf("seed %d, crash at call %d: %v", seed, at, err)
			}
			if !more {
				t.Logf("seed %d: %d device calls", seed, at)
				break
			}
		}
	}
	t.Logf("replayed %d records, verified %d extents, %d torn", sum.Replayed, sum.Verified, sum.Torn)
	if sum.Replayed == 0 || sum.Torn == 0 || sum.Verified == sum.Torn {
		t.Error("the crashes did not reach what they are for")
	}
}

// counted is how many device calls there were. The map's own goroutines may
// still be making some.
func (g *rig) counted() int {
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.calls
}

// powerless reports whether the power has gone.
func (g *rig) powerless() bool {
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.crashed != nil
}

// crashAtCall has the power go at a device call, counted from here on; zero:
// at none.
func (g *rig) crashAtCall(at int) {
	g.gate.Lock()
	defer g.gate.Unlock()
	g.calls, g.crashAt = 0, at
}

// crashLives runs a brick that loses power at the given device call, and at
// others in its next two lives. It reports whether there was such a call.
func crashLives(seed uint64, acts, at int, sum *Recovery) (more bool, err error) {
	g := newRig(seed, nil)
	if err := g.start(); err != nil {
		return false, err
	}
	g.crashAtCall(0)
	for life := range 3 {
		g.crashAtCall(at)
		if err := g.runActs(acts); err != nil {
			return false, err
		}
		more = more || life == 0 && g.counted() >= at
		if err := g.restart(nil); err != nil {
			return false, err
		}
		sum.Replayed += g.recovery.Replayed
		sum.Verified += g.recovery.Verified
		sum.Torn += g.recovery.Torn
		at = 1 + g.rng.IntN(60)
	}
	if err := g.audit(); err != nil {
		return false, err
	}
	err = g.b.Close()
	g.o.Cache.DropFamily(1)
	return more, errors.Join(err, g.o.Pool.Close())
}

var discard = slog.New(slog.DiscardHandler)

// clonePebble copies a map's file system as it is.
func clonePebble(fs *pebblefs.MemFS) *pebblefs.MemFS {
	return fs.CrashClone(pebblefs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}
