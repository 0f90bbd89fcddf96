package load

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// sampleState is a model with settled, doubtful and untouched units.
func sampleState(t testing.TB) (*region, *model, []byte) {
	t.Helper()
	r := &region{disk: [16]byte{7}, run: 42, first: 8, unitSectors: 8, atomic: 8, zero: true}
	m := newModel(4, true)
	m.beginWrite(0, 2, false) // never ends
	op := m.beginWrite(2, 1, true)
	m.endWrite(2, 1, op, true)
	m.endSync(m.now())
	m.mu.Lock()
	m.settle(2)
	m.mu.Unlock()
	path := filepath.Join(t.TempDir(), "state")
	if err := saveState(path, r, m); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, m, data
}

func TestStateRoundTrip(t *testing.T) {
	r, m, data := sampleState(t)
	r2, m2, err := parseState(data)
	if err != nil {
		t.Fatal(err)
	}
	if *r2 != *r || m2.volatile != m.volatile || m2.lastOp != m.lastOp || len(m2.units) != len(m.units) {
		t.Errorf("region %+v, model %+v", r2, m2)
	}
	for i, want := range [][]uint64{{0, 1}, {0, 1}, {2 | zeroes}, {0}} {
		began := m2.beginRead(i, 1)
		m2.mu.Lock()
		l := m2.list(i)
		var got []uint64
		for _, v := range l.versions {
			if v.ended >= m2.permitted(l, began) {
				got = append(got, v.op)
			}
		}
		m2.mu.Unlock()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("unit %d: allowed are %v, want %v", i, got, want)
		}
	}
}

// A write that was under way when the state was written is over: it may not
// replace what a later run writes.
func TestStateEndsWrites(t *testing.T) {
	_, _, data := sampleState(t)
	_, m, err := parseState(data)
	if err != nil {
		t.Fatal(err)
	}
	m.volatile = false
	op := write(m, true)
	if got := allows(m); !slices.Equal(got, []uint64{op}) {
		t.Errorf("allowed are %v, want %d only", got, op)
	}
}

func TestStateRefusesDamage(t *testing.T) {
	_, _, data := sampleState(t)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if _, _, err := parseState(bad); err == nil {
			t.Fatalf("byte %d of %d changed, and it was not noticed", i, len(data))
		}
		if _, _, err := parseState(data[:i]); err == nil {
			t.Fatalf("cut to %d bytes of %d, and it was not noticed", i, len(data))
		}
	}
}

func TestSaveStateReplacesAllOrNothing(t *testing.T) {
	r, m, _ := sampleState(t)
	path := filepath.Join(t.TempDir(), "no such directory", "state")
	if err := saveState(path, r, m); err == nil {
		t.Error("saved into a directory that is not there")
	}
}

func FuzzParseState(f *testing.F) {
	_, _, data := sampleState(f)
	f.Add(data[:len(data)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		parseState(withSum(body))
	})
}
