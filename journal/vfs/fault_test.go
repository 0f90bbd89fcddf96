package vfs

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

func faulty(t *testing.T, plan string) (*Fault, File) {
	t.Helper()
	f := NewFault(NewMemory(1<<20), nil, 1)
	file, err := f.Create("f", 0)
	check(t, err)
	_, err = file.WriteAt(pattern(16384, 7), 0)
	check(t, err)
	p, err := ParsePlan(plan)
	check(t, err)
	f.SetPlan(p)
	return f, file
}

func TestFaultConditions(t *testing.T) {
	_, f := faulty(t, `
		write f nth=2 fail EIO      # the second
		sync * from=2 fail ENOSPC
		read g fail EIO             # another file`)
	p := pattern(4096, 1)
	_, err := f.WriteAt(p, 0)
	check(t, err)
	_, err = f.WriteAt(p, 0)
	wantErr(t, err, syscall.EIO)
	_, err = f.WriteAt(p, 0)
	check(t, err)
	check(t, f.Sync())
	wantErr(t, f.Sync(), syscall.ENOSPC)
	wantErr(t, f.Sync(), syscall.ENOSPC)
	_, err = f.ReadAt(p, 0)
	check(t, err)
}

func TestLatentReadErrorIsHealedByWrite(t *testing.T) {
	_, f := faulty(t, "read f at=4096+512 fail EIO")
	p := pattern(4096, 0)
	_, err := f.ReadAt(p, 0)
	check(t, err)
	_, err = f.ReadAt(p, 4096)
	wantErr(t, err, syscall.EIO)
	_, err = f.WriteAt(p, 8192)
	check(t, err)
	_, err = f.ReadAt(p, 4096)
	wantErr(t, err, syscall.EIO)
	_, err = f.WriteAt(p, 4096)
	check(t, err)
	_, err = f.ReadAt(p, 4096)
	check(t, err)
}

func TestFaultEffects(t *testing.T) {
	seven := pattern(16384, 7)
	with := func(off int, p []byte) []byte {
		q := bytes.Clone(seven)
		copy(q[off:], p)
		return q
	}
	flipped := pattern(4096, 1)
	flipped[1] ^= 1
	for _, c := range []struct {
		plan string
		want []byte
		fail bool
	}{
		{"write f lose", seven, false},
		{"write f misdirect 8192", with(12288, pattern(4096, 1)), false},
		{"write f flip 8", with(4096, flipped), false},
		{"write f tear 512", with(4096, pattern(512, 1)), true},
		{"write f at=4096+10 flip 8", with(4096, flipped), false},
		{"write f at=0+10 flip 8", with(4096, pattern(4096, 1)), false},
	} {
		t.Run(c.plan, func(t *testing.T) {
			fault, f := faulty(t, c.plan)
			_, err := f.WriteVec([][]byte{pattern(4096, 1)}, 4096)
			if (err != nil) != c.fail {
				t.Fatal(err)
			}
			fault.SetPlan(nil)
			got := make([]byte, 16384)
			_, err = f.ReadAt(got, 0)
			check(t, err)
			if !bytes.Equal(got, c.want) {
				t.Error("content differs from what was meant")
			}
		})
	}
}

func TestFaultOnRead(t *testing.T) {
	_, f := faulty(t, "read f at=4096+4096 flip 16")
	got := make([]byte, 16384)
	_, err := f.ReadAt(got, 0)
	check(t, err)
	want := pattern(16384, 7)
	want[4098] ^= 1
	if !bytes.Equal(got, want) {
		t.Error("flipped another bit")
	}
}

func TestOnOpSeesAll(t *testing.T) {
	sys := NewFault(NewMemory(1<<20), nil, 1)
	stop := errors.New("stop")
	var seen []Kind
	sys.OnOp = func(op Op) error {
		seen = append(seen, op.Kind)
		if op.Kind == OpSync {
			return stop
		}
		return nil
	}
	f, err := sys.Create("f", 0)
	check(t, err)
	_, err = f.WriteAt(pattern(1, 1), 0)
	check(t, err)
	wantErr(t, f.Sync(), stop)
	if len(seen) != 3 || seen[0] != OpCreate || seen[1] != OpWrite || seen[2] != OpSync {
		t.Errorf("saw %v", seen)
	}
}

func TestParsePlanRefuses(t *testing.T) {
	for _, bad := range []string{
		"write f", "wirte f fail EIO", "write [ fail EIO", "write f nth=x fail EIO", "write f fail EWHAT",
		"sync f lose", "write f flip", "write f at=5 lose", "read f tear 5", "write f how=5 lose",
	} {
		if _, err := ParsePlan(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
