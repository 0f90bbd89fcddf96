package lun

import (
	"bytes"
	"context"
	"sync"
	"syscall"
)

// MemoryDisk is a sparse Disk in memory, for tests of this package and of
// those above it. It is durable as long as the process lives, answers in the
// caller's goroutine, and allocates nothing to read or write blocks that are
// mapped.
type MemoryDisk struct {
	size  uint64
	block int

	mu       sync.RWMutex // guards all below
	pages    map[uint64]*[memoryPage]byte
	readOnly bool
	wce      bool
	limit    int // most pages that may be mapped, 0 for no limit
	fail     func(op string, off uint64, n int) error
	flushes  int

	zero [memoryPage]byte

	loanMu      sync.Mutex
	loans       []*memoryLoan // given back, to be lent again
	outstanding int
}

const memoryPage = 4096 // the unit of mapping, bytes

var _ Disk = (*MemoryDisk)(nil)

// NewMemoryDisk makes an empty disk of size bytes, a multiple of 4096, with
// blocks of 512 or 4096 bytes.
func NewMemoryDisk(size uint64, block int) *MemoryDisk {
	return &MemoryDisk{size: size, block: block, pages: map[uint64]*[memoryPage]byte{}}
}

// memoryLoan is memory lent by a MemoryDisk.
type memoryLoan struct {
	off  uint64
	vec  [][]byte
	buf  []byte
	lent bool
}

// SetReadOnly makes writes fail with EROFS, or not.
func (d *MemoryDisk) SetReadOnly(on bool) { d.set(func() { d.readOnly = on }) }

// SetWriteCache sets what WriteCache tells.
func (d *MemoryDisk) SetWriteCache(on bool) { d.set(func() { d.wce = on }) }

// SetSpace limits the disk to so many bytes of mapped space; 0 is no limit.
func (d *MemoryDisk) SetSpace(n uint64) { d.set(func() { d.limit = int(n / memoryPage) }) }

// SetSize changes the size of the disk.
func (d *MemoryDisk) SetSize(n uint64) { d.set(func() { d.size = n }) }

// SetFail has f called before every operation ("read", "reserve", "write",
// "zero", "flush", "compare"); what it returns is the operation's error. nil
// removes it.
func (d *MemoryDisk) SetFail(f func(op string, off uint64, n int) error) {
	d.set(func() { d.fail = f })
}

func (d *MemoryDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// Flushes is how many times Flush has succeeded.
func (d *MemoryDisk) Flushes() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.flushes
}

// Mapped is the mapped space in bytes.
func (d *MemoryDisk) Mapped() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return uint64(len(d.pages)) * memoryPage
}

func (d *MemoryDisk) Size() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.size
}

func (d *MemoryDisk) BlockSize() int { return d.block }

func (d *MemoryDisk) WriteCache() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.wce
}

func (d *MemoryDisk) ReadOnly() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.readOnly
}

// check judges a range and lets a test fail the operation.
func (d *MemoryDisk) check(op string, off uint64, n uint64) error {
	d.mu.RLock()
	fail, size := d.fail, d.size
	d.mu.RUnlock()
	if off > size || n > size-off || off%uint64(d.block) != 0 || n%uint64(d.block) != 0 {
		return syscall.EINVAL
	}
	if fail != nil {
		return fail(op, off, int(n))
	}
	return nil
}

// lend makes a loan of n bytes, in vectors of at most one page.
func (d *MemoryDisk) lend(off uint64, n int) *memoryLoan {
	l := d.freeLoan()
	l.off = off
	if cap(l.buf) < n {
		l.buf = make([]byte, n)
	}
	l.buf, l.vec = l.buf[:n], l.vec[:0]
	for at := 0; at < n; {
		k := min(n-at, memoryPage-int((off+uint64(at))%memoryPage))
		l.vec = append(l.vec, l.buf[at:at+k:at+k])
		at += k
	}
	return l
}

func (d *MemoryDisk) Read(off uint64, n int, done func([][]byte, any, error)) {
	if err := d.check("read", off, uint64(n)); err != nil {
		done(nil, nil, err)
		return
	}
	l := d.lend(off, n)
	d.mu.RLock()
	for _, v := range l.vec {
		page := &d.zero
		if p := d.pages[off/memoryPage]; p != nil {
			page = p
		}
		copy(v, page[off%memoryPage:])
		off += uint64(len(v))
	}
	d.mu.RUnlock()
	done(l.vec, l, nil)
}

func (d *MemoryDisk) Reserve(off uint64, n int) ([][]byte, any, error) {
	if err := d.check("reserve", off, uint64(n)); err != nil {
		return nil, nil, err
	}
	if d.ReadOnly() {
		return nil, nil, syscall.EROFS
	}
	l := d.lend(off, n)
	return l.vec, l, nil
}

func (d *MemoryDisk) Write(loan any, fua bool, done func(error)) {
	l := loan.(*memoryLoan)
	err := d.check("write", l.off, uint64(len(l.buf)))
	if err == nil {
		d.mu.Lock()
		err = d.store(l.off, l.buf)
		d.mu.Unlock()
	}
	d.Release(l)
	done(err)
}

// store writes data, or nothing if space is short. The caller holds mu.
func (d *MemoryDisk) store(off uint64, data []byte) error {
	if d.readOnly {
		return syscall.EROFS
	}
	fresh := 0
	for at := off / memoryPage; at*memoryPage < off+uint64(len(data)); at++ {
		if d.pages[at] == nil {
			fresh++
		}
	}
	if d.limit > 0 && fresh > 0 && len(d.pages)+fresh > d.limit {
		return syscall.ENOSPC
	}
	for len(data) > 0 {
		p := d.pages[off/memoryPage]
		if p == nil {
			p = new([memoryPage]byte)
			d.pages[off/memoryPage] = p
		}
		k := copy(p[off%memoryPage:], data)
		data, off = data[k:], off+uint64(k)
	}
	return nil
}

func (d *MemoryDisk) Release(loan any) {
	d.loanMu.Lock()
	defer d.loanMu.Unlock()
	l := loan.(*memoryLoan)
	if !l.lent {
		panic("lun: memory given back twice")
	}
	l.lent = false
	d.outstanding--
	d.loans = append(d.loans, l)
}

// Outstanding is how many loans have not been given back.
func (d *MemoryDisk) Outstanding() int {
	d.loanMu.Lock()
	defer d.loanMu.Unlock()
	return d.outstanding
}

func (d *MemoryDisk) freeLoan() *memoryLoan {
	d.loanMu.Lock()
	defer d.loanMu.Unlock()
	d.outstanding++
	var l *memoryLoan
	if n := len(d.loans); n > 0 {
		l, d.loans = d.loans[n-1], d.loans[:n-1]
	} else {
		l = new(memoryLoan)
	}
	l.lent = true
	return l
}

func (d *MemoryDisk) CompareAndWrite(off uint64, compare, data []byte, done func(int, error)) {
	err := d.check("compare", off, uint64(len(data)))
	if err == nil && off/memoryPage != (off+uint64(len(data))-1)/memoryPage {
		err = syscall.EINVAL
	}
	if err != nil {
		done(-1, err)
		return
	}
	d.mu.Lock()
	differs, err := d.swap(off, compare, data)
	d.mu.Unlock()
	done(differs, err)
}

func (d *MemoryDisk) swap(off uint64, compare, data []byte) (int, error) {
	if d.readOnly {
		return -1, syscall.EROFS
	}
	for i := range compare {
		at := off + uint64(i)
		page := &d.zero
		if p := d.pages[at/memoryPage]; p != nil {
			page = p
		}
		if page[at%memoryPage] != compare[i] {
			return i, nil
		}
	}
	return -1, d.store(off, data)
}

func (d *MemoryDisk) Zero(off, n uint64, unmap bool, done func(error)) {
	err := d.check("zero", off, n)
	if err == nil {
		d.mu.Lock()
		err = d.clear(off, n)
		d.mu.Unlock()
	}
	done(err)
}

func (d *MemoryDisk) clear(off, n uint64) error {
	if d.readOnly {
		return syscall.EROFS
	}
	for n > 0 {
		k := min(n, memoryPage-off%memoryPage)
		if p := d.pages[off/memoryPage]; p != nil {
			clear(p[off%memoryPage:][:k])
			if k == memoryPage || bytes.Equal(p[:], d.zero[:]) {
				delete(d.pages, off/memoryPage)
			}
		}
		off, n = off+k, n-k
	}
	return nil
}

func (d *MemoryDisk) Flush(done func(error)) {
	err := d.check("flush", 0, 0)
	if err == nil {
		d.set(func() { d.flushes++ })
	}
	done(err)
}

func (d *MemoryDisk) Provisioned(off, limit uint64) (mapped bool, run uint64, err error) {
	if err := d.check("provisioned", off, uint64(d.block)); err != nil {
		return false, 0, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	// Like a real one it looks at one chunk at a time.
	limit = min(limit, chunk-off%chunk)
	mapped = d.pages[off/memoryPage] != nil
	for run < limit && off+run < d.size && (d.pages[(off+run)/memoryPage] != nil) == mapped {
		run += min(limit-run, memoryPage-(off+run)%memoryPage)
	}
	return mapped, min(run, d.size-off), nil
}

func (d *MemoryDisk) Usage() (used, poolAvailable, poolTotal uint64, soft bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	used, poolTotal = uint64(len(d.pages))*memoryPage, d.size
	if d.limit > 0 {
		poolTotal = uint64(d.limit) * memoryPage
	}
	return used, poolTotal - min(used, poolTotal), poolTotal, used > poolTotal/10*9
}

// MemoryReservations is a Reservations store in memory, for tests.
type MemoryReservations struct {
	mu      sync.Mutex
	value   []byte
	version uint64
	watcher func()
	fail    func() error
}

var _ Reservations = (*MemoryReservations)(nil)

// NewMemoryReservations makes an empty store.
func NewMemoryReservations() *MemoryReservations {
	return &MemoryReservations{}
}

// SetFail has f called before every Store; what it returns is its error.
func (r *MemoryReservations) SetFail(f func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = f
}

func (r *MemoryReservations) Load() ([]byte, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value, r.version
}

func (r *MemoryReservations) Store(ctx context.Context, value []byte, version uint64, revokes bool) error {
	f, err := r.store(ctx, value, version)
	if f != nil {
		f()
	}
	return err
}

func (r *MemoryReservations) store(ctx context.Context, value []byte, version uint64) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(); err != nil {
			return nil, err
		}
	}
	if version != r.version {
		return nil, ErrStale
	}
	r.value, r.version = bytes.Clone(value), version+1
	return r.watcher, nil
}

func (r *MemoryReservations) Watch(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watcher = f
}
