package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/cluster/times"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// A log in words: "1:5 1:6" entries as term:index, "|" between records, "reset
// 3:9" a mark of a snapshot that came from the leader, "mark" one of our own.
func recordsOfWords(t *testing.T, log string) []*metapb.Record {
	t.Helper()
	var out []*metapb.Record
	for _, words := range strings.Split(log, "|") {
		r := &metapb.Record{}
		kind := ""
		for _, w := range strings.Fields(words) {
			var term, index uint64
			if _, err := fmt.Sscanf(w, "%d:%d", &term, &index); err != nil {
				kind = w
				continue
			}
			switch kind {
			case "":
				r.Entries = append(r.Entries, &metapb.LogEntry{Term: term, Index: index})
			case "reset", "mark":
				r.Snapshot = &metapb.Mark{Term: term, Index: index, Reset_: kind == "reset"}
			case "hard":
				r.Hard = &metapb.Hard{Term: term, Commit: index}
			}
		}
		out = append(out, r)
	}
	return out
}

func TestReplay(t *testing.T) {
	for _, c := range []struct{ name, log, snapshot, want string }{
		{"nothing", "", "0:0", "term 0 commit 0:"},
		{"entries", "1:1 1:2|1:3", "0:0", "term 1 commit 0: 1:1 1:2 1:3"},
		{"a later record wins", "1:1 1:2 1:3|2:2", "0:0", "term 2 commit 0: 1:1 2:2"},
		{"wins wholly", "1:4 1:5|2:3 2:4", "1:2", "term 2 commit 2: 2:3 2:4"},
		{"the snapshot has some", "1:1 1:2|1:3", "1:2", "term 1 commit 2: 1:3"},
		{"the snapshot has all", "1:1 1:2", "1:2", "term 1 commit 2:"},
		{"the snapshot has more", "1:1 1:2", "3:7", "term 3 commit 7:"},
		{"our own mark changes nothing", "1:1 1:2|mark 1:1|1:3", "1:1", "term 1 commit 1: 1:2 1:3"},
		{"a snapshot from the leader replaces the log", "1:1 1:2 1:3|reset 2:2|2:3", "2:2", "term 2 commit 2: 2:3"},
		{"a crash before its mark", "1:1 1:2 1:3", "2:2", "term 2 commit 2:"},
		{"a crash before its mark, the log agrees", "1:1 2:2 2:3", "2:2", "term 2 commit 2: 2:3"},
		{"commit is never beyond the log", "1:1|hard 5:9", "0:0", "term 5 commit 1: 1:1"},
		{"a gap", "1:1|1:3", "0:0", "damaged"},
		{"a gap after the snapshot", "1:5", "1:3", "damaged"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			s := (&State{}).clone()
			fmt.Sscanf(c.snapshot, "%d:%d", &s.term, &s.index)
			r := replayed{hard: &metapb.Hard{}}
			var err error
			for i, m := range recordsOfWords(t, c.log) {
				if err = r.add(journal.LSN(i+1), m); err != nil {
					break
				}
			}
			if err == nil {
				err = r.fit(s)
			}
			got := fmt.Sprintf("term %d commit %d:", r.hard.Term, r.hard.Commit)
			for _, e := range r.entries {
				got += fmt.Sprintf(" %d:%d", e.GetTerm(), e.GetIndex())
			}
			if err != nil {
				if got = "damaged"; !errors.Is(err, ErrRotten) {
					t.Fatal(err)
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// single is a group alone with a small log, on a disk whose operations can be
// counted and cut.
func single(disk vfs.FS, clock times.Clock) (*Group, error) {
	return OpenGroup(Config{FS: disk, Dir: "meta", Self: 1, Clock: clock, Times: times.Default(), Transport: nobody{}, Rand: rand.New(rand.NewPCG(1, 1)),
		Manual: true, segment: 64 << 10, capacity: 256 << 10})
}

type still struct{}

func (still) Now() time.Duration                              { return time.Hour }
func (still) AfterFunc(d time.Duration, f func()) times.Timer { return still{} }
func (still) Stop() bool                                      { return true }

// life is what a single group did before its disk died.
type life struct {
	acked   int
	session uint64
}

// live opens the group and proposes reservations, each of which tells its number,
// until n are done or the disk dies.
func live(disk vfs.FS, l *life, n int) error {
	g, err := single(disk, still{})
	if err != nil {
		return err
	}
	defer g.Close()
	if g.wal.session <= l.session {
		return fmt.Errorf("session %d follows session %d", g.wal.session, l.session)
	}
	l.session = g.wal.session
	id := ID{7}
	if g.State().ClusterID() == (ID{}) {
		if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
			return err
		}
	}
	// What a read gives is as new as anything acknowledged, from the first moment.
	var read *State
	g.ReadIndexAsync(func(s *State, err error) { read = s })
	for read == nil && g.Step() {
	}
	switch {
	case read == nil:
		return errDead
	case l.acked > 0 && (read.Disk("a") == nil || read.Reservation(read.Disk("a").ID).Version < uint64(l.acked)):
		return fmt.Errorf("a read gives a state without version %d", l.acked)
	}
	if read.Disk("a") == nil {
		if err := proposeAlone(g, disk1("a")); err != nil {
			return err
		}
	}
	for range n {
		v := g.State().Reservation(g.State().Disk("a").ID).Version
		if v < uint64(l.acked) {
			return fmt.Errorf("version %d, and %d was acknowledged", v, l.acked)
		}
		d := g.State().Disk("a").ID
		cmd := &metapb.Command{Kind: &metapb.Command_SwapReservation{SwapReservation: &metapb.SwapReservation{Disk: d[:], Version: v, Value: make([]byte, 3000)}}}
		if err := proposeAlone(g, cmd); err != nil {
			return err
		}
		l.acked = int(v) + 1
	}
	return nil
}

func disk1(name string) *metapb.Command { return createCmd(name, 1, "") }

var errDead = errors.New("no answer")

func proposeAlone(g *Group, cmd *metapb.Command) error {
	err := errDead
	g.ProposeAsync(cmd, func(_ *State, e error) { err = e })
	for err == errDead && g.Step() {
	}
	return err
}

// TestPowerCuts cuts a single group's power at every operation of its disk, twice
// in a row: what was acknowledged is there, and no session number comes twice.
func TestPowerCuts(t *testing.T) {
	count := vfs.NewMemory(64 << 20)
	ops := 0
	count.OnOp(func(vfs.Op) { ops++ })
	if err := live(count, &life{}, 120); err != nil {
		t.Fatal(err)
	}
	if _, err := count.Stat("meta/snapshot"); err != nil || ops < 150 {
		t.Fatalf("%d operations, snapshot: %v: the test sees too little", ops, err)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for cut := 0; cut < ops; cut += step {
		l := &life{}
		disk := vfs.NewMemory(64 << 20)
		for again := range 2 {
			disk = liveUntil(t, disk, l, cut/(1+again), uint64(cut))
		}
		if err := live(disk, l, 3); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

// liveUntil lives until an operation of the disk, and returns what a power cut
// leaves of it.
func liveUntil(t *testing.T, disk *vfs.Memory, l *life, cut int, seed uint64) *vfs.Memory {
	var mu sync.Mutex
	var clone *vfs.Memory
	n := 0
	disk.OnOp(func(vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if n == cut {
			disk.Stop(errors.New("power cut"))
			clone = disk.Crash(seed)
		}
		n++
	})
	err := live(disk, l, 120)
	if clone == nil {
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		disk.OnOp(nil)
		return disk
	}
	return clone
}

// TestPowerCutOfAll: the whole cluster loses power at once, again and again;
// what was acknowledged is there.
func TestPowerCutOfAll(t *testing.T) {
	for seed := range uint64(5) {
		w := clusterWorld(t, 200+seed, 3)
		w.disk = func() time.Duration { return time.Duration(w.rnd.Int64N(int64(20 * time.Millisecond))) }
		acked := map[string]bool{}
		for round := range 8 {
			for i := range 5 {
				name := fmt.Sprintf("d%d-%d", round, i)
				id := placement.Server(i%3 + 1)
				w.hosts[id].group.ProposeAsync(createCmd(name, byte(round*5+i+1), ""), func(_ *State, err error) {
					if err == nil {
						acked[name] = true
					}
				})
			}
			w.run(time.Duration(w.rnd.Int64N(int64(60 * time.Millisecond))))
			for id := placement.Server(1); id <= 3; id++ {
				w.crash(id)
			}
			for id := placement.Server(1); id <= 3; id++ {
				w.open(id)
			}
			w.until(5*time.Second, "a leader", func() bool { return w.leader() != 0 })
			w.must(1, start(1))
			for name := range acked {
				if w.state().Disk(name) == nil {
					t.Fatalf("seed %d, round %d: disk %s was acknowledged and is gone", seed, round, name)
				}
			}
		}
		if len(acked) < 8 {
			t.Errorf("seed %d: only %d acknowledged: the test shows little", seed, len(acked))
		}
	}
}

// TestLegacyDirectory: what one node alone wrote becomes a cluster of one voter,
// wherever the power is cut meanwhile.
func TestLegacyDirectory(t *testing.T) {
	old := vfs.NewMemory(64 << 20)
	writeLegacy(t, old, initCmd(), start1(), start1(), createCmd("a", 1, "iqn.2026-11.petal:t"))
	ops := 0
	for cut := 0; cut <= ops; cut++ {
		disk := old.Crash(uint64(cut))
		var clone *vfs.Memory
		n := 0
		disk.OnOp(func(vfs.Op) {
			if n == cut && ops > 0 {
				disk.Stop(errors.New("power cut"))
				clone = disk.Crash(uint64(cut))
			}
			n++
		})
		g, err := single(disk, still{})
		if err == nil {
			g.Close()
		}
		if ops == 0 { // the first run counts
			if ops = n; err != nil || ops < 5 {
				t.Fatalf("%d operations, %v", ops, err)
			}
			cut = -1
			continue
		}
		if clone == nil {
			clone = disk
			disk.OnOp(nil)
		}
		if g, err = single(clone, still{}); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for g.Step() {
		}
		st := g.State()
		if st.Disk("a") == nil || len(st.Exports(ID(append(make([]byte, 15), 1)))) != 1 || !st.conf.Voter(1) {
			t.Fatalf("cut at %d: disks %v, voters %v", cut, st.Disks(), st.conf.Voters)
		}
		if v := st.Link(st.Links()[0]).Ver; v != 3 {
			t.Errorf("cut at %d: its link begins with version %d, not after incarnation 2", cut, v)
		}
		if err := proposeAlone(g, createCmd("b", 2, "")); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		g.Close()
		if format, err := storedFormat(clone, "meta"); err != nil || format != 2 {
			t.Fatalf("the old release would open it: format %d, %v", format, err)
		}
	}
}

func start1() *metapb.Command {
	return &metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: 1}}}
}

// writeLegacy does what the release with one node did: half of the commands in a
// snapshot, all of them in the log.
func writeLegacy(t *testing.T, disk vfs.FS, cmds ...*metapb.Command) {
	t.Helper()
	if err := disk.MkdirAll("meta"); err != nil {
		t.Fatal(err)
	}
	log, _, err := journal.Open(journal.Options{FS: disk, Dir: "meta/log", Segment: legacySegment, Capacity: legacyCapacity, UUID: legacyUUID, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	s := (&State{}).clone()
	for i, c := range cmds {
		if s, err = apply(s, c); err != nil {
			t.Fatal(err)
		}
		s.term, s.index = 1, uint64(i+1)
		body, _ := proto.Marshal(c)
		head, _ := proto.Marshal(&metapb.Entry{Term: 1, Index: s.index, Command: body})
		log.Append(&journal.Record{Head: head, Done: func(_ *journal.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		}})
		if i == len(cmds)/2 {
			if err := writeSnapshotAs(disk, "meta", s, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir("meta"); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir("."); err != nil {
		t.Fatal(err)
	}
}

// full is a group with a snapshot on its disk, closed.
func full(t testing.TB) *vfs.Memory {
	t.Helper()
	disk := vfs.NewMemory(64 << 20)
	if err := live(disk, &life{}, 120); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Stat("meta/snapshot"); err != nil {
		t.Fatalf("no snapshot was taken: %v", err)
	}
	return disk
}

// TestGroupRefusesDamage: a damaged snapshot or log, or one without the other, is
// an error and never a smaller state.
func TestGroupRefusesDamage(t *testing.T) {
	for _, at := range []int64{0, 8, 12, 16, 24, 40} {
		disk := full(t)
		if err := disk.Damage("meta/snapshot", at, func(p []byte) { p[0] ^= 0x40 }, 1); err != nil {
			t.Fatal(err)
		}
		if g, err := single(disk, still{}); err == nil {
			g.Close()
			t.Errorf("byte %d of the snapshot is damaged and the group opens", at)
		} else if !errors.Is(err, ErrRotten) && !errors.Is(err, ErrNewer) {
			t.Errorf("byte %d of the snapshot is damaged: %v", at, err)
		}
	}
	disk := full(t)
	if err := removeLog(disk, "meta/raft"); err != nil {
		t.Fatal(err)
	}
	if _, err := single(disk, still{}); !errors.Is(err, ErrRotten) {
		t.Errorf("a snapshot without a log: %v", err)
	}
	disk = full(t)
	if err := disk.Remove("meta/snapshot"); err != nil {
		t.Fatal(err)
	}
	if _, err := single(disk, still{}); !errors.Is(err, ErrRotten) {
		t.Errorf("a log without its snapshot: %v", err)
	}
}

func TestGroupIsLocked(t *testing.T) {
	disk := vfs.NewMemory(64 << 20)
	g, err := single(disk, still{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := single(disk, still{}); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("a second open: %v", err)
	}
	g.Close()
	if g, err = single(disk, still{}); err != nil {
		t.Fatal(err)
	}
	g.Close()
}

// TestLargestReservation: the largest value that the state machine accepts fits
// the log, wherever the log is in its segment.
func TestLargestReservation(t *testing.T) {
	g, err := OpenGroup(Config{FS: vfs.NewMemory(64 << 20), Dir: "meta", Self: 1, Clock: still{}, Times: times.Default(), Transport: nobody{}, Rand: rand.New(rand.NewPCG(1, 1)), Manual: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	id := ID{7}
	if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
		t.Fatal(err)
	}
	for g.Step() {
	}
	if err := proposeAlone(g, disk1("a")); err != nil {
		t.Fatal(err)
	}
	d := g.State().Disk("a").ID
	for i := range uint64(40) {
		err := proposeAlone(g, &metapb.Command{Kind: &metapb.Command_SwapReservation{
			SwapReservation: &metapb.SwapReservation{Disk: d[:], Version: i, Value: make([]byte, MaxReservation)}}})
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	disk := vfs.NewMemory(64 << 20)
	disk.MkdirAll("meta")
	if err := writeSnapshot(disk, "meta", fuzzState(f)); err != nil {
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
		if len(b) > snapshotHeader { // what is behind the checksum is not trusted either
			if st, err := unmarshal(b[snapshotHeader:]); err == nil {
				encoded(st)
			}
		}
	})
}
