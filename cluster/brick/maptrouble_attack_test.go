package brick

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"petal/journal"
	"petal/placement"
)

// mapFault makes writes of some of the map's files fail with what is set.
type mapFault struct {
	part  string // of the names
	errno atomic.Int32
	tries chan time.Time // when the first ones failed
}

func (m *mapFault) wrap(o *Options) {
	o.MapFS = errorfs.Wrap(o.MapFS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		e := m.errno.Load()
		if e == 0 || op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !strings.Contains(op.Path, m.part) {
			return nil
		}
		select {
		case m.tries <- time.Now():
		default:
		}
		return syscall.Errno(e)
	}))
}

// troubled is a brick with something to flush whose map cannot be written.
func troubled(t *testing.T, part string, errno syscall.Errno) (*rig, *mapFault, chan error) {
	t.Helper()
	m, failed := &mapFault{part: part, tries: make(chan time.Time, 3)}, make(chan error, 1)
	g := newRig(21, func(o *Options) {
		m.wrap(o)
		o.OnFail = func(err error) { failed <- err }
	})
	if err := g.start(); err != nil {
		t.Fatal(err)
	}
	if err := g.append(&modelRecord{r: &Record{Key: placement.Key{Family: 1, Node: 1, Chunk: 1}}, mask: 7}); err != nil {
		t.Fatal(err)
	}
	for g.b.Step() {
	}
	g.b.StepDestage(0)
	m.errno.Store(int32(errno))
	return g, m, failed
}

// TestMapFull: a flush waits for room, does not hurry, and ends when there is
// some. A brick that is closed meanwhile does not wait.
func TestMapFull(t *testing.T) {
	for _, room := range []bool{true, false} {
		g, m, failed := troubled(t, ".sst", syscall.ENOSPC)
		flushed := make(chan error, 1)
		go func() { flushed <- g.b.StepFlushMap() }()
		var tries [3]time.Time
		for i := range tries { // each but the first after a pause
			select {
			case err := <-flushed:
				t.Fatalf("flushed on a full file system: %v", err)
			case tries[i] = <-m.tries:
			}
		}
		if d := tries[2].Sub(tries[0]); d < 2*troublePause {
			t.Errorf("three tries within %v", d)
		}
		if room {
			m.errno.Store(0)
			if err := <-flushed; err != nil {
				t.Errorf("after there was room: %v", err)
			}
		} else {
			close(g.b.stop)
			if err := <-flushed; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("when closed: %v", err)
			}
		}
		if room {
			select {
			case err := <-failed:
				t.Errorf("the brick has failed: %v", err)
			default:
			}
			if err := g.verify(1, 1); err != nil {
				t.Error(err)
			}
		}
		m.errno.Store(0) // or it would try for ever
		g.b.Kill()
	}
}

// TestMapFails: any other error of Pebble's own goroutines, even one that it
// takes for the end of the process, fails the brick and nothing else.
func TestMapFails(t *testing.T) {
	for _, part := range []string{".sst", "MANIFEST"} {
		g, _, failed := troubled(t, part, syscall.EIO)
		if err := g.b.StepFlushMap(); err == nil {
			t.Errorf("%s: flushed", part)
		}
		if err := <-failed; !errors.Is(err, ErrFailed) {
			t.Errorf("%s: failed with %v", part, err)
		}
		if g.b.Failed() == nil {
			t.Errorf("%s: in service", part)
		}
		if err := g.b.Close(); err != nil && !errors.Is(err, journal.ErrFailed) {
			t.Errorf("%s: close: %v", part, err)
		}
	}
}
