package cluster

import (
	"hash/crc32"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/placement"
)

// A record of a deleted disk that comes when its space has been freed here does not
// keep its space for ever.
func TestLateRecordOfADeletedDisk(t *testing.T) { virtual(t, lateRecordOfADeletedDisk) }

func lateRecordOfADeletedDisk(t *testing.T) {
	m := newMemoryNode(t, nil)
	n := m.Node
	testDisk(t, n, "gone", 1<<20)
	family := n.State().Disk("gone").Family
	testDisk(t, n, "kept", 1<<20)
	if err := n.DeleteDisk(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, func(s *meta.State) bool { return s.Family(family) == nil })
	<-time.After(time.Minute) // or the sweep that freed the family looks once more, and finds the late record
	b := n.store.Load().brick
	done := make(chan error, 1)
	link := n.State().LinksOf(n.self)[0]
	r := &brick.Record{Key: placement.Key{Family: family, Node: 1}, Mask: 1, Link: link, Bucket: placement.BucketOf(family, 0), Ver: 1, Seq: 1,
		Buf: n.pool.Get(placement.BlockSize), Done: func(r *brick.Record, err error) {
			if err == nil {
				b.Commit(r)
			}
			done <- err
		}}
	r.Sum[0] = crc32.Checksum(r.Buf.Bytes()[:placement.BlockSize], crc32.MakeTable(crc32.Castagnoli))
	if err := b.Append(r); err != nil {
		t.Fatal(err)
	}
	r.Buf.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	has := func(n *Node) bool {
		all, err := n.store.Load().brick.Families(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f == family {
				return true
			}
		}
		return false
	}
	if !has(n) {
		t.Fatal("the record is not there: the test shows nothing")
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.start()
	<-time.After(time.Minute) // nobody waits for the sweep
	if has(m.Node) {
		t.Error("it is there still")
	}
}
