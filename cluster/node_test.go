package cluster

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/times"
)

func testNode(t *testing.T, dir string) *Node {
	t.Helper()
	n, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close(context.Background()) })
	return n
}

func testOptions(dir string) Options {
	return Options{Dir: filepath.Join(dir, "node"), Name: "n1", CacheBytes: 4 << 20, Times: patient(),
		Bricks: []BrickOptions{{Path: filepath.Join(dir, "brick"), Journal: 64 << 20, Capacity: 1 << 30}},
		brick:  func(o *brick.Options) { o.SegmentBytes = 4 << 20 }}
}

// patient are intervals for tests in real time: no lease lapses and no command gets
// too old because the machine or its disk stands still for a while.
func patient() times.Times {
	t := times.Default()
	t.Lease, t.Guard, t.Admission, t.Command = 30*time.Second, 35*time.Second, 10*time.Second, time.Minute
	t.Complain, t.Barrier = 30*time.Second, 2*time.Minute
	return t
}

func testDisk(t *testing.T, n *Node, name string, size uint64) *meta.Disk {
	t.Helper()
	d, err := n.CreateDisk(t.Context(), DiskSpec{Name: name, Size: size, BlockSize: 512, Target: "iqn.2026-11.petal:" + name})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func writeAt(t *testing.T, v *Volume, off uint64, data []byte) {
	t.Helper()
	vec, loan, err := v.Reserve(off, len(data))
	if err != nil {
		t.Fatal(err)
	}
	rest := data
	for _, b := range vec {
		rest = rest[copy(b, rest):]
	}
	done := make(chan error, 1)
	v.Write(loan, false, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func readAt(t *testing.T, v *Volume, off uint64, n int) []byte {
	t.Helper()
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	v.Read(off, n, func(vec [][]byte, loan any, err error) {
		r := result{err: err}
		if err == nil {
			for _, b := range vec {
				r.data = append(r.data, b...)
			}
			v.Release(loan)
		}
		done <- r
	})
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.data
}

// What was written and what was agreed is there after a restart.
func TestNodeRestart(t *testing.T) {
	dir := t.TempDir()
	n := testNode(t, dir)
	d := testDisk(t, n, "data", 1<<30)
	v, err := n.Volume(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 200<<10)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	writeAt(t, v, 12345*512, data)
	if err := n.SetCHAP(t.Context(), "", Account{User: "u", Secret: "a secret of 12"}); err != nil {
		t.Fatal(err)
	}
	if err := n.Reservations(d.ID).Store(t.Context(), []byte("held"), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	n = testNode(t, dir)
	if v, err = n.Volume(d.ID); err != nil {
		t.Fatal(err)
	}
	if got := readAt(t, v, 12345*512, len(data)); !bytes.Equal(got, data) {
		t.Error("the data differs after a restart")
	}
	if got := readAt(t, v, 0, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("what was never written does not read as zeros")
	}
	if a, err := n.OpenCHAP("", n.State().Discovery()); err != nil || a.Secret != "a secret of 12" {
		t.Errorf("CHAP account after a restart: %+v, %v", a, err)
	}
	if value, version := n.Reservations(d.ID).Load(); string(value) != "held" || version != 1 {
		t.Errorf("reservations after a restart: %q, version %d", value, version)
	}
	if st := n.Status(); st.Incarnation != 2 || st.Bricks[0].Failed != nil || st.Bricks[0].Used == 0 {
		t.Errorf("status after a restart: %+v", st)
	}
}

func TestReservationsCompareAndSwap(t *testing.T) {
	n := testNode(t, t.TempDir())
	d := testDisk(t, n, "data", 1<<20)
	r := n.Reservations(d.ID)
	told := make(chan struct{}, 1)
	r.Watch(func() { told <- struct{}{} })
	if err := r.Store(t.Context(), []byte("a"), 0, false); err != nil {
		t.Fatal(err)
	}
	<-told
	if err := r.Store(t.Context(), []byte("b"), 0, false); !errors.Is(err, meta.ErrStale) {
		t.Errorf("a swap on an old version: %v", err)
	}
	if v, _ := r.Load(); string(v) != "a" {
		t.Errorf("value %q after a refused swap", v)
	}
}

// The space of a deleted disk comes back, and a disk of the same name starts
// empty.
func TestDeleteDiskFreesSpace(t *testing.T) {
	dir := t.TempDir()
	n := testNode(t, dir)
	d := testDisk(t, n, "data", 64<<20)
	v, err := n.Volume(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	for off := uint64(0); off < 8<<20; off += 1 << 20 {
		writeAt(t, v, off, bytes.Repeat([]byte{7}, 1<<20))
	}
	if used, _, _ := n.store.Load().brick.Space(); used < 8<<20 {
		t.Fatalf("%d bytes used after 8 MiB were written", used)
	}
	if err := n.DeleteDisk(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, func(s *meta.State) bool { return len(s.Families()) == 0 })
	if err := n.Close(t.Context()); err != nil { // Close brings everything home
		t.Fatal(err)
	}
	n = testNode(t, dir)
	if used, _, _ := n.store.Load().brick.Space(); used != 0 {
		t.Errorf("%d bytes used after the only disk was deleted", used)
	}
	if f := n.State().Families(); len(f) != 0 {
		t.Errorf("families left: %v", f)
	}
	if _, err := n.Volume(d.ID); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("volume of a deleted disk: %v", err)
	}
	d = testDisk(t, n, "data", 64<<20)
	if v, err = n.Volume(d.ID); err != nil {
		t.Fatal(err)
	}
	if got := readAt(t, v, 0, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("a new disk shows a deleted disk's data")
	}
}

// A disk that shrinks and grows again shows zeros where it was cut.
func TestShrinkForgets(t *testing.T) {
	n := testNode(t, t.TempDir())
	d := testDisk(t, n, "data", 1<<20)
	v, err := n.Volume(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, v, 0, bytes.Repeat([]byte{7}, 1<<20))
	small, big := uint64(512<<10+512), uint64(1<<20)
	if _, err := n.UpdateDisk(t.Context(), "data", DiskChange{Size: &small}); !errors.Is(err, meta.ErrInvalid) {
		t.Fatalf("shrinking without saying so: %v", err)
	}
	if _, err := n.UpdateDisk(t.Context(), "data", DiskChange{Size: &small, Shrink: true}); err != nil {
		t.Fatal(err)
	}
	if v.Size() != small {
		t.Fatalf("size %d after shrinking to %d", v.Size(), small)
	}
	if _, err := n.UpdateDisk(t.Context(), "data", DiskChange{Size: &big}); err != nil {
		t.Fatal(err)
	}
	got := readAt(t, v, 0, int(big))
	if want := append(bytes.Repeat([]byte{7}, int(small)), make([]byte, big-small)...); !bytes.Equal(got, want) {
		t.Error("the cut part is not zeros, or the rest is not there")
	}
}

// What does not belong together is refused, and nothing is lost by trying.
func TestOpenRefusesForeignParts(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	n := testNode(t, dir)
	testDisk(t, n, "data", 1<<20)
	if _, err := Open(testOptions(dir)); err == nil {
		t.Error("a second node on the same directories")
	}
	n.Close(t.Context())
	testNode(t, other).Close(t.Context())

	foreign := testOptions(dir)
	foreign.Bricks[0].Path = filepath.Join(other, "brick")
	wantRefusal(t, "another cluster's brick", foreign, meta.ErrInUse)
	missing := testOptions(dir)
	missing.Bricks[0].Path = filepath.Join(dir, "elsewhere")
	wantRefusal(t, "a brick that is not mounted", missing, meta.ErrNotFound)
	fresh := testOptions(dir)
	fresh.Dir = filepath.Join(t.TempDir(), "node")
	wantRefusal(t, "a brick without its node's state", fresh, meta.ErrInUse)

	n = testNode(t, dir)
	if n.State().Disk("data") == nil {
		t.Error("the disk is gone")
	}
}

// R14: a state restored from before the brick's last start is refused.
func TestOpenRefusesOldState(t *testing.T) {
	dir := t.TempDir()
	testNode(t, dir).Close(t.Context())
	if err := os.CopyFS(filepath.Join(dir, "backup"), os.DirFS(filepath.Join(dir, "node"))); err != nil {
		t.Fatal(err)
	}
	testNode(t, dir).Close(t.Context())
	if err := os.RemoveAll(filepath.Join(dir, "node")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "backup"), filepath.Join(dir, "node")); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a state older than the brick", testOptions(dir), meta.ErrOld)
}

func wantRefusal(t *testing.T, what string, o Options, kind error) {
	t.Helper()
	n, err := Open(o)
	if err == nil {
		n.Close(context.Background())
		t.Errorf("%s: accepted", what)
		return
	}
	if !errors.Is(err, kind) || meta.HintOf(err) == "" {
		t.Errorf("%s: %v (hint %q)", what, err, meta.HintOf(err))
	}
}

// eventually waits until the node's state is as it should be.
func eventually(t *testing.T, n *Node, ok func(*meta.State) bool) {
	t.Helper()
	told := make(chan struct{}, 1)
	n.Watch(func(*meta.State) {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	limit := time.After(time.Minute)
	for !ok(n.State()) {
		select {
		case <-told:
		case <-limit:
			t.Fatal("the state never comes to what it should be")
		}
	}
}

// Two administrators resize a disk through two nodes that know different states of
// it: what was cut off by one does not show again by the other.
func TestResizeThroughTwoNodes(t *testing.T) { virtual(t, resizeThroughTwoNodes) }

func resizeThroughTwoNodes(t *testing.T) {
	c := newMemCluster(t, 3, 1)
	const size, half = 8 << 20, 4 << 20
	if _, err := c.nodes[0].CreateDisk(t.Context(), DiskSpec{Name: "data", Size: size, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	if err := <-write(c.volume(0, "data"), half, pattern(1, 1<<20), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, c.nodes[1].Node, func(s *meta.State) bool { return s.Disk("data") != nil })
	n := c.nodes[1].Node
	old := n.State()
	to := uint64(half)
	if _, err := c.nodes[0].UpdateDisk(t.Context(), "data", DiskChange{Size: &to, Shrink: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, func(s *meta.State) bool { return s.Disk("data").Size == half })
	now := n.State()
	n.state.Store(old) // as if it had not heard of that yet
	to = size + 1<<20
	_, err := n.UpdateDisk(t.Context(), "data", DiskChange{Size: &to})
	if !errors.Is(err, meta.ErrStale) {
		t.Errorf("the second: %v", err)
	}
	n.state.Store(now)
	if _, err := n.UpdateDisk(t.Context(), "data", DiskChange{Size: &to}); err != nil {
		t.Fatal(err)
	}
	if got := readAt(t, c.volume(1, "data"), half, 1<<20); !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Error("old data show")
	}
}
