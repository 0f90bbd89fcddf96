package journal

import (
	"testing"

	"petal/journal/record"
	"petal/journal/vfs"
)

// TestCutFilesWithLargeGroup: every file of the journal was cut short inside a
// group that is larger than any file now is. Recovery must say so, not panic.
func TestCutFilesWithLargeGroup(t *testing.T) {
	m := vfs.NewMemory(64 << 20)
	o := Options{FS: m, Dir: "journal", UUID: testUUID, Segment: 4 << 20, Capacity: 16 << 20, Manual: true, Create: true}
	j, _ := mustOpen(t, o)
	data := vfs.AlignedBuffer(MaxData)
	r := &Record{Data: [][]byte{data}, Done: func(*Record, error) {}}
	for at := 0; at < len(data); at += BlockSize {
		r.CRC = append(r.CRC, record.Checksum(data[at:at+BlockSize]))
	}
	j.Append(r)
	j.Commit()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := m.List("journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		f, err := m.Open("journal/"+n, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(100 << 10); err != nil {
			t.Fatal(err)
		}
	}
	o.Create = false
	if _, rec, err := Open(o); err == nil && rec.Last != 0 && len(rec.Rotten) == 0 {
		t.Errorf("%+v", rec)
	}
}
