package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"petal/journal/vfs"
)

// life runs a Manual journal on a crashing disk and remembers what was promised.
// Test record n has LSN n in the life that wrote it; a record that was cut and
// whose LSN is used again gets another content, so that a dead one shows.
type life struct {
	t       *testing.T
	opts    Options
	j       *Journal
	rng     *rand.Rand
	content map[LSN]uint64 // what is expected at an LSN
	chains  map[LSN]LSN    // first to last of records that are one
	serial  uint64         // of contents
	acked   LSN
	issued  LSN
	trimmed LSN // below it
	settled LSN // that was in effect when the last group was written
}

func newLife(t *testing.T, m *vfs.Memory, seed uint64) *life {
	o := small(m)
	o.Capacity = 5 * o.Segment
	o.Manual, o.Create = true, true
	l := &life{t: t, opts: o, rng: rand.New(rand.NewPCG(seed, 1)), content: map[LSN]uint64{}, chains: map[LSN]LSN{}, trimmed: 1}
	return l
}

// step does one random thing.
func (l *life) step() {
	switch n := l.rng.IntN(10); {
	case n < 4:
		l.append()
	case n < 5:
		l.appendAll()
	case n < 9:
		if trimmed := l.trimmed; l.j.Commit() {
			l.settled = trimmed
		}
	default:
		if l.acked > 0 {
			below := 1 + LSN(l.rng.Uint64N(uint64(l.acked)+1))
			if l.rng.IntN(2) == 0 {
				below = l.acked + 1 // let segments go round
			}
			l.j.Trim(below)
			l.trimmed = max(l.trimmed, below)
		}
	}
}

func (l *life) append() {
	r := l.record()
	// Known before Append returns, because a crash may look at it.
	l.issued = l.j.Next()
	l.content[l.issued] = l.serial
	l.j.Append(r)
}

// appendAll appends some records that are one.
func (l *life) appendAll() {
	var rs []*Record
	first := l.j.Next()
	for i := range LSN(2 + l.rng.IntN(3)) {
		rs = append(rs, l.record())
		l.content[first+i] = l.serial
		l.issued = first + i
	}
	l.chains[first] = l.issued
	l.j.AppendAll(rs)
}

// record makes the next record.
func (l *life) record() *Record {
	l.serial++
	r := fill(new(Record), l.serial)
	r.Lazy = l.rng.IntN(4) == 0
	r.Done = func(r *Record, err error) {
		if err != nil {
			return // the disk was stopped
		}
		if r.LSN != l.acked+1 {
			l.t.Errorf("Done of %d after %d", r.LSN, l.acked)
		}
		l.acked = r.LSN
	}
	return r
}

// promise is what holds at the moment of a crash.
type promise struct {
	acked, issued, trimmed, settled LSN

	content map[LSN]uint64
	chains  map[LSN]LSN
}

func (l *life) promise() promise {
	return promise{l.acked, l.issued, l.trimmed, l.settled, maps.Clone(l.content), maps.Clone(l.chains)}
}

// verify opens the journal on a disk after a crash and holds it to the promise.
func verify(o Options, p promise) (*Journal, *Recovery, error) {
	o.Create = false
	j, rec, err := Open(o)
	if err != nil {
		return nil, nil, err
	}
	if rec.Rotten != nil {
		return nil, nil, fmt.Errorf("rotten %v after a mere crash", rec.Rotten)
	}
	if rec.Last < p.acked || rec.Last > p.issued {
		return nil, nil, fmt.Errorf("last %d, want from %d (acked) to %d (issued)", rec.Last, p.acked, p.issued)
	}
	for first, last := range p.chains {
		if first <= rec.Last && rec.Last < last {
			return nil, nil, fmt.Errorf("last %d is in the middle of %d to %d, which are one", rec.Last, first, last)
		}
	}
	if rec.First > p.trimmed || rec.First < p.settled {
		return nil, nil, fmt.Errorf("first %d, but trimmed below %d, durably below %d", rec.First, p.trimmed, p.settled)
	}
	next := rec.First
	err = j.Replay(0, func(e Entry) error {
		if e.LSN != next {
			return fmt.Errorf("LSN %d, want %d", e.LSN, next)
		}
		next++
		return checkEntry(j, e, p.content[e.LSN])
	})
	if err == nil && next != rec.Last+1 {
		err = fmt.Errorf("replay ended before %d, want %d", next, rec.Last)
	}
	return j, rec, err
}

// Crash at every device call: of each state the disk can be in, recovery makes
// something between what was acknowledged and what was issued, in order, whole,
// and of records that are one all or none.
// Each run goes through several lives, each on what the last one left.
func TestCrashAtEveryCall(t *testing.T) {
	runs, lives := uint64(12), 4
	if testing.Short() {
		runs = 3
	}
	calls := 0
	for seed := range runs {
		m := vfs.NewMemory(16 << 20)
		l := newLife(t, m, seed)
		var err error
		for gen := range lives {
			ready := gen > 0
			var end *vfs.Memory // the disk as the next life finds it
			var ended promise
			m.OnOp(func(op vfs.Op) {
				calls++
				if !ready {
					return
				}
				after := m.Crash(seed<<32 + uint64(calls))
				o := l.opts
				o.FS = after
				if end == nil || l.rng.IntN(3) == 0 {
					// A life ends inside a call, so that the next one finds it torn.
					end, ended = m.Crash(seed<<32+uint64(calls)), l.promise()
				}
				if _, _, err := verify(o, l.promise()); err != nil {
					t.Fatalf("seed %d, life %d, call %d (%v %s at %d, %d bytes): %v", seed, gen, calls, op.Kind, op.Name, op.Off, op.Len, err)
				}
			})
			if l.j, _, err = Open(l.opts); err != nil {
				t.Fatal(err)
			}
			ready = true
			for range 60 {
				l.step()
			}
			m = end
			l.next(m, ended)
		}
	}
	if calls < int(runs)*80 {
		t.Errorf("only %d calls", calls)
	}
}

// next goes on with the next life on another disk.
func (l *life) next(m *vfs.Memory, p promise) {
	l.opts.FS = m
	_, rec, err := verify(l.opts, p) // its opening stays; the next life opens once more
	if err != nil {
		l.t.Fatal(err)
	}
	l.opts.Create = false
	l.content, l.chains = p.content, p.chains
	maps.DeleteFunc(l.content, func(lsn LSN, _ uint64) bool { return lsn > rec.Last })
	maps.DeleteFunc(l.chains, func(first, _ LSN) bool { return first > rec.Last })
	l.acked, l.issued, l.trimmed, l.settled = rec.Last, rec.Last, rec.First, rec.First
}

// A process that dies leaves what it wrote in the system's and the disk's caches.
// The next one sees it there, and what that one reports must then survive a loss
// of power: Open makes it durable before it believes it.
func TestWhatOpenSawStays(t *testing.T) {
	for seed := range uint64(40) {
		m := vfs.NewMemory(16 << 20)
		l := newLife(t, m, seed)
		l.opts.FS = m
		j, _ := mustOpen(t, l.opts)
		l.j = j
		for range 5 {
			l.append()
			l.j.Commit()
		}
		l.append()
		m.OnOp(func(vfs.Op) {
			m.OnOp(nil) // the old process dies inside its write
			o := l.opts
			p := l.promise()
			_, before, err := verify(o, p)
			if err != nil {
				t.Fatal(err)
			}
			o.FS = m.Crash(seed)
			p.acked = before.Last
			if _, _, err := verify(o, p); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
		l.j.Commit()
	}
}
