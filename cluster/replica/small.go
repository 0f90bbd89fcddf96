package replica

import (
	"hash/crc32"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/wire"
	"petal/placement"
)

// What writes less than whole blocks reads their rest under the block lock, and
// only then becomes a record.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const bs = placement.BlockSize

// mergeFirst completes the first block of a write, and perhaps the last, which
// may be the same.
func (t *task) mergeFirst() {
	op := t.op
	t.rec.Sum = op.Sum
	old := t.load.rd.Bufs[0].Bytes()
	block := op.Buf.Bytes()[:bs]
	copy(block, old[:op.From%bs])
	if op.tail() && op.count() > 1 {
		t.rec.Sum[0] = crc32.Checksum(block, castagnoli)
		t.load.rd.Bufs.Release()
		t.load.start(op.first()+op.count()-1, 1, (*task).mergeLastToo)
		return
	}
	if op.tail() {
		copy(block[op.To%bs:], old[op.To%bs:])
	}
	t.rec.Sum[0] = crc32.Checksum(block, castagnoli)
	t.merged()
}

// mergeLast completes the last block of a write whose first is whole.
func (t *task) mergeLast() {
	t.rec.Sum = t.op.Sum
	t.mergeLastToo()
}

func (t *task) mergeLastToo() {
	op := t.op
	old := t.load.rd.Bufs[0].Bytes()
	i := op.count() - 1
	block := op.Buf.Bytes()[i*bs : (i+1)*bs]
	copy(block[op.To%bs:], old[op.To%bs:])
	t.rec.Sum[i] = crc32.Checksum(block, castagnoli)
	t.merged()
}

func (t *task) merged() {
	t.load.rd.Bufs.Release()
	t.submit(brick.Write, t.op.Buf.Retain())
}

// compare compares what is there with the first half of Buf and, if all is
// equal, writes the second.
func (t *task) compare() {
	op, n := t.op, t.op.bytes()
	buf := t.s.c.Pool.Get(op.count() * bs)
	mem := buf.Bytes()
	copyBlocks(mem, t.load.rd.Bufs)
	t.load.rd.Bufs.Release()
	from := int(op.From) % bs
	old, want, data := mem[from:from+n], op.Buf.Bytes()[:n], op.Buf.Bytes()[n:2*n]
	if string(old) != string(want) {
		i := 0
		for old[i] == want[i] {
			i++
		}
		buf.Release()
		op.At = op.From + uint32(i)
		t.refuse(wire.Miscompare)
		return
	}
	copy(old, data)
	t.sum(mem)
	t.submit(brick.Write, buf)
}

func (t *task) sum(mem []byte) {
	for i := 0; i < len(mem)/bs; i++ {
		t.rec.Sum[i] = crc32.Checksum(mem[i*bs:(i+1)*bs], castagnoli)
	}
}

// zeroEdges zeroes a range that does not end at block borders, if it isn't zero
// yet. Blocks of which nothing is left give their space back.
func (t *task) zeroEdges() {
	op, refs := t.op, t.load.rd.Bufs
	n := op.count() * bs
	buf := t.s.c.Pool.Get(n)
	mem := buf.Bytes()
	copyBlocks(mem, refs)
	t.load.rd.Bufs.Release()
	from := int(op.From) % bs
	part := mem[from : from+op.bytes()]
	if onlyZeros(part) {
		buf.Release()
		t.refuse(wire.OK)
		return
	}
	clear(part)
	if onlyZeros(mem) {
		buf.Release()
		t.submit(brick.Zero, nil)
		return
	}
	t.sum(mem)
	t.submit(brick.Write, buf)
}

// onlyZeros reports whether b is all zeros.
func onlyZeros(b []byte) bool {
	var zeros [512]byte
	for len(b) > len(zeros) {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}

// copyBlocks copies the blocks of refs, in order, to dst.
func copyBlocks(dst []byte, refs cache.Refs) {
	for _, r := range refs {
		dst = dst[copy(dst, r.Bytes()):]
	}
}
