package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"
)

// readAll returns the content of a file after a crash, or nil without one.
func readAll(t *testing.T, m *Memory, name string) []byte {
	t.Helper()
	f, err := m.Open(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	check(t, err)
	size, err := f.Size()
	check(t, err)
	p := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(p, 0)
		check(t, err)
	}
	return p
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("f", 0)
	check(t, err)
	check(t, m.SyncDir("."))
	d, err := m.Create("d", DSync)
	check(t, err)
	check(t, m.SyncDir("."))
	_, err = f.WriteAt(pattern(8192, 1), 0)
	check(t, err)
	check(t, f.Sync())
	_, err = d.WriteAt(pattern(8192, 1), 0)
	check(t, err)
	for seed := range uint64(100) {
		after := m.Crash(seed)
		for _, name := range []string{"f", "d"} {
			if !bytes.Equal(readAll(t, after, name), pattern(8192, 1)) {
				t.Fatalf("seed %d: %s lost what was synced", seed, name)
			}
		}
	}
}

// Over many seeds, an unsynced overwrite must be seen lost, whole, and torn at
// sectors, and never as anything else.
func TestCrashTearsWhatWasNot(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("f", 0)
	check(t, err)
	check(t, m.SyncDir("."))
	_, err = f.WriteAt(pattern(8192, 1), 0)
	check(t, err)
	check(t, f.Sync())
	_, err = f.WriteAt(pattern(8192, 2), 0)
	check(t, err)
	seen := map[string]int{}
	for seed := range uint64(200) {
		p := readAll(t, m.Crash(seed), "f")
		if !bytes.Equal(p, readAll(t, m.Crash(seed), "f")) {
			t.Fatalf("seed %d gives two results", seed)
		}
		old, fresh := 0, 0
		for s := range slices.Chunk(p, SectorSize) {
			switch {
			case bytes.Equal(s, pattern(SectorSize, 1)):
				old++
			case bytes.Equal(s, pattern(SectorSize, 2)):
				fresh++
			default:
				t.Fatalf("seed %d: a sector is neither old nor new", seed)
			}
		}
		switch {
		case fresh == 0:
			seen["lost"]++
		case old == 0:
			seen["whole"]++
		default:
			seen["torn"]++
		}
	}
	for _, fate := range []string{"lost", "whole", "torn"} {
		if seen[fate] < 10 {
			t.Errorf("%s only %d times in 200", fate, seen[fate])
		}
	}
}

// A durable write is never undone by an older one that was still pending.
func TestCrashNeverGoesBehindDurable(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("f", 0)
	check(t, err)
	check(t, m.SyncDir("."))
	_, err = f.WriteAt(pattern(4096, 1), 0)
	check(t, err)
	d, err := m.Open("f", DSync)
	check(t, err)
	_, err = d.WriteAt(pattern(4096, 2), 0)
	check(t, err)
	for seed := range uint64(100) {
		if !bytes.Equal(readAll(t, m.Crash(seed), "f"), pattern(4096, 2)) {
			t.Fatalf("seed %d: an older write came back", seed)
		}
	}
}

// During a write with DSync nothing is promised yet; after it everything is.
func TestCrashDuringDSync(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("f", DSync)
	check(t, err)
	check(t, m.SyncDir("."))
	torn := false
	m.OnOp(func(op Op) {
		if op.Kind == OpWrite {
			for seed := range uint64(50) {
				p := readAll(t, m.Crash(seed), "f")
				torn = torn || !bytes.Equal(p, pattern(4096, 3))
			}
		}
	})
	_, err = f.WriteAt(pattern(4096, 3), 0)
	check(t, err)
	if !torn {
		t.Error("always whole")
	}
}

func TestCrashOfNames(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("a", DSync)
	check(t, err)
	_, err = f.WriteAt(pattern(4096, 1), 0)
	check(t, err)
	seen := map[bool]int{}
	for seed := range uint64(50) {
		seen[readAll(t, m.Crash(seed), "a") != nil]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("an unsynced name: %v", seen)
	}
	check(t, m.SyncDir("."))
	check(t, m.Rename("a", "b"))
	for seed := range uint64(50) {
		after := m.Crash(seed)
		a, b := readAll(t, after, "a"), readAll(t, after, "b")
		if (a == nil) == (b == nil) {
			t.Fatalf("seed %d: rename is not atomic", seed)
		}
	}
	check(t, m.SyncDir("."))
	check(t, m.Remove("b"))
	check(t, m.SyncDir("."))
	if len(m.Crash(1).Files()) != 0 {
		t.Error("a durably removed file came back")
	}
}

func TestMemoryCapacity(t *testing.T) {
	m := NewMemory(16384)
	f, err := m.Create("f", 0)
	check(t, err)
	check(t, f.Allocate(0, 8192, true))
	_, err = f.WriteAt(pattern(8192, 1), 0)
	check(t, err)
	_, err = f.WriteAt(pattern(8192, 1), 8192)
	check(t, err)
	_, err = f.WriteAt(pattern(1, 1), 16384)
	wantErr(t, err, syscall.ENOSPC)
	wantErr(t, f.Allocate(16384, 1, true), syscall.ENOSPC)
	check(t, f.Punch(0, 4096))
	if avail, _, _ := m.Free(); avail != 4096 {
		t.Fatalf("avail %d after a punch", avail)
	}
	check(t, m.Remove("f"))
	if avail, _, _ := m.Free(); avail != 16384 {
		t.Fatalf("avail %d after removal", avail)
	}
}

func TestStop(t *testing.T) {
	m := NewMemory(1 << 20)
	f, err := m.Create("f", DSync)
	check(t, err)
	gone := errors.New("gone")
	m.Stop(gone)
	_, err = f.WriteAt(pattern(10, 1), 0)
	wantErr(t, err, gone)
	_, err = m.List(".")
	wantErr(t, err, gone)
}

// A hole that was punched before a durable write never swallows it, whatever
// the crash keeps: the file system logs both in order.
func TestPunchStaysBeforeDurableWrite(t *testing.T) {
	for seed := range uint64(20) {
		m := NewMemory(1 << 20)
		plain, err := m.Create("f", Direct)
		check(t, err)
		durable, err := m.Open("f", Direct|DSync)
		check(t, err)
		check(t, m.SyncDir("."))
		p := AlignedBuffer(BlockSize)
		_, err = durable.WriteAt(p, 0)
		check(t, err)
		check(t, plain.Punch(0, BlockSize))
		p[0] = 7
		_, err = durable.WriteAt(p, 0)
		check(t, err)
		if seed%2 == 1 {
			check(t, plain.Sync())
		}
		f, err := m.Crash(seed).Open("f", Direct)
		check(t, err)
		got := AlignedBuffer(BlockSize)
		_, err = f.ReadAt(got, 0)
		check(t, err)
		if got[0] != 7 {
			t.Fatalf("seed %d: the durable write is gone", seed)
		}
	}
}
