package initiator_test

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"petal/target"
	"petal/target/initiator"
	"petal/target/lun"
)

// holdingDisk lets a test stop a write before it takes effect.
type holdingDisk struct {
	*lun.MemoryDisk
	hold chan struct{} // writes wait for its close
	seen chan struct{} // told of each write

	mu    sync.Mutex
	order []uint64 // offsets of the writes, as they came
}

func (d *holdingDisk) Reserve(off uint64, n int) ([][]byte, any, error) {
	d.mu.Lock()
	d.order = append(d.order, off)
	d.mu.Unlock()
	return d.MemoryDisk.Reserve(off, n)
}

// writes forgets and returns the order of the writes.
func (d *holdingDisk) writes() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	order := d.order
	d.order = nil
	return order
}

func (d *holdingDisk) Write(loan any, fua bool, done func(error)) {
	d.seen <- struct{}{}
	go func() {
		<-d.hold
		d.MemoryDisk.Write(loan, fua, done)
	}()
}

// A server that goes away and comes back at the same address: what had not
// ended is sent again, in its old order, and ends well.
func TestReconnectSendsAgain(t *testing.T) {
	disk := &holdingDisk{MemoryDisk: lun.NewMemoryDisk(1<<20, 512), hold: make(chan struct{}), seen: make(chan struct{}, 100)}
	first, portal := serve(t, disk, nil)
	var lost, again atomic.Int32
	restored := make(chan struct{})
	s, _ := dial(t, portal, initiator.Options{Reconnect: patience, OnEvent: func(e initiator.Event) {
		if e.Lost != nil {
			lost.Add(1)
		} else if again.Add(1) == 1 {
			close(restored)
		}
	}})
	const tasks = 8
	ended := make(chan *initiator.Task, tasks)
	for i := range tasks {
		task := &initiator.Task{LUN: s.LUN(), CDB: initiator.Write16(uint64(i), 1), Out: make([]byte, 512)}
		task.Done = func(task *initiator.Task) { ended <- task }
		if err := s.Submit(task); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	for range tasks {
		<-disk.seen
	}
	sent := disk.writes()
	go first.Close() // ends its sessions at once; it waits for the writes that we hold
	restart(t, portal, disk)
	<-restored
	close(disk.hold)
	for range tasks {
		task := <-ended
		// The new session's first command gets the unit attention of the old
		// one's loss and is not done.
		if task.UnitAttention() {
			sent = sent[1:]
			continue
		}
		if err := task.Failure(); err != nil {
			t.Fatal(err)
		}
		if task.Sends != 2 {
			t.Errorf("a task was sent %d times", task.Sends)
		}
	}
	if again := disk.writes(); !slices.Equal(again, sent) || len(sent) < tasks-1 {
		t.Errorf("sent again were the writes at %v, want %v", again, sent)
	}
	if lost.Load() != 1 || again.Load() != 1 {
		t.Errorf("told of %d losses and %d reconnections", lost.Load(), again.Load())
	}
}

// restart starts a second server at the address of the first.
func restart(t *testing.T, addr string, disk lun.Disk) *target.Server {
	t.Helper()
	s := target.New(target.Config{})
	t.Cleanup(s.Close)
	export(t, s, disk, nil)
	deadline := time.Now().Add(patience)
	for {
		_, err := s.Listen(target.Portal{Listen: addr, TPGT: 1})
		if err == nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestReconnectGivesUp(t *testing.T) {
	server, portal := serve(t, lun.NewMemoryDisk(1<<20, 512), nil)
	s, _ := dial(t, portal, initiator.Options{Reconnect: 200 * time.Millisecond})
	server.Close()
	<-s.Ended()
	if err := s.Submit(&initiator.Task{}); err == nil || errors.Is(err, initiator.ErrClosed) {
		t.Errorf("after giving up, Submit returns %v", err)
	}
}

func TestLossWithoutReconnectEndsTasks(t *testing.T) {
	disk := &holdingDisk{MemoryDisk: lun.NewMemoryDisk(1<<20, 512), hold: make(chan struct{}), seen: make(chan struct{}, 1)}
	server, portal := serve(t, disk, nil)
	s, _ := dial(t, portal, initiator.Options{})
	task := &initiator.Task{LUN: s.LUN(), CDB: initiator.Write16(0, 1), Out: make([]byte, 512)}
	failed := make(chan error)
	go func() { failed <- s.Do(within(t), task) }()
	<-disk.seen
	go server.Close()
	if err := <-failed; err == nil {
		t.Error("the task ended well")
	}
	close(disk.hold)
	<-s.Ended()
}

// A target that is alive as a TCP peer and says nothing more.
func TestSilentTargetIsLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := &fake{t: t}
	go f.accept(l, func(c *initiator.Conn) {
		for { // hears everything, answers nothing
			if _, err := c.Recv(); err != nil {
				return
			}
		}
	})
	s, err := initiator.Dial(within(t), urlOf(l.Addr().String()), initiator.Options{PingEvery: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Ended():
	case <-within(t).Done():
		t.Error("the silence was not noticed")
	}
}
