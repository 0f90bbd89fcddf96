package vfs

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Request is one write of WriteMany: the parts one after another at Off.
type Request struct {
	File File
	Vec  [][]byte
	Off  int64
}

// WriteMany does all requests, each as WriteVec and as durable as that; they
// should not overlap, for their order is open. After an error each may have been
// done or not. It returns when none is under way any more and keeps nothing.
//
// Files that bypass the page cache get them by kernel AIO, manyDepth at a time: a
// system call hands over a whole row of requests, and no thread sleeps for each.
// 4 KiB at random places cost 5 us of CPU so, in place of the 20 us of a
// goroutine in pwritev(2). Other files of the operating system are written by a
// few goroutines, all others (the crashable ones) one after another, in order.
func WriteMany(rs []Request) error {
	direct := true
	for i := range rs {
		f, ok := rs[i].File.(*osFile)
		if !ok {
			return writeInOrder(rs)
		}
		direct = direct && f.direct
	}
	if len(rs) == 1 {
		return writeInOrder(rs)
	}
	if direct {
		if a := takeContext(); a != nil {
			defer a.giveBack()
			return a.write(rs)
		}
	}
	return writeParallel(rs)
}

func writeInOrder(rs []Request) error {
	for i := range rs {
		if err := rs[i].write(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) write() error {
	_, err := r.File.WriteVec(r.Vec, r.Off)
	return err
}

// manyWriters is how many goroutines write where there is no AIO.
const manyWriters = 8

func writeParallel(rs []Request) error {
	var (
		next atomic.Int64
		errs [manyWriters]error
		wg   sync.WaitGroup
	)
	for w := range min(manyWriters, len(rs)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(rs)) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = rs[i].write()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// manyDepth is how many requests are with the disk at a time: enough to keep it
// busy, and not so many that others wait long behind them.
const manyDepth = 32

// aio is a context of kernel AIO (io_setup(2)) with the memory of its
// requests. One WriteMany uses it at a time; there are as many as ever ran at
// once, and they last as long as the process.
type aio struct {
	id     uintptr
	slots  [manyDepth]slot
	submit [manyDepth]*iocb
	events [manyDepth]ioEvent
	free   []*slot
	next   *aio
}

// slot is a request under way. The kernel knows its addresses: it lies on the
// heap, where nothing moves, and points to the data, so that they stay.
type slot struct {
	cb  iocb
	iov []unix.Iovec
	r   *Request
	n   int64 // bytes
}

// iocb is struct iocb of linux/aio_abi.h.
type iocb struct {
	data       uint64
	key, flags uint32 // in an order that depends on the machine's; both are zero
	opcode     uint16
	priority   int16
	fd         uint32
	buf        uint64
	nbytes     uint64
	offset     int64
	_          uint64
	_, _       uint32
}

const opPwritev = 8 // IOCB_CMD_PWRITEV

// ioEvent is struct io_event.
type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

var _ = [1]struct{}{}[unsafe.Sizeof(iocb{})-64]
var _ = [1]struct{}{}[unsafe.Sizeof(ioEvent{})-32]

// contexts are those that nobody uses at the moment.
var contexts struct {
	sync.Mutex
	first *aio
	none  bool // the kernel gives none: not built in, forbidden, or too many in use
}

// takeContext returns a context, or nil where there is none to be had.
func takeContext() *aio {
	contexts.Lock()
	defer contexts.Unlock()
	if a := contexts.first; a != nil {
		contexts.first = a.next
		return a
	}
	if contexts.none {
		return nil
	}
	a := new(aio)
	if _, _, err := unix.Syscall(unix.SYS_IO_SETUP, manyDepth, uintptr(unsafe.Pointer(&a.id)), 0); err != 0 {
		contexts.none = true
		return nil
	}
	for i := range a.slots {
		a.free = append(a.free, &a.slots[i])
	}
	return a
}

func (a *aio) giveBack() {
	contexts.Lock()
	defer contexts.Unlock()
	a.next, contexts.first = contexts.first, a
}

// write does the requests. What the kernel does not take in this way, or does
// not do in whole, is done by WriteVec. What has failed is not tried again.
func (a *aio) write(rs []Request) (err error) {
	for len(rs) > 0 || len(a.free) < manyDepth {
		n := 0
		for err == nil && n < len(a.free) && n < len(rs) {
			s := a.free[len(a.free)-1-n]
			s.set(&rs[n])
			a.submit[n] = &s.cb
			n++
		}
		taken := a.submitted(n)
		a.free, rs = a.free[:len(a.free)-taken], rs[taken:]
		switch {
		case err != nil:
			rs = nil
		case taken == 0 && n > 0 && len(a.free) == manyDepth:
			err, rs = rs[0].write(), rs[1:]
			continue
		}
		if flying := manyDepth - len(a.free); flying > 0 {
			// Half of them at least, if there is more to do: fewer calls.
			wait := flying
			if len(rs) > 0 {
				wait = (flying + 1) / 2
			}
			if e := a.reap(wait); err == nil {
				err = e
			}
		}
	}
	return err
}

func (s *slot) set(r *Request) {
	f := r.File.(*osFile)
	s.r, s.n, s.iov = r, 0, s.iov[:0]
	for _, part := range r.Vec {
		if len(part) > 0 {
			v := unix.Iovec{Base: &part[0]}
			v.SetLen(len(part))
			s.iov = append(s.iov, v)
			s.n += int64(len(part))
		}
	}
	s.cb = iocb{data: uint64(uintptr(unsafe.Pointer(s))), opcode: opPwritev, fd: uint32(f.fd), offset: r.Off, nbytes: uint64(len(s.iov))}
	if len(s.iov) > 0 {
		s.cb.buf = uint64(uintptr(unsafe.Pointer(&s.iov[0])))
	}
}

// submitted hands n requests over and returns how many the kernel has taken.
func (a *aio) submitted(n int) int {
	for n > 0 {
		k, _, err := unix.Syscall(unix.SYS_IO_SUBMIT, a.id, uintptr(n), uintptr(unsafe.Pointer(&a.submit[0])))
		if err == 0 {
			return int(k)
		}
		if err != unix.EINTR {
			break
		}
	}
	return 0
}

// reap waits until n requests have ended, or more.
func (a *aio) reap(n int) (err error) {
	var k uintptr
	for {
		var e unix.Errno
		k, _, e = unix.Syscall6(unix.SYS_IO_GETEVENTS, a.id, uintptr(n), manyDepth, uintptr(unsafe.Pointer(&a.events[0])), 0, 0)
		if e == 0 {
			break
		}
		if e != unix.EINTR {
			panic("vfs: io_getevents: " + e.Error()) // the kernel may still be at our memory
		}
	}
	for _, ev := range a.events[:k] {
		s := a.slot(ev.data)
		switch {
		case err != nil || ev.res == s.n:
		case ev.res < 0:
			err = s.r.File.(*osFile).fail("write", unix.Errno(-ev.res))
		default:
			err = s.r.write()
		}
		s.r = nil
		clear(s.iov)
		a.free = append(a.free, s)
	}
	return err
}

// slot finds the slot that an event is of.
func (a *aio) slot(data uint64) *slot {
	i := (uintptr(data) - uintptr(unsafe.Pointer(&a.slots[0]))) / unsafe.Sizeof(a.slots[0])
	return &a.slots[i]
}
