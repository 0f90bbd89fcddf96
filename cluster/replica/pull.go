package replica

import (
	"syscall"
	"time"

	"petal/cluster/brick"
	"petal/cluster/link"
	"petal/cluster/wire"
	"petal/placement"
)

// puller copies what this server misses of a link from the other members, in the
// background (R9): bounded in flight and in bytes per second. When nothing is
// missing any more, that is proposed. Blocks may be missing without the agreed
// state knowing it: those of records that were lost here, and that the others
// have forgotten when the link opens (R10, R11).
type puller struct {
	l       *seat
	next    brick.Mark // go on behind it
	list    []brick.Mark
	flying  int
	listing bool
	asleep  bool   // a timer will wake it
	full    bool   // there is no space for it
	copied  uint64 // blocks, since the last rejoin
	left    uint64
	rate    rateMeter
	failed  int           // of the present pass: marks for which not everybody has answered
	gone    uint64        // of the present pass: blocks that all in sync say they have not
	lost    uint64        // the same of the last pass
	lostIn  uint64        // version of that
	retry   time.Duration // how long to wait if a pass brings nothing
	rest    time.Duration // until then nothing is asked for

	sealed    []placement.Bucket // cuts that the machine is to hear of: see unseal
	unsealing bool               // a timer will try again
}

const (
	pullWindow = 8   // chunks in flight
	pullBatch  = 256 // marks listed at a time
	pullRetry  = 500 * time.Millisecond
	pullIdle   = 30 * time.Second // at most between two passes that bring nothing
)

func (p *puller) init(l *seat) { p.l = l }

// wake goes on, if there is anything to do. The mutex is held.
func (p *puller) wake() {
	l := p.l
	if l.m.State() != link.Open || !l.filling.Has(l.self) && l.s.c.Store.MissingCount(l.id) == 0 {
		p.list, p.next, p.full = nil, brick.Mark{}, false
		return
	}
	if now := l.s.now(); now < p.rest && !p.asleep {
		p.sleep(min(pullRetry, p.rest-now))
	}
	for p.flying < pullWindow && !p.asleep {
		if len(p.list) == 0 {
			p.more()
			return
		}
		sources := l.sources()
		if sources == 0 {
			return // a peer that comes up wakes it
		}
		if wait := l.s.fill.take(l.s.now(), chunkBytes(p.list[0].Mask)); wait > 0 {
			p.sleep(min(wait, pullRetry)) // the rate may be changed
			return
		}
		m := p.list[0]
		p.list = p.list[1:]
		p.pull(m, sources, sources|l.m.Config().InSync.Without(l.self) == sources)
	}
}

// more lists what is missing.
func (p *puller) more() {
	if p.listing || p.flying > 0 {
		return // the list is made when all of the last is dealt with
	}
	p.listing = true
	l, from := p.l, p.next
	l.later = append(l.later, func() {
		list, err := l.s.c.Store.Missing(l.id, from, make([]brick.Mark, 0, pullBatch))
		left := l.s.c.Store.MissingCount(l.id)
		l.lock()
		p.listing, p.list, p.left = false, list, uint64(max(0, left))
		switch {
		case err != nil:
			p.sleep(pullRetry)
		case len(list) > 0:
			p.next = list[len(list)-1]
			p.wake()
		case from != (brick.Mark{}): // once more from the beginning
			p.next = brick.Mark{}
			p.passed()
		default:
			p.done()
		}
		l.unlock()
	})
}

// passed ends a pass over all that is missing. What nobody could give is asked for
// again, ever less often if all have said that they have it not. The mutex is held.
func (p *puller) passed() {
	p.lost, p.lostIn = p.gone, p.l.ver
	switch {
	case p.failed > 0:
		p.retry = pullRetry
	case p.gone > 0:
		p.retry = min(pullIdle, max(pullRetry, 2*p.retry))
	default:
		p.retry = 0
	}
	if p.failed, p.gone = 0, 0; p.retry > 0 {
		p.rest = p.l.s.now() + p.retry
	}
	p.wake()
}

// hope has it asked for again soon: there is somebody new to ask. The mutex is held.
func (p *puller) hope() { p.retry, p.rest = 0, 0 }

// unrecoverable returns how many of the blocks missing here nobody has any more.
// The mutex is held.
func (p *puller) unrecoverable(missing uint64) uint64 {
	l := p.l
	switch {
	case l.m.State() != link.Open || l.awaited() != 0:
		return 0
	case l.m.Config().InSync.Len() == 1:
		return missing
	case p.lostIn == l.ver:
		return min(p.lost, missing)
	}
	return 0
}

// done proposes that this member is filled. It comes back until that shows.
func (p *puller) done() {
	l := p.l
	p.left = 0
	if !l.filling.Has(l.self) {
		return
	}
	prop := Proposal{Kind: Filled, Link: l.id, Member: l.self, Ver: l.ver}
	l.later = append(l.later, func() { l.s.c.Propose(prop) })
	p.sleep(pullRetry)
}

func (p *puller) sleep(d time.Duration) {
	if p.asleep {
		return
	}
	p.asleep = true
	l := p.l
	l.s.c.Clock.AfterFunc(d, func() {
		l.lock()
		p.asleep = false
		if !l.s.closed.Load() {
			p.wake()
		}
		l.unlock()
	})
}

// pull copies one chunk's missing blocks: what one source has not, the next is
// asked for; heard says whether all before have answered. The mutex is held.
func (p *puller) pull(m brick.Mark, sources placement.Members, heard bool) {
	p.flying++
	l := p.l
	head := l.m.Config().Head
	from := sources.First()
	if sources.Has(head) {
		from = head // no other member is less likely to miss it, too
	}
	ver := l.ver
	l.ask(&fetch{l: l, to: from, key: m.Key, mask: m.Mask, bare: true, done: func(f *fetch) { p.got(m, f, ver, sources.Without(from), heard && f.status == wire.OK) }})
}

// got appends what was fetched, and asks who is left for the rest. It counts only
// under the ver under which it was asked for: a later cut may have made blocks
// missing again.
func (p *puller) got(m brick.Mark, f *fetch, ver uint64, left placement.Members, heard bool) {
	l := p.l
	l.lock()
	defer l.unlock()
	p.flying--
	current := ver == l.ver && l.m.State() == link.Open
	switch {
	case current && f.status == wire.OK:
		there := f.data | f.zeros
		if m.Mask&^f.bad != 0 {
			p.retry = 0
		}
		p.fill(m, brick.Write, f.data, f)
		p.fill(m, brick.Zero, f.zeros, f)
		p.fill(m, brick.Absent, m.Mask&^there&^f.bad, f)
		m.Mask = f.bad
		switch {
		case m.Mask == 0:
		case left != 0:
			p.pull(m, left, heard)
		default:
			if heard {
				p.gone += uint64(blocks(m.Mask))
			} else {
				p.failed++
			}
		}
	case current && f.status != wire.NotReady && left != 0:
		p.pull(m, left, heard)
	default:
		p.failed++
	}
	p.wake()
}

// fill appends blocks of one kind. The mutex is held.
func (p *puller) fill(m brick.Mark, kind brick.Kind, mask placement.Mask, f *fetch) {
	if mask == 0 {
		return
	}
	l := p.l
	r := &brick.Record{Kind: kind, Key: m.Key, Mask: mask, Link: l.id, Bucket: m.Bucket}
	if kind == brick.Write {
		r.Buf = l.s.whole(f.refs, 0, blocks(mask)*placement.BlockSize)
		r.Sum = f.sum
	}
	p.flying++
	r.Done = func(_ *brick.Record, err error) {
		if r.Buf != nil {
			r.Buf.Release()
		}
		l.call(func() {
			p.flying--
			if err == nil {
				p.full = false
				p.copied += uint64(blocks(mask))
				p.left -= min(p.left, uint64(blocks(mask)))
				p.rate.add(l.s.now(), uint64(blocks(mask))*placement.BlockSize)
			}
			p.wake()
		})
	}
	if err := l.s.c.Store.AppendFill(r); err != nil {
		p.flying--
		p.failed++
		p.full = err == syscall.ENOSPC
		if r.Buf != nil {
			r.Buf.Release()
		}
	}
}

// repair gets blocks that can't be read here from another member and puts them
// back (DESIGN D.5). It never changes what a block is: the brick takes only what
// has the checksum that it knows.
func (l *seat) repair(key placement.Key, bad placement.Mask) {
	l.lock()
	defer l.unlock()
	sources := l.sources()
	if sources == 0 || l.m.State() != link.Open || l.repairs >= repairsMax {
		return
	}
	l.repairs++
	l.ask(&fetch{l: l, to: sources.First(), key: key, mask: bad, bare: true, done: func(f *fetch) {
		if f.status != wire.OK || f.data == 0 {
			l.call(func() { l.repairs-- })
			return
		}
		r := &brick.Record{Kind: brick.Write, Key: key, Mask: f.data, Link: l.id, Bucket: placement.BucketOf(key.Family, key.Chunk), Sum: f.sum}
		r.Buf = l.s.whole(f.refs, 0, blocks(f.data)*placement.BlockSize)
		r.Done = func(_ *brick.Record, err error) {
			r.Buf.Release()
			if err == nil {
				l.s.repaired.Add(uint64(blocks(f.data)))
			}
			l.call(func() { l.repairs-- })
		}
		if err := l.s.c.Store.AppendRepair(r); err != nil {
			r.Buf.Release()
			l.call(func() { l.repairs-- })
		}
	}})
}

// repairsMax bounds how many chunks of a link are repaired at a time.
const repairsMax = 16
