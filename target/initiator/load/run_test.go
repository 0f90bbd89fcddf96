package load

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"petal/target"
	"petal/target/lun"
)

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	cmd.Wait()
}

// crashing serves disk; at the write after so many all connections are cut, so
// that neither it nor any later one is acknowledged, and a new server takes the
// place of the old one, after meanwhile() has changed the disk as a crash would.
func crashing(t *testing.T, disk *liar, after int, meanwhile func()) string {
	t.Helper()
	s, url := serve(t, disk)
	addr := strings.Split(url, "/")[2]
	crashed := false
	honest := disk.onWrite
	disk.onWrite = func(n int, w *lie) {
		if honest != nil {
			honest(n, w)
		}
		if disk.writes < after || crashed {
			return
		}
		crashed = true
		s.Suspend() // drops all connections, and waits for nothing
		go func() {
			s.Close()
			if meanwhile != nil {
				disk.mu.Lock()
				meanwhile()
				disk.mu.Unlock()
			}
			comeBack(t, addr, disk)
		}()
	}
	return url
}

// comeBack starts a server at addr.
func comeBack(t *testing.T, addr string, disk lun.Disk) {
	u, err := lun.NewUnit(lun.UnitConfig{Disk: disk, Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "test"})
	if err != nil {
		t.Error(err)
		return
	}
	d := lun.NewDevice(testTarget)
	d.SetUnit(0, u)
	s := target.New(target.Config{})
	t.Cleanup(s.Close)
	if err := s.SetTarget(testTarget, target.Target{Device: d}); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(patience); ; {
		if _, err = s.Listen(target.Portal{Listen: addr, TPGT: 1}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}

func TestRunSurvivesARestart(t *testing.T) {
	disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	c := verifying(crashing(t, disk, 300, nil))
	c.Reconnect = patience
	c.ExpectZeros = false // a second run does not know what the first one has written
	r := runUntil(t, c, func(r Result) bool { return !r.OK() || r.Disks[0].Reconnects > 0 })
	if !r.OK() {
		t.Errorf("disks %+v, verified %+v", r.Disks, r.Verified)
	}
	if r.Disks[0].LongestStall <= 0 {
		t.Errorf("%d reconnects, and no stall", r.Disks[0].Reconnects)
	}
}

// A disk that says write-back may lose in a crash what was not synced; one that
// says write-through may not.
func TestLossInACrash(t *testing.T) {
	for name, cached := range map[string]bool{"write-back": true, "write-through": false} {
		t.Run(name, func(t *testing.T) {
			disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
			disk.SetWriteCache(cached)
			cache := map[uint64][]byte{} // what the crash brings back, by block
			disk.onWrite = func(n int, w *lie) {
				if len(w.data) == regionBytes { // a run begins, and fills the disk
					disk.writes = 0
					clear(cache)
					return
				}
				if _, ok := cache[w.off]; !ok {
					disk.MemoryDisk.Read(w.off, len(w.data), func(vec [][]byte, loan any, err error) {
						cache[w.off] = bytes.Join(vec, nil)
						disk.MemoryDisk.Release(loan)
					})
				}
			}
			crashed := false
			url := crashing(t, disk, 50, func() {
				crashed = true
				for off, data := range cache {
					putBack(t, disk.MemoryDisk, off, data)
				}
			})
			c := verifying(url)
			c.Time, c.Reconnect, c.SyncEvery = 200*time.Millisecond, patience, 1<<30
			c.Fill = true
			c.Jobs[0].ReadPercent = 80 // blocks that stay unwritten until they are read
			r := runUntil(t, c, func(Result) bool {
				disk.mu.Lock()
				defer disk.mu.Unlock()
				return crashed
			})
			if lost := r.Verified.Counts[Lost] + r.Verified.Counts[Stale]; (lost == 0) != cached {
				t.Errorf("findings: %v", r.Verified.Counts)
			}
		})
	}
}

// putBack writes data past all servers.
func putBack(t *testing.T, disk *lun.MemoryDisk, off uint64, data []byte) {
	vec, loan, err := disk.Reserve(off, len(data))
	if err != nil {
		t.Error(err)
		return
	}
	for ; len(vec) > 0; vec = vec[1:] {
		data = data[copy(vec[0], data):]
	}
	disk.Write(loan, true, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
}

// The target goes away for good: the state that is left says what is in doubt,
// and a later check on the same disk agrees.
func TestStateAfterTargetIsGone(t *testing.T) {
	disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	s, url := serve(t, disk)
	disk.onWrite = func(n int, w *lie) {
		if n == 300 {
			s.Suspend() // this write is not acknowledged, nor any later one
			go s.Close()
		}
	}
	c := verifying(url)
	c.Time, c.VerifyState = time.Hour, filepath.Join(t.TempDir(), "state")
	r, err := Run(context.Background(), c)
	if err == nil || r.OK() || r.Verified == nil || r.Verified.FinalRead {
		t.Fatalf("the target was gone, and the result is %+v, %v", r.Verified, err)
	}
	if r.Verified.Uncertain == 0 {
		t.Error("nothing is in doubt, though writes were under way")
	}
	_, c.URLs[0] = serve(t, disk)
	c.CheckOnly = true
	if r, err = Run(context.Background(), c); err != nil || !r.OK() {
		t.Errorf("the check after: %v, %+v", err, r.Verified)
	}
}

// A run on a write-back disk ends with a sync: nothing is left in doubt.
func TestRunEndsWithASync(t *testing.T) {
	disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	disk.SetWriteCache(true)
	_, url := serve(t, disk)
	r, err := Run(context.Background(), verifying(url))
	if err != nil || !r.OK() || !r.Disks[0].WriteCache {
		t.Fatalf("error %v, %+v", err, r)
	}
	if r.Verified.Uncertain != 0 || disk.Flushes() == 0 {
		t.Errorf("%d units are in doubt after %d syncs", r.Verified.Uncertain, disk.Flushes())
	}
}

func TestIOErrorsAreReported(t *testing.T) {
	disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	var failed atomic.Pointer[uint64]
	disk.SetFail(func(op string, off uint64, n int) error {
		if op == "write" && failed.CompareAndSwap(nil, &off) {
			return syscall.ENOSPC
		}
		return nil
	})
	_, url := serve(t, disk)
	r, err := Run(context.Background(), verifying(url))
	if err != nil {
		t.Fatal(err)
	}
	d := r.Disks[0]
	if d.ErrorCount != 1 || len(d.Errors) != 1 || r.OK() {
		t.Fatalf("errors: %+v", d)
	}
	if e := d.Errors[0]; e.LBA != *failed.Load()/512 || e.Blocks != 8 || e.Command != "WRITE (16)" || !strings.Contains(e.Error, "27/07") {
		t.Errorf("error: %+v", e)
	}
	if len(r.Verified.Findings) != 0 {
		t.Errorf("a write that failed with an error is no wrong data: %v", r.Verified.Findings)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	_, url := serve(t, lun.NewMemoryDisk(regionBytes, 512))
	ctx, cancel := context.WithCancel(context.Background())
	c := verifying(url)
	c.Time = time.Hour
	var progress strings.Builder
	c.Progress = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "IOPS") {
			cancel()
		}
		return progress.Write(p)
	})
	if _, err := Run(ctx, c); err == nil {
		t.Error("no error says that the run was cut short")
	}
	if !strings.Contains(progress.String(), "round 1/1") {
		t.Errorf("progress: %q", progress.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestConfigIsChecked(t *testing.T) {
	_, url := serve(t, lun.NewMemoryDisk(regionBytes, 512))
	good := verifying(url)
	for want, change := range map[string]func(*Config){
		"no URL":              func(c *Config) { c.URLs = nil },
		"one URL":             func(c *Config) { c.URLs = []string{url, url} },
		"no job":              func(c *Config) { c.Jobs = nil },
		"block size 100":      func(c *Config) { c.Jobs = []Job{{BlockSize: 100}} },
		"depth 5000":          func(c *Config) { c.Jobs = []Job{{Depth: 5000}} },
		"percentages":         func(c *Config) { c.Jobs = []Job{{ReadPercent: 101}} },
		"-1 sessions":         func(c *Config) { c.Jobs = []Job{{Sessions: -1}} },
		"state file":          func(c *Config) { c.CheckOnly = true },
		"power of two":        func(c *Config) { c.AtomicBytes = 1000 },
		"process ids":         func(c *Config) { c.PIDs = []int{1, 2} },
		"does not fit":        func(c *Config) { c.Size = regionBytes + 4096 },
		"is no block":         func(c *Config) { c.Offset = 100 },
		"must not be negativ": func(c *Config) { c.Rounds = -1 },
		"no such file":        func(c *Config) { c.CheckOnly, c.VerifyState = true, filepath.Join(t.TempDir(), "x") },
		"iscsi://":            func(c *Config) { c.URLs = []string{"http://x"} },
	} {
		c := good
		change(&c)
		if _, err := Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
}

// A state file says which disk it is of.
func TestStateOfAnotherDisk(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	disk := lun.NewMemoryDisk(1<<20, 512)
	_, one := serve(t, disk)
	c := Config{URLs: []string{one}, Jobs: []Job{{}}, Time: 50 * time.Millisecond, VerifyState: state}
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	_, c.URLs[0] = serveUUID(t, lun.NewMemoryDisk(1<<20, 512), [16]byte{2})
	c.CheckOnly = true
	r, err := Run(t.Context(), c)
	if _, refused := errors.AsType[ConfigError](err); !refused || r.Verified != nil {
		t.Errorf("checked another disk: %v, %+v", err, r.Verified)
	}
	if after, err := os.ReadFile(state); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the state file was changed (%v)", err)
	}
}

// A run that waits for a connection ends when it is told to, and keeps its state.
func TestCancelWhileReconnecting(t *testing.T) {
	s, url := serve(t, lun.NewMemoryDisk(1<<20, 512))
	state := filepath.Join(t.TempDir(), "state")
	ctx, cancel := context.WithCancel(t.Context())
	var canceled time.Time
	var down sync.Once
	progress := writerFunc(func(line []byte) (int, error) {
		switch {
		case bytes.Contains(line, []byte("reconnecting")):
			canceled = time.Now()
			cancel()
		case bytes.Contains(line, []byte("IOPS")):
			down.Do(s.Close)
		}
		return len(line), nil
	})
	_, err := Run(ctx, Config{URLs: []string{url}, Jobs: []Job{{Depth: 8}}, Time: time.Hour, Reconnect: time.Hour, VerifyState: state, Progress: progress})
	if err == nil || time.Since(canceled) > patience {
		t.Errorf("%v, %v after it was told", err, time.Since(canceled))
	}
	if _, _, err := loadState(state); err != nil {
		t.Error(err)
	}
}

// TestPortals: the sessions share the portals out between them, and when one is
// lost its session goes on at another, after the delay.
func TestPortals(t *testing.T) {
	disk := lun.NewMemoryDisk(1<<20, 512)
	first, url := serve(t, disk)
	second, other := serve(t, disk)
	const delay = 300 * time.Millisecond
	c := Config{URLs: []string{url}, Jobs: []Job{{Sessions: 2, Depth: 4}}, Time: 2 * progressEvery, Verify: true, Reconnect: patience}
	c.Options.Portals, c.Options.PathDelay = []string{strings.Split(other, "/")[2]}, delay
	var lost sync.Once
	c.Progress = writerFunc(func(line []byte) (int, error) {
		if bytes.Contains(line, []byte("IOPS")) { // both are at work, and go on behind this
			lost.Do(func() {
				if a, b := len(first.Sessions()), len(second.Sessions()); a != 1 || b != 1 {
					t.Errorf("%d sessions at one portal, %d at the other", a, b)
				}
				first.Close()
			})
		}
		return len(line), nil
	})
	r := runUntil(t, c, func(r Result) bool { return len(r.Verified.Findings) > 0 || r.Disks[0].Reconnects > 0 })
	if len(r.Verified.Findings) > 0 || r.Disks[0].Reconnects != 1 {
		t.Fatalf("%d reconnects, findings %v", r.Disks[0].Reconnects, r.Verified.Findings)
	}
	if stall := r.Disks[0].LongestStall; stall < milliseconds(delay) {
		t.Errorf("commands of a lost path were sent on another after %.0f ms", stall)
	}
	if s := r.Disks[0].Stall; s == nil || s.Milliseconds != r.Disks[0].LongestStall || s.Began.Before(r.Began) || !strings.Contains(s.Command, "(16)") {
		t.Errorf("the longest stall: %+v", s)
	}
}
