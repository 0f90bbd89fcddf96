package cluster

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"petal/cluster/slab"
	"petal/cluster/wire"
	"petal/placement"
)

// readBench is a bench whose servers answer reads with what the test says, as
// late as it says.
// Server 1 is the bench itself, which has the blocks in memory.
func readBench(t *testing.T, servers []placement.Server, late func(s placement.Server, m *wire.Message) (time.Duration, wire.Status)) *bench {
	b := newBench(t, placement.Mirror, servers...)
	for _, s := range servers {
		b.server[s] = func(m *wire.Message) *wire.Message {
			d, st := late(s, m)
			if d < 0 {
				return nil
			}
			reply := status(st)(m)
			reply.Op = m.Op
			if st == wire.OK {
				reply = readReply(b.here.pool, m)
			}
			b.clock.AfterFunc(d, func() { b.receive(s, reply) })
			return nil
		}
	}
	return b
}

// readReply answers with blocks that say where they are.
func readReply(pool *slab.Pool, m *wire.Message) *wire.Message {
	r := &wire.Message{Kind: wire.Reply, Op: m.Op, From: m.From, To: m.To}
	first, n := int(m.From/placement.BlockSize), int(m.To-m.From)/placement.BlockSize
	r.Mask = placement.Span(first, n)
	buf := pool.Get(n * placement.BlockSize)
	copy(buf.Bytes(), blocksOf(uint64(m.Key.Chunk)*placement.BlocksPerChunk+uint64(first), n))
	r.Data.Add(buf, 0, buf.Len())
	buf.Release()
	r.SetSums()
	return r
}

func blocksOf(first uint64, n int) (out []byte) {
	for i := range uint64(n) {
		out = append(out, pattern(first+i, placement.BlockSize)...)
	}
	return out
}

// A read whose copy is late is asked for at another; the first good answer counts,
// and nothing is left of the other.
func TestHedge(t *testing.T) {
	const fast = time.Millisecond
	for _, c := range []struct {
		name          string
		first, second time.Duration // negative: never
		status        wire.Status   // of the second
		from, to      time.Duration
		wins          uint64
	}{
		{"the second is faster", 300 * time.Millisecond, fast, wire.OK, lateFirst, lateFirst + 5*time.Millisecond, 1},
		{"the first never answers", -1, fast, wire.OK, lateFirst, lateFirst + 5*time.Millisecond, 1},
		{"the first is faster after all", 15 * time.Millisecond, 300 * time.Millisecond, wire.OK, 15 * time.Millisecond, 16 * time.Millisecond, 0},
		{"the second can't", 50 * time.Millisecond, fast, wire.Redirect, 50 * time.Millisecond, 51 * time.Millisecond, 0},
		{"the second never answers", 50 * time.Millisecond, -1, wire.OK, 50 * time.Millisecond, 51 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []placement.Server
			b := readBench(t, []placement.Server{2, 3, 4}, func(s placement.Server, _ *wire.Message) (time.Duration, wire.Status) {
				if asked = append(asked, s); len(asked) == 1 {
					return c.first, wire.OK
				}
				return c.second, c.status
			})
			b.c.copies.reads.Store(hedgeCost) // enough to pay for one
			at := b.chunkAt(2)
			began := b.clock.now
			var got readResult
			var took time.Duration
			b.v.Read(at+512, 8192, func(vec [][]byte, loan any, err error) {
				took, got.err = b.clock.now-began, err
				if err == nil {
					got.data = slices.Concat(vec...)
					b.v.Release(loan)
				}
			})
			b.run(6 * time.Second)
			if got.err != nil || !bytes.Equal(got.data, blocksOf(at/4096, 3)[512:512+8192]) {
				t.Fatalf("%v, or other data", got.err)
			}
			if took < c.from || took > c.to {
				t.Errorf("it took %v, want %v to %v", took, c.from, c.to)
			}
			if len(asked) != 2 || asked[0] == asked[1] {
				t.Errorf("asked %v", asked)
			}
			if h, w := b.c.counts.hedges.Load(), b.c.counts.hedgeWins.Load(); h != 1 || w != c.wins {
				t.Errorf("%d hedges, %d won", h, w)
			}
			if n := b.c.flying.Load(); n != 0 {
				t.Errorf("%d pieces are left", n)
			}
		})
	}
}

// When every copy is slow, hedges stay what they are: one of fifty reads, and a
// few that were saved up.
func TestHedgesArePaidFor(t *testing.T) {
	asked := 0
	b := readBench(t, []placement.Server{2, 3, 4}, func(placement.Server, *wire.Message) (time.Duration, wire.Status) {
		asked++
		return 100 * time.Millisecond, wire.OK
	})
	b.c.copies.reads.Store(1 << 20) // whatever was saved up before
	rng := rand.New(rand.NewPCG(1, 1))
	const reads = 5000
	left := reads
	for range reads {
		b.v.Read(uint64(rng.IntN(1<<18))*4096, 4096, func(_ [][]byte, loan any, err error) {
			if left--; err != nil {
				t.Fatal(err)
			}
			b.v.Release(loan)
		})
		b.run(time.Millisecond)
		// They would take for late what the other copy takes usually.
		for _, s := range *b.c.copies.servers.Load() {
			s.late.Store(int64(5 * time.Millisecond))
		}
	}
	b.run(10 * time.Second)
	if left != 0 {
		t.Fatalf("%d reads have not ended", left)
	}
	hedges := asked - reads
	if most := reads/hedgeCost + hedgeSaved; hedges > most || hedges < most/2 {
		t.Errorf("%d hedges for %d reads, want %d at most", hedges, reads, most)
	}
}

// Every read ends once, with the right data or none, whatever the copies do.
func TestHedgesUnderTrouble(t *testing.T) {
	seeds := uint64(10)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 5))
		b := readBench(t, []placement.Server{1, 2, 3}, func(placement.Server, *wire.Message) (time.Duration, wire.Status) {
			st := wire.OK
			switch rng.IntN(10) {
			case 0:
				return -1, st
			case 1:
				st = []wire.Status{wire.Redirect, wire.NotReady, wire.OldVVer, wire.MissingHere, wire.TooOld, wire.Medium}[rng.IntN(6)]
			}
			return time.Duration(rng.IntN(40)) * time.Millisecond, st
		})
		const blocks = 1024
		for i := range uint64(blocks) {
			b.here.blocks[fakeBlock{3, placement.Chunk(i / placement.BlocksPerChunk), int(i % placement.BlocksPerChunk)}] = blocksOf(i, 1)
		}
		b.here.deliverRead = func(f func()) {
			if rng.IntN(3) == 0 {
				f() // as if it were cached
				return
			}
			b.clock.AfterFunc(time.Duration(rng.IntN(40))*time.Millisecond, f)
		}
		ended := 0
		const reads = 300
		for i := range reads {
			b.c.copies.reads.Add(hedgeCost)
			n := 1 + rng.IntN(40)
			off := uint64(rng.IntN(blocks-40)) * 4096
			b.v.Read(off, n*4096, func(vec [][]byte, loan any, err error) {
				if ended++; err == nil {
					if !bytes.Equal(slices.Concat(vec...), blocksOf(off/4096, n)) {
						t.Error("other data")
					}
					b.v.Release(loan)
				}
			})
			b.run(time.Duration(rng.IntN(8)) * time.Millisecond)
			switch rng.IntN(60) {
			case 0:
				s := placement.Server(2 + rng.IntN(2))
				b.c.peerDown(s)
				b.c.peerUp(s)
			case 1:
				b.lapse()
				if ended != i+1 {
					t.Fatalf("seed %d: %d of %d reads have ended with the lease", seed, ended, i+1)
				}
				b.leased()
			}
		}
		b.run(10 * time.Second)
		if n := b.c.flying.Load(); ended != reads || n != 0 || b.c.counts.hedges.Load() == 0 {
			t.Fatalf("seed %d: %d of %d reads have ended, %d pieces are left, %d hedges", seed, ended, reads, n, b.c.counts.hedges.Load())
		}
		if seed == 0 {
			t.Logf("%d hedges, %d won", b.c.counts.hedges.Load(), b.c.counts.hedgeWins.Load())
		}
	}
}

// Copies that now and then answer late, no one more than the other: with hedges,
// readers hardly notice.
func TestHedgesCutTheTail(t *testing.T) {
	const reads, usual, late = 2000, time.Millisecond, 250 * time.Millisecond
	tail := func(paid uint64) (p999 time.Duration, hedges, wins uint64) {
		answers := 0
		b := readBench(t, []placement.Server{2, 3, 4}, func(placement.Server, *wire.Message) (time.Duration, wire.Status) {
			if answers++; answers%150 == 0 {
				return late, wire.OK
			}
			return usual, wire.OK
		})
		b.c.copies.paid.Store(paid)
		rng := rand.New(rand.NewPCG(1, 1))
		var took []time.Duration
		for range reads {
			began := b.clock.now
			b.v.Read(uint64(rng.IntN(1<<18))*placement.BlockSize, placement.BlockSize, func(_ [][]byte, loan any, err error) {
				if err != nil {
					t.Fatal(err)
				}
				took = append(took, b.clock.now-began)
				b.v.Release(loan)
			})
			b.run(2 * usual)
		}
		b.run(2 * late)
		if len(took) != reads {
			t.Fatalf("%d of %d reads have ended", len(took), reads)
		}
		slices.Sort(took)
		return took[reads*999/1000], b.c.counts.hedges.Load(), b.c.counts.hedgeWins.Load()
	}
	without, none, _ := tail(1 << 60) // none can be paid for
	with, hedges, wins := tail(0)
	t.Logf("p99.9 of %d reads: %v without hedges, %v with %d, of which %d won", reads, without, with, hedges, wins)
	if without < late || with > late/4 || none != 0 || wins == 0 {
		t.Error("they do not help")
	}
	if most := uint64(reads/hedgeCost + hedgeSaved); hedges > most {
		t.Errorf("%d hedges, want %d at most", hedges, most)
	}
}
