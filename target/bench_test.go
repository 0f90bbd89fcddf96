package target

import (
	"encoding/binary"
	"io"
	"sync"
	"testing"

	"petal/target/iscsi"
	"petal/target/lun"
)

// BenchmarkCommand measures 4 KiB commands on a disk in memory over loopback,
// both sides together but for allocations of the initiator, of which there are
// none. It goes round in batches of the depth.
func BenchmarkCommand(b *testing.B) {
	for _, c := range []struct {
		name  string
		write bool
		group bool
		depth int
		size  int
	}{
		{"Read4K/Depth1", false, false, 1, 4096}, {"Read4K/Depth32", false, false, 32, 4096},
		{"Write4K/Depth1", true, false, 1, 4096}, {"Write4K/Depth32", true, false, 32, 4096},
		{"GroupWrite4K/Depth1", true, true, 1, 4096}, {"GroupWrite4K/Depth32", true, true, 32, 4096},
		{"Read64K/Depth8", false, false, 8, 64 << 10}, {"Write64K/Depth8", true, false, 8, 64 << 10},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkCommand(b, c.write, c.group, c.depth, c.size) })
	}
}

// groupDisk completes writes as a journal does: by a goroutine of its own, all
// that are waiting as one group.
type groupDisk struct {
	*lun.MemoryDisk
	mu      sync.Mutex
	wake    chan struct{}
	waiting []groupWrite
	group   []groupWrite
}

type groupWrite struct {
	loan any
	fua  bool
	done func(error)
}

func newGroupDisk(b *testing.B) *groupDisk {
	d := &groupDisk{MemoryDisk: lun.NewMemoryDisk(64<<20, 512), wake: make(chan struct{}, 1)}
	go func() {
		for range d.wake {
			d.mu.Lock()
			d.waiting, d.group = d.group[:0], d.waiting
			d.mu.Unlock()
			for _, w := range d.group {
				d.MemoryDisk.Write(w.loan, w.fua, w.done)
			}
		}
	}()
	b.Cleanup(func() { close(d.wake) })
	return d
}

func (d *groupDisk) Write(loan any, fua bool, done func(error)) {
	d.mu.Lock()
	d.waiting = append(d.waiting, groupWrite{loan, fua, done})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func benchmarkCommand(b *testing.B, write, group bool, depth, size int) {
	bench := newBench(b, Config{NopInterval: -1})
	if group {
		bench.useUnit(newGroupDisk(b))
	}
	i := dial(b, bench.address)
	if r := i.login(1, "MaxRecvDataSegmentLength", "262144", "FirstBurstLength", "262144", "InitialR2T", "No", "ImmediateData", "Yes"); r.Status() != iscsi.LoginSuccess {
		b.Fatal(r.Status())
	}
	for range 4 { // unit attentions
		i.out.AppendBytes(i.command(0, size, false), nil)
		i.out.Flush(i.conn)
		i.finish()
	}
	unit := iscsi.HeaderSize
	if write {
		unit += size
	}
	request := make([]byte, depth*unit)
	answer := make([]byte, depth*(iscsi.HeaderSize+size))
	if write {
		answer = answer[:depth*iscsi.HeaderSize]
	}
	round := func(n int) {
		for k := range n {
			h := i.command(uint32(k*size/512)%60000, size, write)
			copy(request[k*unit:], h[:])
			if write {
				(*iscsi.BHS)(request[k*unit:]).SetDataLength(size)
			}
		}
		if _, err := i.conn.Write(request[:n*unit]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(i.conn, answer[:n*len(answer)/depth]); err != nil {
			b.Fatal(err)
		}
		if h := (*iscsi.BHS)(answer); h.DataIn().Status() != 0 {
			b.Fatal("status", h.DataIn().Status())
		}
	}
	for range 64 {
		round(depth)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += depth {
		round(min(depth, b.N-n))
	}
}

var benchHeader iscsi.BHS

// command is a READ(10) or WRITE(10) with immediate data.
func (i *initiator) command(lba uint32, size int, write bool) *iscsi.BHS {
	h := &benchHeader
	h.Reset(iscsi.OpSCSICommand)
	h.SetFinal(true)
	c := h.SCSICommand()
	c.SetRead(!write)
	c.SetWrite(write)
	c.SetAttribute(iscsi.Simple)
	i.itt++
	c.SetITT(i.itt)
	c.SetExpectedLength(uint32(size))
	binary.BigEndian.PutUint32(h[24:], i.cmdSN)
	i.cmdSN++
	cdb := c.CDB()
	cdb[0] = 0x28
	if write {
		cdb[0] = 0x2a
	}
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], uint16(size/512))
	return h
}
