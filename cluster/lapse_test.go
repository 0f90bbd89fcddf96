package cluster

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

func (b *bench) lapse() {
	b.c.lapsed.Store(true)
	b.c.letAllGo()
}

func (b *bench) leased() {
	b.c.lapsed.Store(false)
	b.c.wake()
}

// lapsed checks that a command has ended without saying anything: the session
// that asked is to be dropped.
func lapsed(b *bench, what string, err error) {
	b.t.Helper()
	var busy interface{ Busy() bool }
	if err == nil || errors.As(err, &busy) {
		b.t.Errorf("%s: %v", what, err)
	}
}

// The end of the lease ends every command at once, wherever its parts are (R5).
func TestLapseEndsCommands(t *testing.T) {
	b := newBench(t, placement.Mirror, 1, 2, 3)
	b.server[2] = func(*wire.Message) *wire.Message { return nil }
	b.down[3] = true
	b.here.deliverRead = b.here.deliver
	away, here, down := b.chunkAt(2), b.chunkAt(1), b.chunkAt(3)
	ends := map[string]<-chan error{
		"sent":                      write(b.v, away, pattern(1, 4096), false),
		"behind it":                 write(b.v, away+512, pattern(2, 512), false),
		"waits to be sent":          write(b.v, down, pattern(3, 4096), false),
		"with this node's member":   write(b.v, here, pattern(4, 4096), false),
		"zeros over many chunks":    zero(b.v, away+4*placement.ChunkSize, 300*placement.ChunkSize),
		"over chunks of two heads":  write(b.v, min(away, here), pattern(5, 2*placement.ChunkSize), false),
		"behind what a member does": write(b.v, here, pattern(6, 512), false),
	}
	reads := map[string]<-chan readResult{"read here": read(b.v, here, 4096), "read away": read(b.v, away+8*placement.ChunkSize, 65536)}
	look := make(chan error, 1)
	b.v.ProvisionedAsync(0, 1<<30, func(_ bool, _ uint64, err error) { look <- err })
	before := b.clock.now
	b.lapse()
	if b.clock.now != before {
		t.Fatal("it took time")
	}
	for what, ch := range ends {
		lapsed(b, what, result(b, ch))
	}
	for what, ch := range reads {
		lapsed(b, what, result(b, ch).err)
	}
	b.run(retryMax)
	lapsed(b, "what is mapped", result(b, look))
	lapsed(b, "a new one", result(b, write(b.v, down, pattern(7, 4096), false)))
	lapsed(b, "a new read", result(b, read(b.v, away, 4096)).err)
	b.run(6 * time.Second) // nobody answers
	if n := b.c.flying.Load(); n != 0 || b.c.orphans.n.Load() != 0 {
		t.Errorf("%d parts, %d orphans are left", n, b.c.orphans.n.Load())
	}
}

// What was let go is cancelled; before its fate is known, nothing that comes after
// goes to its chunk, so that it never lands on top of that (R12).
func TestNothingOvertakesAnOrphan(t *testing.T) {
	for _, fate := range []wire.Status{wire.OK, wire.Canceled} {
		b := newBench(t, placement.Mirror, 2, 3, 4)
		var got []string
		answer := false
		b.server[2] = func(m *wire.Message) *wire.Message {
			got = append(got, m.Kind.String())
			switch {
			case m.Kind == wire.Write && len(got) > 1:
				return status(wire.OK)(m)
			case m.Kind == wire.Cancel && answer:
				return status(fate)(m)
			case m.Kind == wire.Cancel:
				return status(wire.NotReady)(m)
			}
			return nil
		}
		at := b.chunkAt(2)
		first := write(b.v, at, pattern(1, 4096), false)
		b.run(time.Millisecond)
		b.lapse()
		lapsed(b, "the first", result(b, first))
		b.run(time.Millisecond)
		b.leased()
		second := write(b.v, at, pattern(2, 4096), false)
		b.run(time.Second)
		pending(b, second)
		if slices.Contains(got[1:], "write") {
			t.Fatalf("%v: the second was sent before the first one's fate was known: %v", fate, got)
		}
		answer = true
		b.run(100 * time.Millisecond)
		if err := result(b, second); err != nil {
			t.Errorf("%v: the second: %v", fate, err)
		}
		if n := b.c.flying.Load(); n != 0 || b.c.orphans.n.Load() != 0 {
			t.Errorf("%d parts, %d orphans are left", n, b.c.orphans.n.Load())
		}
	}
}

// An orphan that nobody ever says anything about is too old at last to take
// effect (R13), and what waits for it goes on, or is too old itself.
func TestOrphanAges(t *testing.T) {
	b := newBench(t, placement.Mirror, 2, 3, 4)
	b.server[2] = func(m *wire.Message) *wire.Message { return nil }
	at := b.chunkAt(2)
	began := b.clock.now
	first := write(b.v, at, pattern(1, 4096), false)
	b.run(time.Millisecond)
	b.lapse()
	lapsed(b, "the first", result(b, first))
	b.leased()
	b.run(2 * time.Second)
	var sent time.Duration
	b.server[2] = func(m *wire.Message) *wire.Message {
		if m.Kind == wire.Write {
			sent = b.clock.now
			return status(wire.OK)(m)
		}
		return nil
	}
	second := write(b.v, at, pattern(2, 4096), false)
	b.run(5 * time.Second)
	if err := result(b, second); err != nil {
		t.Error(err)
	}
	if age := sent - began; age < b.c.times.Command+b.c.times.Admission-b.c.times.Command/ageTicks*2 {
		t.Errorf("the second was sent %v after the first", age)
	}
}

// A node that is cut off ends what it has in flight when its lease does, and not
// when the commands are too old; those whose fate is open hold nobody up later.
func TestLapseInACluster(t *testing.T) { virtual(t, lapseInACluster) }

func lapseInACluster(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	l := newLoad(c)
	l.during(l.some)
	v := c.volume(0, "data")
	told := make(chan time.Time, 8)
	c.nodes[0].OnLease(func(leased bool) {
		if !leased {
			told <- time.Now()
		}
	})
	c.net.cut(1, 2, true)
	c.net.cut(1, 3, true)
	type end struct {
		err error
		at  time.Time
	}
	ends := make(chan end, 128)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range cap(ends) {
		off := uint64(rng.IntN(2048)) * placement.BlockSize
		go func() {
			err := <-write(v, off, pattern(uint64(i), 4096), false)
			ends <- end{err, time.Now()}
		}()
	}
	var lapse time.Time
	select {
	case lapse = <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("it keeps its lease")
	}
	open := 0
	for range cap(ends) {
		e := <-ends
		if after := e.at.Sub(lapse); after > 0 {
			t.Errorf("a command ended %v after the lapse", after)
		} else if after == 0 {
			open++
		}
	}
	if open == 0 {
		t.Error("nothing was in flight at the lapse")
	}
	t.Logf("%d commands ended with the lease", open)
	c.net.cut(1, 2, false)
	c.net.cut(1, 3, false)
	c.leased(0)
	for i := range uint64(64) {
		if err := <-write(v, i*32*placement.BlockSize, pattern(i, 4096), false); err != nil {
			t.Errorf("after the lapse: %v", err)
		}
	}
}
