package cluster

import (
	"testing"

	"petal/cluster/replica"
	"petal/cluster/wire"
	"petal/placement"
)

// steadyMember answers at once and allocates nothing, so that what is measured
// is the Volume: every read is of one lent block run, every write vanishes.
type steadyMember struct {
	*fakeMember
	journal chan *replica.Op
}

func newSteady(f *fakeMember) *steadyMember {
	s := &steadyMember{f, make(chan *replica.Op, 256)}
	go func() {
		for op := range s.journal {
			op.Status = wire.OK
			op.Done(op)
		}
	}()
	f.t.Cleanup(func() { close(s.journal) })
	return s
}

func (s *steadyMember) Do(op *replica.Op) {
	if op.Kind != replica.Read {
		s.journal <- op
		return
	}
	op.Status, op.Bufs = wire.OK, op.Bufs[:0]
	op.Bufs.Add(s.pool.Zero(), int(op.From), int(op.To-op.From))
	op.Done(op)
}

func (s *steadyMember) Prefetch(placement.Key) {}

func BenchmarkVolume(b *testing.B) {
	for _, x := range []struct {
		name string
		n    int
		op   func(v *Volume, off uint64, n int, loan *any, got func([][]byte, any, error), room chan struct{}, wrote func(error))
	}{
		{"read4k", 4096, readOnce}, {"read64k", 65536, readOnce}, {"read1m", 1 << 20, readOnce},
		{"write4k", 4096, writeOnce}, {"write64k", 65536, writeOnce}, {"write512", 512, writeOnce},
	} {
		b.Run(x.name, func(b *testing.B) {
			f := newFake(b)
			v := volumeOver(newSteady(f), f.pool, 1<<40, 512, false)
			b.ReportAllocs()
			b.SetBytes(int64(x.n))
			b.RunParallel(func(pb *testing.PB) {
				var loan any
				got := func(_ [][]byte, l any, _ error) { loan = l }
				room := make(chan struct{}, 32)
				wrote := func(error) { <-room }
				off := uint64(0)
				for pb.Next() {
					x.op(v, off, x.n, &loan, got, room, wrote)
					off = (off + 7919*65536) % (1 << 39)
				}
				for range cap(room) {
					room <- struct{}{}
				}
			})
		})
	}
}

func readOnce(v *Volume, off uint64, n int, loan *any, got func([][]byte, any, error), _ chan struct{}, _ func(error)) {
	v.Read(off, n, got)
	v.Release(*loan)
}

func writeOnce(v *Volume, off uint64, n int, _ *any, _ func([][]byte, any, error), room chan struct{}, wrote func(error)) {
	room <- struct{}{}
	_, loan, _ := v.Reserve(off, n)
	v.Write(loan, false, wrote)
}
