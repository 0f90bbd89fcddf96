package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"petal/cluster/meta/metapb"
	"petal/journal/vfs"
)

const (
	testSegment  = 64 << 10
	testCapacity = 256 << 10
)

// run proposes commands until the disk dies or n are done. It returns the
// states by index as far as they were acknowledged.
func run(s *Store, rnd *rand.Rand, n int, known map[uint64]string) (acked uint64) {
	for i := range n {
		var cmd *metapb.Command
		switch now := s.State(); {
		case now.ClusterID() == (ID{}):
			cmd = initCmd()
		case rnd.IntN(3) == 0 && len(now.Disks()) > 0:
			cmd = deleteCmd(now.Disks()[0].Name)
		default:
			cmd = createCmd(fmt.Sprintf("d%d", i), byte(1+rnd.IntN(200)), "")
		}
		// Remember what this would lead to: it may be found after a crash, acknowledged or not.
		if next, err := apply(s.State(), cmd); err == nil {
			next.index, next.term = s.State().index+1, 1
			known[next.index] = encoded(next)
		}
		if _, err := s.Propose(cmd); err != nil {
			var e *Error
			if errors.As(err, &e) {
				continue
			}
			return s.State().Index()
		}
	}
	return s.State().Index()
}

// Power is cut at every operation in turn. What comes back is the last state
// that was acknowledged, or the one that was on its way.
func TestStoreSurvivesPowerCuts(t *testing.T) {
	var counter atomic.Int64 // the log makes its segments in a goroutine of its own
	count := vfs.NewMemory(64 << 20)
	count.OnOp(func(vfs.Op) { counter.Add(1) })
	exercise(t, count, 1, map[uint64]string{})
	ops := int(counter.Load())
	if ops < 50 {
		t.Fatalf("only %d operations: the test sees too little", ops)
	}
	for cut := range ops {
		t.Run(fmt.Sprint(cut), func(t *testing.T) { cutAt(t, cut) })
	}
}

func exercise(t *testing.T, disk vfs.FS, seed uint64, known map[uint64]string) (acked uint64) {
	s, err := open(disk, "meta", testSegment, testCapacity)
	if err != nil {
		return 0
	}
	defer s.Close()
	return run(s, rand.New(rand.NewPCG(seed, 0)), 60, known)
}

func cutAt(t *testing.T, cut int) {
	seed := uint64(cut)
	disk := vfs.NewMemory(64 << 20)
	var (
		mu     sync.Mutex
		n      int
		clone  *vfs.Memory
		remain = func() *vfs.Memory { mu.Lock(); defer mu.Unlock(); return clone }
	)
	disk.OnOp(func(vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if n == cut {
			disk.Stop(errors.New("power cut"))
			clone = disk.Crash(seed)
		}
		n++
	})
	known := map[uint64]string{}
	acked := exercise(t, disk, seed, known)
	after := remain()
	if after == nil {
		return // this seed needs fewer operations
	}
	s, err := open(after, "meta", testSegment, testCapacity)
	if err != nil {
		t.Fatalf("open after the cut: %v", err)
	}
	defer s.Close()
	got := s.State()
	if got.Index() < acked || got.Index() > acked+1 {
		t.Fatalf("index %d after the cut, %d were acknowledged", got.Index(), acked)
	}
	if got.Index() > 0 && encoded(got) != known[got.Index()] {
		t.Fatalf("state %d is not the one that was agreed", got.Index())
	}
	run(s, rand.New(rand.NewPCG(seed, 1)), 5, known)
	if s.State().Index() <= got.Index() {
		t.Fatal("the store takes no commands after recovery")
	}
}

// Long use goes through many snapshots; the log stays within its bounds.
func TestStoreCompacts(t *testing.T) {
	disk := vfs.NewMemory(64 << 20)
	s, err := open(disk, "meta", testSegment, testCapacity)
	if err != nil {
		t.Fatal(err)
	}
	run(s, rand.New(rand.NewPCG(7, 7)), 400, map[uint64]string{})
	want := encoded(s.State())
	if _, err := disk.Stat("meta/snapshot"); err != nil {
		t.Fatalf("no snapshot was taken: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(disk, "meta", testSegment, testCapacity); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if encoded(s.State()) != want {
		t.Fatal("another state after a restart")
	}
}

func TestStoreRefusesDamage(t *testing.T) {
	for _, at := range []int64{0, 8, 12, 16, 24, 40} {
		disk := vfs.NewMemory(64 << 20)
		s, err := open(disk, "meta", testSegment, testCapacity)
		if err != nil {
			t.Fatal(err)
		}
		run(s, rand.New(rand.NewPCG(7, 7)), 400, map[uint64]string{})
		s.Close()
		f, err := disk.Open("meta/snapshot", 0)
		if err != nil {
			t.Fatal(err)
		}
		b := []byte{0}
		f.ReadAt(b, at)
		b[0] ^= 0x40
		f.WriteAt(b, at)
		f.Close()
		if s, err := open(disk, "meta", testSegment, testCapacity); err == nil {
			s.Close()
			t.Errorf("byte %d of the snapshot is damaged and the store opens", at)
		} else if !errors.Is(err, ErrRotten) && !errors.Is(err, ErrNewer) {
			t.Errorf("byte %d of the snapshot is damaged: %v", at, err)
		}
	}
}

func TestStoreIsLocked(t *testing.T) {
	disk := vfs.NewMemory(64 << 20)
	s, err := Open(disk, "meta")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(disk, "meta"); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a second open: %v", err)
	}
	s.Close()
	if s, err = Open(disk, "meta"); err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func FuzzSnapshot(f *testing.F) {
	disk := vfs.NewMemory(64 << 20)
	s, err := Open(disk, "meta")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Propose(initCmd()); err != nil {
		f.Fatal(err)
	}
	s.Propose(createCmd("a", 1, "iqn.2026-11.petal:t"))
	if err := writeSnapshot(disk, "meta", s.State()); err != nil {
		f.Fatal(err)
	}
	file, _ := disk.Open("meta/snapshot", 0)
	size, _ := file.Size()
	buf := make([]byte, size)
	file.ReadAt(buf, 0)
	f.Add(buf)
	f.Add(buf[:snapshotHeader])
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := parseSnapshot(b); err == nil && st == nil {
			t.Fatal("no state and no error")
		}
	})
}
