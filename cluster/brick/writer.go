package brick

import "slices"

// extentWriter writes whole chunks to their extents: whatever is queued goes
// together. Extents are handed out in order, so that what comes together mostly
// lies together, and is one request.
//
//	one run of extents   one request that is durable when it returns (O_DSYNC)
//	several              a request each, then one sync of each file
//
// A record's extent counts as settled, and the record may be answered, only
// after the sync. The journal's record of it is on its way at the same time: a
// crash between the two leaves a record whose extent does not match its
// checksums, and recovery drops it (recover.go).
type extentWriter struct {
	batch []*Record // by extent
	vec   [][]byte
	dirty []*dataFile // to be synced, each once
}

// writerBatch bounds the extents that one writer takes at once, 2 MiB: nobody
// waits for more than that of others.
const writerBatch = 32

// run is a goroutine of the brick.
func (w *extentWriter) run(b *Brick) {
	for w.take(b, true) {
		w.write(b)
	}
}

// take fills the batch from the queue. It reports false when there is nothing.
func (w *extentWriter) take(b *Brick, wait bool) bool {
	w.batch = b.writes.popSome(w.batch[:0], writerBatch, wait)
	return len(w.batch) > 0
}

// write writes the batch and ends its records' part.
func (w *extentWriter) write(b *Brick) {
	slices.SortFunc(w.batch, func(x, y *Record) int {
		if x.p.ext < y.p.ext {
			return -1
		}
		return 1
	})
	err := w.writeRuns(b)
	if err != nil {
		b.fail(err)
	} else {
		b.stats.extentWrites.Add(uint64(len(w.batch)))
	}
	for i, r := range w.batch {
		w.batch[i] = nil // Done may hand it back to Append
		if err == nil {
			b.note(r.p, stateSettled, 0)
		}
		r.part(err)
	}
}

// writeRuns makes the batch durable.
func (w *extentWriter) writeRuns(b *Brick) error {
	for rest := w.batch; len(rest) > 0; {
		n := run(rest)
		d := b.alloc.file(rest[0].p.ext)
		f := d.plain
		if n == len(w.batch) {
			f = d.dsync
		} else if len(w.dirty) == 0 || w.dirty[len(w.dirty)-1] != d {
			w.dirty = append(w.dirty, d)
		}
		for _, r := range rest[:n] {
			w.vec = append(w.vec, r.p.buf.Bytes())
		}
		_, err := f.WriteVec(w.vec, int64(rest[0].p.ext%extentsPerFile)*extentSize)
		clear(w.vec)
		w.vec = w.vec[:0]
		if err != nil {
			w.dirty = w.dirty[:0]
			return err
		}
		rest = rest[n:]
	}
	var err error
	for _, d := range w.dirty {
		if err == nil {
			err = d.plain.Sync()
		}
	}
	clear(w.dirty)
	w.dirty = w.dirty[:0]
	return err
}

// run returns how many records at the front lie one after another in one file.
func run(r []*Record) int {
	n := 1
	for n < len(r) && r[n].p.ext == r[0].p.ext+uint64(n) && r[n].p.ext%extentsPerFile != 0 {
		n++
	}
	return n
}
