package brick

import "sync/atomic"

// Stats counts what a brick has done since it was opened.
type Stats struct {
	Reads         uint64 // requests to extents and segments
	ExtentWrites  uint64 // whole chunks written past the journal
	HomeWrites    uint64 // requests of destage
	HomeBlocks    uint64 // blocks in them
	Batches       uint64 // of destage
	MapFlushes    uint64
	MediumErrors  uint64 // reads that ended with one
	BadBlocks     uint64 // blocks found bad, each time they were read
	Carried       uint64 // records copied to the end of the journal because they were not committed
	LostBlocks    uint64 // blocks that rotted in the journal before they reached their home
	PendingBytes  int64  // memory held for data on its way home
	PendingChunks int
}

type counters struct {
	reads, extentWrites, homeWrites, homeBlocks, batches, mapFlushes atomic.Uint64
	mediumErrors, badBlocks, lostBlocks, carried                     atomic.Uint64
}

// Stats returns the counters.
func (b *Brick) Stats() Stats {
	c := &b.stats
	s := Stats{
		Reads: c.reads.Load(), ExtentWrites: c.extentWrites.Load(), HomeWrites: c.homeWrites.Load(), HomeBlocks: c.homeBlocks.Load(),
		Batches: c.batches.Load(), MapFlushes: c.mapFlushes.Load(), MediumErrors: c.mediumErrors.Load(), BadBlocks: c.badBlocks.Load(),
		LostBlocks: c.lostBlocks.Load(), Carried: c.carried.Load(), PendingBytes: b.pending.bytes.Load(),
	}
	for i := range b.pending.shards {
		p := &b.pending.shards[i]
		p.mu.Lock()
		s.PendingChunks += len(p.chunks)
		p.mu.Unlock()
	}
	return s
}

// JournalFill returns how much of the journal is taken, in bytes.
func (b *Brick) JournalFill() (used, capacity int64) { return b.journal.Fill() }
