package load

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"petal/target"
	"petal/target/lun"
)

// liar is a disk that a test has tell lies. Its hooks are called under a lock.
type liar struct {
	*lun.MemoryDisk
	mu      sync.Mutex
	writes  int
	reads   int
	onWrite func(n int, w *lie)
	onRead  func(n int, r *lie)
	onFlush func()
}

// lie is one write, before it is done, or one read, after it was done. The
// hook may change it.
type lie struct {
	off  uint64
	data []byte
	drop bool // a write: say that it was done
}

func (d *liar) Reserve(off uint64, n int) ([][]byte, any, error) {
	l := &lie{off: off, data: make([]byte, n)}
	return [][]byte{l.data}, l, nil
}

func (d *liar) Write(loan any, fua bool, done func(error)) {
	l := loan.(*lie)
	d.mu.Lock()
	d.writes++
	if d.onWrite != nil {
		d.onWrite(d.writes, l)
	}
	d.mu.Unlock()
	if l.drop {
		done(nil)
		return
	}
	vec, inner, err := d.MemoryDisk.Reserve(l.off, len(l.data))
	if err != nil {
		done(err)
		return
	}
	for rest := l.data; len(vec) > 0; vec = vec[1:] {
		rest = rest[copy(vec[0], rest):]
	}
	d.MemoryDisk.Write(inner, fua, done)
}

func (d *liar) Flush(done func(error)) {
	d.mu.Lock()
	if d.onFlush != nil {
		d.onFlush()
	}
	d.mu.Unlock()
	d.MemoryDisk.Flush(done)
}

func (d *liar) Read(off uint64, n int, done func([][]byte, any, error)) {
	d.MemoryDisk.Read(off, n, func(vec [][]byte, loan any, err error) {
		if err != nil {
			done(vec, loan, err)
			return
		}
		l := &lie{off: off, data: slices.Concat(vec...)}
		d.MemoryDisk.Release(loan)
		d.mu.Lock()
		d.reads++
		if d.onRead != nil {
			d.onRead(d.reads, l)
		}
		d.mu.Unlock()
		done([][]byte{l.data}, l, nil)
	})
}

func (d *liar) Release(loan any) {
	if _, ours := loan.(*lie); !ours {
		d.MemoryDisk.Release(loan)
	}
}

const testTarget = "iqn.2026-11.petal:test"

// testHost is a loopback address of this process alone. A port that is closed
// must not become somebody else's: other test processes take free ports of
// 127.0.0.1 all the time, and serve targets of the same name.
var testHost = fmt.Sprintf("127.%d.%d.%d", 128|os.Getpid()>>16&127, os.Getpid()>>8&255, os.Getpid()&255)

// patience is how long a test waits for what is sure to come.
const patience = 2 * time.Minute

// serve serves disk and returns its URL.
func serve(t *testing.T, disk lun.Disk) (*target.Server, string) {
	t.Helper()
	return serveUUID(t, disk, [16]byte{1})
}

func serveUUID(t *testing.T, disk lun.Disk, uuid [16]byte) (*target.Server, string) {
	t.Helper()
	u, err := lun.NewUnit(lun.UnitConfig{Disk: disk, Reservations: lun.NewMemoryReservations(), UUID: uuid, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	d := lun.NewDevice(testTarget)
	d.SetUnit(0, u)
	s := target.New(target.Config{})
	t.Cleanup(s.Close)
	if err := s.SetTarget(testTarget, target.Target{Device: d}); err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(target.Portal{Listen: testHost + ":0", TPGT: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s, "iscsi://" + addr.String() + "/" + testTarget + "/0"
}

// regionBytes is small, so that every block is written and read many times.
const regionBytes = 256 << 10

func verifying(url string) Config {
	return Config{
		URLs: []string{url}, Verify: true, Size: regionBytes, Time: 150 * time.Millisecond, Seed: 1, ExpectZeros: true,
		Jobs: []Job{{BlockSize: 4096, Depth: 8, ReadPercent: 40, Sessions: 2}},
	}
}

// runUntil runs c, for longer each time, until enough has happened: how much a
// machine does in a moment is not for a test to say.
func runUntil(t *testing.T, c Config, enough func(Result) bool) Result {
	t.Helper()
	for {
		r, err := Run(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		if enough(r) {
			return r
		}
		if c.Time > 30*time.Second {
			t.Fatalf("too little has happened in a minute: %+v", r.Verified)
		}
		c.Time *= 2
	}
}

// flip changes one bit of a sector's filler.
func flip(data []byte) { data[SectorBytes+100] ^= 4 }

// Lies that the verifier must tell by their names. One in sixteen is told, time
// and again, since any single one may be as good as the truth: the next write to
// the block covers it before anybody reads, or it is read back in time to pass
// for another kind. How many are told before it must have been noticed is a
// matter of chance only in theory.
func TestPlantedLies(t *testing.T) {
	const every, sure = 16, 1000
	var told int
	now := func(n int) bool {
		if n%every != 0 {
			return false
		}
		told++
		return true
	}
	var old map[uint64][]byte // what was first written in a run, by offset
	lies := map[string]struct {
		kind  Kind
		write func(n int, w *lie)
		read  func(n int, r *lie)
	}{
		"write dropped": {kind: Lost, write: func(n int, w *lie) { w.drop = now(n) }},
		"write cut to two sectors": {kind: Torn, write: func(n int, w *lie) {
			if now(n) {
				w.data = w.data[:2*SectorBytes]
			}
		}},
		"write to the next block": {kind: Misplaced, write: func(n int, w *lie) {
			if now(n) {
				w.off = (w.off + 4096) % regionBytes
			}
		}},
		"bit flipped as it is written": {kind: Rotten, write: func(n int, w *lie) {
			if now(n) {
				flip(w.data)
			}
		}},
		"bit flipped as it is read": {kind: Rotten, read: func(n int, r *lie) {
			if now(n) {
				flip(r.data)
			}
		}},
		"foreign data": {kind: Invented, read: func(n int, r *lie) {
			if now(n) {
				copy(r.data, "something else altogether")
			}
		}},
		"old data read now and then": {kind: Stale,
			write: func(n int, w *lie) {
				if old[w.off] == nil {
					old[w.off] = slices.Clone(w.data)
				}
			},
			read: func(n int, r *lie) {
				if was := old[r.off]; was != nil && now(n) {
					copy(r.data, was)
				}
			}},
		"zeros in place of data": {kind: Lost, write: func(n int, w *lie) {
			if now(n) {
				clear(w.data)
			}
		}},
	}
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			told, old = 0, map[uint64][]byte{}
			disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
			disk.onRead = l.read
			disk.onWrite = func(n int, w *lie) {
				if len(w.data) == regionBytes { // a run begins, and fills the disk
					clear(old)
				} else if l.write != nil {
					l.write(n, w)
				}
			}
			_, url := serve(t, disk)
			c := verifying(url)
			// Each block is written before any is read, or old data would not
			// be old.
			c.Fill = true
			r := runUntil(t, c, func(r Result) bool {
				disk.mu.Lock()
				defer disk.mu.Unlock()
				return r.Verified.Counts[l.kind] > 0 || told > sure
			})
			if r.Verified.Counts[l.kind] == 0 {
				t.Fatalf("%d lies were told, and none was found to be of kind %q: %v", told, l.kind, r.Verified.Findings)
			}
			for _, f := range r.Verified.Findings {
				if f.Sector >= regionBytes/SectorBytes || f.Count < 1 || f.Found == "" || f.Allowed == "" {
					t.Errorf("the finding does not say what and where: %+v", f)
				}
			}
		})
	}
}

func TestHonestDisk(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain":        func(*Config) {},
		"filled":       func(c *Config) { c.Fill, c.Prime = true, true },
		"512 bytes":    func(c *Config) { c.Jobs[0].BlockSize = 512 },
		"mixed sizes":  func(c *Config) { c.Jobs = append(c.Jobs, Job{BlockSize: 64 << 10, Depth: 4, ReadPercent: 50}) },
		"sequential":   func(c *Config) { c.Jobs[0].Sequential = true },
		"with unmaps":  func(c *Config) { c.Jobs[0].UnmapPercent = 30 },
		"with digests": func(c *Config) { c.Options.HeaderDigest, c.Options.DataDigest = true, true },
		"two rounds":   func(c *Config) { c.Rounds = 2 },
		"one block":    func(c *Config) { c.Size = 4096 },
	} {
		t.Run(name, func(t *testing.T) {
			_, url := serve(t, &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)})
			c := verifying(url)
			change(&c)
			r, err := Run(context.Background(), c)
			if err != nil || !r.OK() {
				t.Fatalf("error %v, errors %v, findings %+v", err, r.Disks, r.Verified)
			}
			if v := r.Verified; v.Writes == 0 || v.SectorsJudged < uint64(c.Size/SectorBytes) {
				t.Errorf("%d writes and %d sectors judged", v.Writes, v.SectorsJudged)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
			var table strings.Builder
			if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "everything is in its place") {
				t.Errorf("table: %v\n%s", err, table.String())
			}
		})
	}
}

// A state kept by one run is judged by the next one, which finds what was
// changed between the two, and only that.
func TestStateIsCheckedLater(t *testing.T) {
	disk := &liar{MemoryDisk: lun.NewMemoryDisk(regionBytes, 512)}
	_, url := serve(t, disk)
	c := verifying(url)
	c.Fill = true // so that the block below is not one that nobody has written
	c.VerifyState = filepath.Join(t.TempDir(), "state")
	run := func(check bool) Result {
		t.Helper()
		c.CheckOnly = check
		r, err := Run(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := run(false); !r.OK() {
		t.Fatalf("first run: %+v", r.Verified)
	}
	if r := run(true); !r.OK() {
		t.Fatalf("check: %+v", r.Verified)
	}
	if r := run(false); !r.OK() {
		t.Fatalf("second run on the same state: %+v", r.Verified)
	}
	vec, loan, err := disk.MemoryDisk.Reserve(8192, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vec {
		clear(v)
	}
	disk.MemoryDisk.Write(loan, true, func(error) {})
	r := run(true)
	if len(r.Verified.Findings) != 1 || r.Verified.Findings[0].Kind != Lost || r.Verified.Findings[0].Sector != 16 {
		t.Errorf("after a block was zeroed: %+v", r.Verified)
	}
}
