package cluster

import (
	"syscall"

	"petal/cluster/cache"
	"petal/placement"
)

// compareAndWrite is what is special about that command.
type compareAndWrite struct {
	compare, data []byte
	miscompare    int
	done          func(int, error)
}

// CompareAndWrite compares the bytes at off with compare and, if they are
// equal, writes data, in one step with respect to every other write. Both have
// the same length, whole logical blocks inside one chunk. done gets the offset
// of the first byte that differs, or -1 when data is durable.
func (v *Volume) CompareAndWrite(off uint64, compare, data []byte, done func(miscompare int, err error)) {
	st, n := v.state.Load(), len(compare)
	err := v.checkWrite(st, off, uint64(n))
	if err == nil && (n == 0 || n != len(data) || n > placement.ChunkSize || spanAt(off, uint64(n)).bytes() != n) {
		err = syscall.EINVAL
	}
	if err == nil && !v.busy.begin() {
		err = ErrVolumeClosed
	}
	if err != nil {
		done(-1, err)
		return
	}
	op := v.newWriteOp(off, n)
	op.caw = compareAndWrite{compare, data, -1, done}
	op.pieces = append(op.pieces, v.newPiece(op, pieceReplace, spanAt(off, uint64(n))))
	op.start(st, false)
}

// fillIn compares under the lock and, if all is equal, makes the new blocks.
func (c *compareAndWrite) fillIn(p *piece, blocks cache.Refs) bool {
	n := p.span.count() * placement.BlockSize
	p.buf = p.v.c.pool.Get(n)
	mem := p.buf.Bytes()
	copyBlocks(mem, blocks)
	from := p.span.from % placement.BlockSize
	old := mem[from : from+len(c.compare)]
	if string(old) != string(c.compare) {
		for i := range old {
			if old[i] != c.compare[i] {
				c.miscompare = i
				return false
			}
		}
	}
	copy(old, c.data)
	sum(p.buf, &p.rec, 0, p.span.count())
	return true
}

func (c *compareAndWrite) finish(err error) {
	if err != nil {
		c.done(-1, err)
		return
	}
	c.done(c.miscompare, nil)
}
