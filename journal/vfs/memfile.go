package vfs

import (
	"io"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"slices"
	"syscall"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// page is never changed once it is part of a content, so contents can share it.
type page [BlockSize]byte

const (
	sectors    = BlockSize / SectorSize // of a page
	allSectors = 1<<sectors - 1
	chunkPages = 256
)

// chunk is 1 MiB of a content.
type chunk struct {
	pages     [chunkPages]*page
	allocated [chunkPages / 64]uint64 // space is taken; a page without it is a hole
}

// content is what is in a file.
type content struct {
	size   int64
	chunks map[int64]*chunk
}

func (c *content) page(i int64) *page {
	if ch := c.chunks[i/chunkPages]; ch != nil {
		return ch.pages[i%chunkPages]
	}
	return nil
}

// take makes page i allocated, and reports whether it was not.
func (c *content) take(i int64) bool {
	ch := c.chunks[i/chunkPages]
	if ch == nil {
		if c.chunks == nil {
			c.chunks = map[int64]*chunk{}
		}
		ch = &chunk{}
		c.chunks[i/chunkPages] = ch
	}
	word, bit := &ch.allocated[i%chunkPages/64], uint64(1)<<(i%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (c *content) set(i int64, p *page) {
	c.take(i)
	c.chunks[i/chunkPages].pages[i%chunkPages] = p
}

// drop makes page i a hole.
func (c *content) drop(i int64) {
	if ch := c.chunks[i/chunkPages]; ch != nil {
		ch.pages[i%chunkPages] = nil
		ch.allocated[i%chunkPages/64] &^= 1 << (i % 64)
	}
}

func (c *content) isTaken(i int64) bool {
	ch := c.chunks[i/chunkPages]
	return ch != nil && ch.allocated[i%chunkPages/64]>>(i%64)&1 != 0
}

func (c *content) allocated() (pages int64) {
	for _, ch := range c.chunks {
		for _, w := range ch.allocated {
			pages += int64(bits.OnesCount64(w))
		}
	}
	return pages
}

// missing counts the pages of a range that are not allocated.
func (c *content) missing(off, n int64) (pages int64) {
	for i := off / BlockSize; i*BlockSize < off+n; i++ {
		if !c.isTaken(i) {
			pages++
		}
	}
	return pages
}

// read fills p from off and returns how much of it is inside the file.
func (c *content) read(p []byte, off int64) int {
	n := int(max(0, min(int64(len(p)), c.size-off)))
	for done := 0; done < n; {
		at := off + int64(done)
		part := p[done:min(n, done+int(BlockSize-at%BlockSize))]
		if pg := c.page(at / BlockSize); pg != nil {
			copy(part, pg[at%BlockSize:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return n
}

func (c *content) clone() content {
	d := content{size: c.size, chunks: make(map[int64]*chunk, len(c.chunks))}
	for i, ch := range c.chunks {
		copied := *ch
		d.chunks[i] = &copied
	}
	return d
}

// resize sets the size; what is cut off reads as zeros if the file grows again.
func (c *content) resize(size int64) {
	if size < c.size {
		c.punch(size, (c.size+BlockSize-1)/BlockSize*BlockSize-size)
	}
	c.size = size
}

// punch makes a range zeros, and holes of its whole pages.
func (c *content) punch(off, n int64) {
	for at, end := off, off+n; at < end; {
		i := at / BlockSize
		to := min(end, (i+1)*BlockSize)
		if at == i*BlockSize && to == at+BlockSize {
			c.drop(i)
		} else if old := c.page(i); old != nil {
			fresh := *old
			clear(fresh[at%BlockSize : at%BlockSize+to-at])
			c.set(i, &fresh)
		}
		at = to
	}
}

// change is one call that changes a file, as it waits to be durable.
type change struct {
	parts []part // of a write
	end   int64  // of a write: the file is at least so large after it

	do func(*content) // of anything else: it happens wholly or not at all
}

// part is what a write puts into one page: the bytes of the sectors in mask,
// with the rest as it was.
type part struct {
	page     int64
	data     *page
	from, to int // bytes of the page that were written
	mask     uint8
}

func all(*part) uint8 { return allSectors }

// newWrite makes the change of a write.
func newWrite(vec [][]byte, off int64) *change {
	c := &change{}
	var p *part
	for _, b := range vec {
		for len(b) > 0 {
			i, at := off/BlockSize, int(off%BlockSize)
			if p == nil || p.page != i {
				c.parts = append(c.parts, part{page: i, data: new(page), from: at})
				p = &c.parts[len(c.parts)-1]
			}
			n := copy(p.data[at:], b)
			p.to = at + n
			for s := at / SectorSize; s*SectorSize < p.to; s++ {
				p.mask |= 1 << s
			}
			b = b[n:]
			off += int64(n)
		}
	}
	c.end = off
	return c
}

// apply makes the change to d, of a write only the sectors that keep chooses.
func (c *change) apply(d *content, keep func(*part) uint8) {
	if c.do != nil {
		c.do(d)
		return
	}
	some := len(c.parts) == 0
	for i := range c.parts {
		p := &c.parts[i]
		mask := keep(p) & p.mask
		if mask == 0 {
			continue
		}
		some = true
		if mask == allSectors && p.from == 0 && p.to == BlockSize {
			d.set(p.page, p.data)
			continue
		}
		fresh := new(page)
		if old := d.page(p.page); old != nil {
			*fresh = *old
		}
		for s := range sectors {
			if mask>>s&1 != 0 {
				lo, hi := max(p.from, s*SectorSize), min(p.to, (s+1)*SectorSize)
				copy(fresh[lo:hi], p.data[lo:hi])
			}
		}
		d.set(p.page, fresh)
	}
	if some {
		d.size = max(d.size, c.end)
	}
}

// crash returns the file as it may be after losing power. For each byte of
// several pending writes any of them may be the one that lasts, or none, but
// never an older one than what is durable.
func (n *inode) crash(rng *rand.Rand) *inode {
	after := &inode{dir: n.dir, durable: n.durable.clone()}
	for _, c := range n.pending {
		switch fate := rng.IntN(4); {
		case fate == 0: // lost
		case fate == 1 || c.do != nil:
			c.apply(&after.durable, all)
		case fate == 2: // torn: a beginning
			left := rng.IntN(len(c.parts)*sectors + 1)
			c.apply(&after.durable, func(*part) uint8 {
				n := min(left, sectors)
				left -= n
				return uint8(1<<n - 1)
			})
		default: // torn: any sectors
			c.apply(&after.durable, func(*part) uint8 { return uint8(rng.Uint32()) })
		}
	}
	after.now = after.durable.clone()
	return after
}

// memFile is an open file of a Memory.
type memFile struct {
	m    *Memory
	n    *inode
	name string
	how  Mode
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// enter locks the disk and checks what a direct file asks for.
func (f *memFile) enter(op string, off int64, vec ...[]byte) error {
	if err := f.m.enter(op, f.name); err != nil {
		return err
	}
	ok := off >= 0
	if f.how&Direct != 0 && f.m.strict {
		ok = ok && off%BlockSize == 0
		for _, p := range vec {
			ok = ok && Aligned(p, 0)
		}
	}
	if !ok {
		f.m.mu.Unlock()
		return f.fail(op, syscall.EINVAL)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.enter("read", off, p); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	n := f.n.now.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) ReadVec(vec [][]byte, off int64) (int, error) {
	if err := f.enter("read", off, vec...); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	total := 0
	for _, p := range vec {
		n := f.n.now.read(p, off+int64(total))
		total += n
		if n < len(p) {
			return total, io.EOF
		}
	}
	return total, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	return f.WriteVec([][]byte{p}, off)
}

func (f *memFile) WriteVec(vec [][]byte, off int64) (int, error) {
	if err := f.enter("write", off, vec...); err != nil {
		return 0, err
	}
	c := newWrite(vec, off)
	n := c.end - off
	if err := f.reserve(off, n); err != nil {
		f.m.mu.Unlock()
		return 0, f.fail("write", err)
	}
	err := f.commit(Op{Kind: OpWrite, Name: f.name, Off: off, Len: n}, c, f.how&DSync != 0)
	return int(n), err
}

// reserve fails if there is no space for a range. Under the disk's lock.
func (f *memFile) reserve(off, n int64) error {
	if f.m.used+f.n.now.missing(off, n)*BlockSize > f.m.capacity {
		return syscall.ENOSPC
	}
	return nil
}

// commit makes a change volatile, unlocks the disk, tells the hook, and makes the
// change durable if it has to be.
func (f *memFile) commit(op Op, c *change, durable bool) error {
	before := f.n.now.allocated()
	c.apply(&f.n.now, all)
	f.m.used += (f.n.now.allocated() - before) * BlockSize
	f.n.pending = append(f.n.pending, c)
	f.m.mu.Unlock()
	f.m.hook(op)
	if !durable {
		return nil
	}
	if err := f.m.enter(op.Kind.String(), f.name); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.makeDurable(c)
	return nil
}

// makeDurable takes one write out of the pending ones. Older ones can no longer
// change the same sectors. Changes of the file's allocation (punch, truncate,
// allocate) are in the file system's own log, in order, and a durable write
// takes along those before it: a hole punched before it never swallows it.
func (n *inode) makeDurable(c *change) {
	at := slices.Index(n.pending, c)
	if at < 0 {
		return // a Sync was quicker
	}
	for at > 0 && slices.ContainsFunc(n.pending[:at], func(o *change) bool { return o.do != nil }) {
		n.pending[0].apply(&n.durable, all)
		n.pending = slices.Delete(n.pending, 0, 1)
		at--
	}
	c.apply(&n.durable, all)
	written := map[int64]uint8{}
	for i := range c.parts {
		written[c.parts[i].page] |= c.parts[i].mask
	}
	for _, older := range n.pending[:at] {
		for i := range older.parts {
			older.parts[i].mask &^= written[older.parts[i].page]
		}
	}
	n.pending = slices.Delete(n.pending, at, at+1)
}

func (f *memFile) Sync() error {
	if err := f.m.enter("sync", f.name); err != nil {
		return err
	}
	before := slices.Clone(f.n.pending)
	f.m.mu.Unlock()
	f.m.hook(Op{Kind: OpSync, Name: f.name})
	if err := f.m.enter("sync", f.name); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	for _, c := range before {
		if i := slices.Index(f.n.pending, c); i >= 0 {
			c.apply(&f.n.durable, all)
			f.n.pending = slices.Delete(f.n.pending, i, i+1)
		}
	}
	return nil
}

func (f *memFile) Allocate(off, n int64, keepSize bool) error {
	if err := f.enterRange("allocate", off, n); err != nil {
		return err
	}
	if err := f.reserve(off, n); err != nil {
		f.m.mu.Unlock()
		return f.fail("allocate", err)
	}
	return f.commit(Op{Kind: OpAllocate, Name: f.name, Off: off, Len: n}, &change{do: func(c *content) {
		for i := off / BlockSize; i*BlockSize < off+n; i++ {
			c.take(i)
		}
		if !keepSize {
			c.size = max(c.size, off+n)
		}
	}}, false)
}

func (f *memFile) Punch(off, n int64) error {
	if err := f.enterRange("punch", off, n); err != nil {
		return err
	}
	return f.commit(Op{Kind: OpPunch, Name: f.name, Off: off, Len: n}, &change{do: func(c *content) { c.punch(off, n) }}, false)
}

func (f *memFile) Truncate(size int64) error {
	if err := f.enterRange("truncate", size, 1); err != nil {
		return err
	}
	return f.commit(Op{Kind: OpTruncate, Name: f.name, Off: size}, &change{do: func(c *content) { c.resize(size) }}, false)
}

// enterRange is enter for calls without memory, which need not be aligned.
func (f *memFile) enterRange(op string, off, n int64) error {
	if off < 0 || n <= 0 {
		return f.fail(op, syscall.EINVAL)
	}
	return f.m.enter(op, f.name)
}

func (f *memFile) Size() (int64, error) {
	if err := f.m.enter("stat", f.name); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.n.now.size, nil
}

// Close implements File. It makes nothing durable.
func (f *memFile) Close() error { return nil }
