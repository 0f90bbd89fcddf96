//go:build !race

package cluster

import "testing"

// The race detector makes sync.Pool forget things at random, so it can't count
// allocations.
func TestOpsAllocateNothing(t *testing.T) {
	f := newFake(t)
	v := volumeOver(newSteady(f), f.pool, 1<<30, 512, false)
	var loan any
	end := make(chan error, 1)
	wrote := func(err error) { end <- err }
	wait := func() {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
	got := func(_ [][]byte, l any, err error) {
		if err != nil {
			t.Error(err)
		}
		loan = l
	}
	off := uint64(0)
	for name, op := range map[string]func(){
		"write": func() {
			off += 4096
			_, loan, err := v.Reserve(off, 4096)
			if err != nil {
				t.Fatal(err)
			}
			v.Write(loan, false, wrote)
			wait()
		},
		"read": func() {
			off += 4096
			v.Read(off, 4096, got)
			v.Release(loan)
		},
		"small write": func() {
			_, loan, err := v.Reserve(512, 512)
			if err != nil {
				t.Fatal(err)
			}
			v.Write(loan, false, wrote)
			wait()
		},
		"zero": func() {
			v.Zero(1<<20, 1<<20, true, wrote)
			wait()
		},
	} {
		if n := testing.AllocsPerRun(2000, op); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
