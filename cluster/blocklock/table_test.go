package blocklock

import (
	"math/rand/v2"
	"sync"
	"testing"

	"petal/placement"
)

// lockTwin is the slow truth: all requests in order; one may go ahead when no
// earlier one that is still there conflicts.
type lockTwin struct {
	order []*twinLock
}

type twinLock struct {
	first, last placement.Chunk
	mask        placement.Mask
	held        bool // as the real table says
}

func (t *lockTwin) mayHold(i int) bool {
	for _, x := range t.order[:i] {
		y := t.order[i]
		if x.first <= y.last && y.first <= x.last && x.mask&y.mask != 0 {
			return false
		}
	}
	return true
}

func TestLockTableTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 5))
		var table Table
		var twin lockTwin
		release := map[*twinLock]func(){}
		for step := range 3000 {
			if len(twin.order) > 30 || len(twin.order) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(twin.order))
				x := twin.order[i]
				if !x.held {
					continue
				}
				twin.order = append(twin.order[:i], twin.order[i+1:]...)
				release[x]()
				delete(release, x)
			} else {
				c := placement.Chunk(r.IntN(3)*shards + r.IntN(2))
				x := &twinLock{first: c, last: c, mask: placement.Mask(r.Uint32()) | 1<<r.IntN(16)}
				if r.IntN(8) == 0 {
					x.last, x.mask = c+placement.Chunk(r.IntN(3*shards)), placement.Full
				}
				twin.order = append(twin.order, x)
				if x.mask == placement.Full && x.last != x.first {
					var long *Long
					table.AcquireLong(placement.Key{Chunk: x.first}, x.last, func(l *Long) { x.held, long = true, l })
					release[x] = func() { table.ReleaseLong(long) }
				} else {
					l := &Lock{Key: placement.Key{Chunk: c}, Mask: x.mask, Granted: func() { x.held = true }}
					if table.Acquire(l) {
						x.held = true
					}
					release[x] = func() { table.Release(l) }
				}
			}
			for i, x := range twin.order {
				if x.held != twin.mayHold(i) {
					t.Fatalf("seed %d step %d: request %d of %d held %t, want %t", seed, step, i, len(twin.order), x.held, !x.held)
				}
			}
		}
	}
}

// TestLockTableExcludes has goroutines that count without any other
// synchronization than the table; the race detector and the sums watch.
func TestLockTableExcludes(t *testing.T) {
	var table Table
	const chunks = 4
	var count [chunks][16]int
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 6))
			ready := make(chan struct{}, 1)
			l := &Lock{Granted: func() { ready <- struct{}{} }}
			for i := range 3000 {
				if i%50 == 0 {
					held := make(chan *Long, 1)
					table.AcquireLong(placement.Key{}, chunks-1, func(l *Long) { held <- l })
					long := <-held
					for c := range count {
						for b := range count[c] {
							count[c][b]++
						}
					}
					table.ReleaseLong(long)
					continue
				}
				l.Key.Chunk, l.Mask = placement.Chunk(r.IntN(chunks)), placement.Mask(r.Uint32())|1
				if !table.Acquire(l) {
					<-ready
				}
				for b := range 16 {
					if l.Mask&(1<<b) != 0 {
						count[l.Key.Chunk][b]++
					}
				}
				table.Release(l)
			}
		})
	}
	wg.Wait()
	for i := range table.shards {
		if table.shards[i].first != nil || table.shards[i].last != nil {
			t.Error("requests are left over")
		}
	}
}

func BenchmarkLockUncontended(b *testing.B) {
	var table Table
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := rand.New(rand.NewPCG(rand.Uint64(), 0))
		l := &Lock{Mask: 1, Granted: func() {}}
		for pb.Next() {
			l.Key.Chunk = placement.Chunk(r.Uint32())
			table.Acquire(l)
			table.Release(l)
		}
	})
}
