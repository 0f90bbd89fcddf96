package load

import (
	"math"
	"slices"
	"sync"
)

// inFlight is the end of a write that has not ended.
const inFlight = math.MaxUint64

// zeroes marks the number of a write whose content is zeros (UNMAP).
const zeroes = 1 << 63

// version is one content that a unit may have: what write op put there.
//
// A write takes effect at some moment between began and ended, if sure is
// set; if not (it failed, or its session is gone) it did so then or never.
type version struct {
	op           uint64 // 0: what was there before any write of ours
	began, ended uint64 // on the model's clock; ended may be inFlight
	sure         bool   // acknowledged
}

// unit is one aligned part of the disk, the smallest that any write writes.
//
// Invariant: versions == 0 means that op is its only possible content and
// nothing is under way on it; else the possible ones are in
// model.lists[versions] and op is unused.
type unit struct {
	op       uint64
	versions uint32
}

// list is the state of a unit that has, or may soon have, several contents.
type list struct {
	versions []version
	users    int // reads and writes under way on it
}

// crash is a moment from which on a disk with a volatile cache may have lost
// what was acknowledged since synced.
type crash struct{ at, synced uint64 }

// model knows, for each unit of the region under test, every content that a
// read may return. It is right for any number of overlapping reads and
// writes: each unit is taken as a register whose operations take effect one
// after the other, each between its begin and its end. Safe for concurrent
// use.
type model struct {
	volatile bool // the disk has a write-back cache: only a sync makes durable

	mu      sync.Mutex
	clock   uint64 // counts begins and ends; 0 is before everything
	lastOp  uint64
	units   []unit
	lists   []list // lists[0] is not used
	free    []uint32
	synced  uint64 // began of the last sync that ended: all before is durable
	crashes []crash
}

func newModel(units int, volatile bool) *model {
	return &model{volatile: volatile, units: make([]unit, units), lists: make([]list, 1)}
}

// tick returns the next moment.
func (m *model) tick() uint64 {
	m.clock++
	return m.clock
}

// list returns the list of unit i and makes one if it has none. The pointer
// is good until the next call.
func (m *model) list(i int) *list {
	u := &m.units[i]
	if u.versions == 0 {
		if n := len(m.free); n > 0 {
			u.versions, m.free = m.free[n-1], m.free[:n-1]
		} else {
			m.lists = append(m.lists, list{})
			u.versions = uint32(len(m.lists) - 1)
		}
		l := &m.lists[u.versions]
		l.versions = append(l.versions[:0], version{op: u.op, sure: true})
		u.op = 0
	}
	return &m.lists[u.versions]
}

// beginWrite notes a write to units [first, first+count) and returns its
// number. zero says that it leaves zeros.
func (m *model) beginWrite(first, count int, zero bool) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastOp++
	op := m.lastOp
	if zero {
		op |= zeroes
	}
	now := m.tick()
	for i := first; i < first+count; i++ {
		l := m.list(i)
		l.users++
		l.versions = append(l.versions, version{op: op, began: now, ended: inFlight})
	}
	return op
}

// endWrite notes that write op has ended. sure: with status GOOD. Not sure:
// it may or may not have taken effect, and will not any more.
func (m *model) endWrite(first, count int, op uint64, sure bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.tick()
	for i := first; i < first+count; i++ {
		l := m.list(i)
		l.users--
		for k := range l.versions {
			if v := &l.versions[k]; v.op == op && v.ended == inFlight {
				v.ended, v.sure = now, sure
			}
		}
		m.settle(i)
	}
}

// beginRead notes a read of units [first, first+count) and returns its moment.
func (m *model) beginRead(first, count int) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+count; i++ {
		m.list(i).users++
	}
	return m.tick()
}

// dropRead ends a read that returned nothing.
func (m *model) dropRead(first, count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+count; i++ {
		m.list(i).users--
		m.settle(i)
	}
}

// endSync notes that a SYNCHRONIZE CACHE that began at moment began has ended
// well.
func (m *model) endSync(began uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced = max(m.synced, began)
}

// settleAll forgets all that can be forgotten.
func (m *model) settleAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.units {
		m.settle(i)
	}
}

// now returns a new moment, for endSync.
func (m *model) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tick()
}

// connectionLost notes that the target may have crashed just now.
func (m *model) connectionLost() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.volatile {
		m.crashes = append(m.crashes, crash{at: m.tick(), synced: m.synced})
	}
}

// certain: v took effect and no crash can have undone it.
func (m *model) certain(v version) bool {
	if !v.sure {
		return false
	}
	for _, c := range m.crashes {
		if c.synced <= v.ended && v.ended < c.at {
			return false
		}
	}
	return true
}

// durable: v took effect and no crash, past or to come, can undo it.
func (m *model) durable(v version) bool {
	return m.certain(v) && (!m.volatile || v.ended < m.synced)
}

// floor is the moment before which a version must not have ended to be still
// possible: the last begin of a write that is good in the eyes of ok.
func (l *list) floor(ok func(version) bool) uint64 {
	var floor uint64
	for _, v := range l.versions {
		if v.began > floor && ok(v) {
			floor = v.began
		}
	}
	return floor
}

// permitted returns the moment that a version must not have ended before, for
// a read that began at began: another write followed it, and had ended, when
// the read began.
func (m *model) permitted(l *list, began uint64) uint64 {
	return l.floor(func(w version) bool { return w.ended < began && m.certain(w) })
}

// observed notes that a read that began at began found unit i to be op
// throughout. Once that write is durable, whatever had ended before the read
// came before it and cannot come back.
func (m *model) observed(i int, op, began uint64) {
	l := m.list(i)
	k := slices.IndexFunc(l.versions, func(v version) bool { return v.op == op })
	if l.users > 1 || k < 0 || !m.durable(l.versions[k]) {
		return
	}
	l.versions = slices.DeleteFunc(l.versions, func(v version) bool { return v.op != op && v.ended < began })
}

// settle forgets the versions of unit i that can never be read again, and the
// list if only one remains. Reads under way may still need the others.
func (m *model) settle(i int) {
	u := &m.units[i]
	if u.versions == 0 {
		return
	}
	l := &m.lists[u.versions]
	if l.users > 0 {
		return
	}
	floor := l.floor(m.durable)
	l.versions = slices.DeleteFunc(l.versions, func(v version) bool { return v.ended < floor })
	if len(l.versions) == 1 {
		u.op = l.versions[0].op
		m.free = append(m.free, u.versions)
		u.versions = 0
	}
}
