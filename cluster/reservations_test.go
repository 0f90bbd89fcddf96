package cluster

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"petal/cluster/meta"
)

// After a Store that revokes has returned, no write that was handed to any node
// under the older value changes anything any more: each either has happened by
// then or ends as ErrBusy.
func TestRevocationBarrier(t *testing.T) { virtual(t, revocationBarrier) }

func revocationBarrier(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 8 << 20, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	id := c.nodes[0].State().Disk("data").ID
	const size = 1 << 20
	for round := range 6 {
		preempter, writer := round%3, (round+1)%3
		v := c.volume(writer, "data")
		var gate sync.RWMutex // as the device server has one: see lun.Reservations.Watch
		revoked := false
		version := c.nodes[preempter].State().Reservation(id).Version
		r := c.nodes[writer].Reservations(id)
		r.Watch(func() {
			gate.Lock()
			defer gate.Unlock()
			revoked = true
		})
		hand := func(off uint64, data []byte) (<-chan error, bool) {
			gate.RLock()
			defer gate.RUnlock()
			if revoked {
				return nil, false
			}
			return write(v, off, data, false), true
		}
		var wg sync.WaitGroup
		begun := make(chan struct{})
		for i := range 8 { // keeps writing for as long as it may
			wg.Go(func() {
				for k := uint64(0); ; k++ {
					ch, ok := hand(uint64(i)*(size/8), pattern(k<<8|uint64(i), size/8))
					if !ok {
						return
					}
					if err := <-ch; err != nil && !errors.Is(err, ErrBusy) {
						t.Error(err)
					}
					if k == 3 && i == 0 {
						close(begun)
					}
				}
			})
		}
		<-begun
		if err := c.nodes[preempter].Reservations(id).Store(t.Context(), []byte{byte(round)}, version, true); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		before := readAt(t, c.volume(preempter, "data"), 0, size)
		wg.Wait()
		for i := range c.nodes {
			if got := readAt(t, c.volume(i, "data"), 0, size); !bytes.Equal(got, before) {
				t.Errorf("round %d: something changed after the revocation", round)
			}
		}
		r.Watch(nil)
		if err := <-write(v, 0, pattern(1, 4096), false); err != nil {
			t.Errorf("round %d: a write under the new value: %v", round, err)
		}
	}
}

// A member is dead when rights are taken away: the barrier waits for its
// exclusion (M13). Nobody of some links has a lease: they get a new version
// (M17), and the barrier completes without them.
func TestBarrierWithDeadMembers(t *testing.T) { virtual(t, barrierWithDeadMembers) }

func barrierWithDeadMembers(t *testing.T) {
	c := newMemCluster(t, 5, 1)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 8 << 20, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	d := c.nodes[0].State().Disk("data")
	vers := func(s *meta.State) (sum uint64) {
		for _, id := range s.Links() {
			sum += s.Link(id).Ver
		}
		return sum
	}
	c.kill(4)
	if err := c.nodes[0].Reset(t.Context(), d.ID); err != nil {
		t.Fatalf("one is dead: %v", err)
	}
	for _, id := range c.nodes[0].State().LinksOf(5) {
		s := c.nodes[0].State()
		if m, _ := s.MemberOf(id, 5); s.Link(id).InSync.Has(m) {
			t.Errorf("link %v: the barrier is complete and the dead member is in sync", id)
		}
	}
	c.kill(3) // the link of both is without anybody
	before := vers(c.nodes[0].State())
	if err := c.nodes[0].Reset(t.Context(), d.ID); err != nil {
		t.Fatalf("two are dead: %v", err)
	}
	if now := vers(c.nodes[0].State()); now <= before {
		t.Errorf("no link got a new version: %d, %d", before, now)
	}
}

// Without a majority nobody is told that rights were taken away.
func TestStoreWithoutMajority(t *testing.T) { virtual(t, storeWithoutMajority) }

func storeWithoutMajority(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: 1 << 20, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	id := c.nodes[0].State().Disk("data").ID
	c.net.cut(1, 2, true)
	c.net.cut(1, 3, true)
	began := time.Now()
	err := c.nodes[0].Reservations(id).Store(t.Context(), []byte("mine"), 0, true)
	if !errors.Is(err, meta.ErrNoQuorum) {
		t.Errorf("alone: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	lapsed := make(chan struct{}, 8)
	c.nodes[0].OnLease(func(bool) { lapsed <- struct{}{} })
	for c.nodes[0].Leased() {
		select {
		case <-lapsed:
		case <-time.After(10 * time.Second):
			t.Fatal("it keeps its lease")
		}
	}
	c.net.cut(1, 2, false)
	c.net.cut(1, 3, false)
	c.leased(0)
	// What was answered without a majority may still come about: then the
	// others' version is old, and they look again.
	theirs := func() error {
		version := c.nodes[1].State().Reservation(id).Version
		return c.nodes[1].Reservations(id).Store(t.Context(), []byte("theirs"), version, false)
	}
	err = theirs()
	for range 2 {
		if !errors.Is(err, meta.ErrStale) {
			break
		}
		eventually(t, c.nodes[1].Node, func(s *meta.State) bool { return s.Reservation(id).Version > 0 })
		err = theirs()
	}
	if err != nil {
		t.Error(err)
	}
}
