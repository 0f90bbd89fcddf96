package replica

import (
	"time"

	"petal/cluster/brick"
	"petal/cluster/times"
	"petal/placement"
)

// history is what a seat remembers of the records that were committed lately:
// for R11, to say which blocks a member lacks that is some records behind; for
// R12, to know an operation again that is sent a second time.
//
//	        floor of each bucket
//	          v
//	  ... | 12/7 | 12/8 | 12/9 | 13/1     per bucket, linked from the last one back
//	forgotten \______ remembered ______/
//
// It is a ring in memory. After a restart it begins with what the journal still
// had. Nothing is looked up in it while all goes well: the index of the
// operations is made when one is sent again.
type history struct {
	ring  []past // length a power of two
	first uint64 // position of the oldest entry; ring[first & mask]
	next  uint64 // position of the next entry

	last  []uint64          // by bucket: position of its latest entry, +1
	floor []placement.Stamp // by bucket: nothing up to here is remembered

	ops   map[placement.OpID]uint64 // position, of the entries up to known; nil: nobody asked lately
	known uint64

	least time.Duration // of keep, by the cluster's times

	told map[placement.OpID]time.Duration // until when they count: what others had committed before this member was let in
}

// past is a committed record.
type past struct {
	stamp  placement.Stamp
	op     placement.OpID
	key    placement.Key
	before uint64        // position of the bucket's entry before, +1; 0: none
	at     time.Duration // when it was committed; 0: before this process
	mask   placement.Mask
	bucket placement.Bucket
}

// A journal of 1 GiB holds at most as many records as are remembered, 80 bytes
// each: so whatever may be lost from a member's journal is remembered by the
// others (R11), and every operation of the last seconds with it (R12). Where
// that is not enough, the floor says so, and more is copied.
const (
	historyMin = 1 << 10
	historyMax = 1 << 18
	// historyLimit bounds it where 10 s have more records than that: 100,000 a
	// second on one link.
	historyLimit = 1 << 20

	// resultsFor is how long operations are remembered at least, if there is room,
	// and longer if the cluster's times are: no coordinator sends one again after
	// that (R13).
	resultsFor = 10 * time.Second

	// opsMax is how many of a bucket's latest operations a member is told of that
	// is let in.
	opsMax = 4096
)

func (h *history) init(t times.Times) {
	h.least = 4 * t.Lease // no coordinator has commands older than two leases, and no head admits one later than another
	h.last = make([]uint64, placement.Buckets)
	h.floor = make([]placement.Stamp, placement.Buckets)
}

// keep is how long operations are remembered.
func (h *history) keep() time.Duration { return max(resultsFor, h.least) }

func (h *history) at(pos uint64) *past { return &h.ring[pos&uint64(len(h.ring)-1)] }

// begin says what the brick holds of a bucket without being remembered.
func (h *history) begin(b placement.Bucket, s placement.Stamp) { h.floor[b] = s }

// add remembers a record that has just been committed. Those of a bucket come in
// the order of their stamps.
func (h *history) add(r *brick.Record, now time.Duration) {
	h.put(past{stamp: r.Stamp(), op: r.Op, key: r.Key, mask: r.Mask, bucket: r.Bucket, at: now})
}

func (h *history) put(p past) {
	if h.next-h.first == uint64(len(h.ring)) {
		h.room(p.at)
	}
	p.before = h.last[p.bucket]
	*h.at(h.next) = p
	h.next++
	h.last[p.bucket] = h.next
}

// room makes room for one more. What may still be sent again is not forgotten
// for the sake of memory until there is very much of it.
func (h *history) room(now time.Duration) {
	n := len(h.ring)
	if n == historyLimit || n >= historyMax && now-h.at(h.first).at > h.keep() {
		h.forget()
		return
	}
	bigger := make([]past, max(historyMin, 2*n))
	for pos := h.first; pos < h.next; pos++ {
		bigger[pos&uint64(len(bigger)-1)] = *h.at(pos)
	}
	h.ring = bigger
}

// forget drops the oldest entry.
func (h *history) forget() {
	e := h.at(h.first)
	if h.floor[e.bucket].Before(e.stamp) {
		h.floor[e.bucket] = e.stamp
	}
	if h.ops != nil && h.first < h.known && h.ops[e.op] == h.first {
		delete(h.ops, e.op)
	}
	h.first++
}

// did reports whether the operation is known to have taken effect.
func (h *history) did(id placement.OpID) bool {
	if _, ok := h.told[id]; ok {
		return true
	}
	if h.ops == nil {
		h.ops, h.known = make(map[placement.OpID]uint64), h.first
	}
	for h.known = max(h.known, h.first); h.known < h.next; h.known++ {
		h.ops[h.at(h.known).op] = h.known
	}
	_, ok := h.ops[id]
	return ok
}

// since calls f for the records of a bucket after prev up to last, oldest
// first. It reports false, before the first call, if some of them are forgotten.
func (h *history) since(b placement.Bucket, prev, last placement.Stamp, f func(*past)) bool {
	if prev.Before(h.floor[b]) {
		return false
	}
	var back []uint64
	for at := h.last[b]; at > h.first; {
		e := h.at(at - 1)
		if !prev.Before(e.stamp) {
			break
		}
		if !last.Before(e.stamp) {
			back = append(back, at-1)
		}
		at = e.before
	}
	for i := len(back) - 1; i >= 0; i-- {
		f(h.at(back[i]))
	}
	return true
}

// lately calls f for the operations of a bucket that may be sent again, latest
// first.
func (h *history) lately(b placement.Bucket, now time.Duration, f func(placement.OpID)) {
	n := 0
	for at := h.last[b]; at > h.first && n < opsMax; n++ {
		e := h.at(at - 1)
		if e.at != 0 && now-e.at > h.keep() {
			return
		}
		f(e.op)
		at = e.before
	}
}

// tell remembers an operation that took effect before this member was let in.
func (h *history) tell(id placement.OpID, now time.Duration) {
	if h.told == nil {
		h.told = map[placement.OpID]time.Duration{}
	}
	if len(h.told) >= historyMax {
		for old, until := range h.told {
			if until < now {
				delete(h.told, old)
			}
		}
		if len(h.told) >= historyMax {
			return
		}
	}
	h.told[id] = now + h.keep()
}
