package cluster

import (
	"syscall"

	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// CompareAndWrite compares the bytes at off with compare and, if they are
// equal, writes data, in one step with respect to every other write. Both have
// the same length, whole logical blocks inside one 4 KiB block. done gets the
// offset of the first byte that differs, or -1 when data is durable.
func (v *Volume) CompareAndWrite(off uint64, compare, data []byte, done func(miscompare int, err error)) {
	st, n := v.state.Load(), len(compare)
	err := v.checkWrite(st, off, uint64(n))
	if err == nil && (n == 0 || n != len(data) || off%placement.BlockSize+uint64(n) > placement.BlockSize) {
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
	op.caw = done
	p := v.newPiece(op, replica.CompareAndWrite, spanAt(off, uint64(n)))
	p.slot = 0
	p.Buf = v.c.pool.Get(2 * n)
	copy(p.Buf.Bytes(), compare)
	copy(p.Buf.Bytes()[n:], data)
	op.pieces = append(op.pieces, p)
	op.start(st, false)
}

// compared ends a compare and write.
func (op *writeOp) compared(err error) {
	p := op.pieces[0]
	switch {
	case err != nil:
		op.caw(-1, err)
	case p.Status == wire.Miscompare:
		op.caw(int(p.At-p.From), nil)
	default:
		op.caw(-1, nil)
	}
}
