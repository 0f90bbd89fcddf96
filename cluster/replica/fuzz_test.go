package replica

import (
	"bytes"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// FuzzReceive: whatever another server sends, nothing panics.
func FuzzReceive(f *testing.F) {
	key := placement.Key{Family: testFamily, Node: testNode, Chunk: 1}
	bucket := placement.BucketOf(testFamily, 1)
	for _, m := range []*wire.Message{
		{Kind: wire.Read, Key: key, To: 4096, VVer: 1},
		{Kind: wire.Zero, Key: key, From: 512, To: 4608, VVer: 1, Op: placement.OpID{Coordinator: 2, Number: 1}},
		{Kind: wire.Cancel, Key: key, Op: placement.OpID{Coordinator: 2, Number: 1}},
		{Kind: wire.Mapped, Key: key, Index: 100},
		{Kind: wire.Flush},
		{Kind: wire.Replicate, Key: key, Ver: 1, Bucket: bucket, Mask: 3, Flags: wire.FlagZero, Stamp: placement.Stamp{Ver: 1, Seq: 1}},
		{Kind: wire.Replicate, Key: key, Ver: 1, Bucket: bucket, Mask: 3, Flags: wire.FlagZero | wire.FlagRecovery, Stamp: placement.Stamp{Ver: 1, Seq: 1}},
		{Kind: wire.Ack, Ver: 1, Bucket: bucket, Stamp: placement.Stamp{Ver: 1, Seq: 1}},
		{Kind: wire.Summary, Ver: 1, Code: codeFirst | codeLast, Body: wire.AppendProgress(nil, wire.Progress{Bucket: 7, Durable: placement.Stamp{Ver: 1, Seq: 9}})},
		{Kind: wire.Rejoin, Ver: 1, Code: codeFirst | codeLast, Index: 3},
		{Kind: wire.Want, Ver: 1, Bucket: bucket, Stamp: placement.Stamp{Ver: 1, Seq: 1}},
		{Kind: wire.Missing, Ver: 1, Code: codeFirst | codeLast, Bucket: bucket, Stamp: placement.Stamp{Ver: 1, Seq: 5}, Body: wire.AppendMark(nil, wire.Mark{Key: key, Mask: 1})},
		{Kind: wire.Opened, Ver: 1},
		{Kind: wire.LinkControl, Ver: 1, Code: codeCommitted, Body: wire.AppendProgress(nil, wire.Progress{Bucket: bucket, Durable: placement.Stamp{Ver: 1, Seq: 9}})},
		{Kind: wire.LinkControl, Ver: 1, Code: codeAsk},
		{Kind: wire.Fetch, Key: key, Ver: 1, Mask: 0x8001, Index: 4},
		{Kind: wire.Fetched, Key: key, Ver: 1, Mask: 0, Flags: wire.FlagZero, Zeros: 3, Index: 1},
	} {
		m.Link = placement.LinkID{GMap: 1}
		frame, err := m.AppendFrame(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame, uint8(0))
		f.Add(frame, uint8(1))
	}
	f.Fuzz(func(t *testing.T, frames []byte, to uint8) {
		w := newWorld(t, 1, 2, placement.Mirror)
		w.lends = true
		w.opened()
		n := w.nodes[to%2]
		a := pattern(1, 4096)
		c := w.chunkOf(uint32(to%2), 0) // of the link whose head it is
		w.ok(w.write(n, c, 0, a))
		for {
			var m wire.Message
			k, err := m.DecodeFrame(frames, n.pool)
			if err != nil {
				m.Data.Release()
				break
			}
			frames = frames[k:]
			n.receive(w.nodes[1-to%2].id, 1, &m)
			m.Data.Release()
		}
		w.run(5 * time.Millisecond)
		w.read(n, c, 0, 4096) // a member may lie, so anything may come of it
		w.run(2 * time.Second)
		n.s.Status()
	})
}

// FuzzParseMapped: what parses is in order, within bounds, and says the same
// when it is encoded again.
func FuzzParseMapped(f *testing.F) {
	f.Add(AppendMapped(nil, []MappedChunk{{1, 2}, {3, 0xffff}}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, ok := ParseMapped(b); ok && !bytes.Equal(AppendMapped(nil, list), b) {
			t.Fatal("not the same")
		}
	})
}
