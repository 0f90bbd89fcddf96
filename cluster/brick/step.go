package brick

import "time"

// A Manual brick has no goroutines. Its owner does the work that is waiting, a
// piece at a time and in any order, from one goroutine; each method reports
// whether there was any.

// Step does one piece of whatever is waiting, destage and map flush excepted.
func (b *Brick) Step() bool { return b.StepWrite() || b.StepRead() || b.StepJournal() }

// StepJournal writes one group of the journal. Done is called from here.
func (b *Brick) StepJournal() bool { return b.journal.Commit() }

// StepWrite writes the extents that are queued. Done is called from here.
func (b *Brick) StepWrite() bool {
	ok := b.writer.take(b, false)
	if ok {
		b.writer.write(b)
	}
	return ok
}

// StepRead serves one read.
func (b *Brick) StepRead() bool {
	op, ok := b.reads.pop(false)
	if ok {
		b.runRead(op)
	}
	return ok
}

// StepDestage destages one batch, of records that are at least so old.
func (b *Brick) StepDestage(age time.Duration) bool {
	if b.Failed() != nil {
		return false
	}
	n, err := b.destageBatch(b.now() - age.Nanoseconds())
	if err != nil {
		b.fail(err)
	}
	return n > 0 && err == nil
}

// StepFlushMap flushes the map and trims the journal.
func (b *Brick) StepFlushMap() error {
	if err := b.Failed(); err != nil {
		return err
	}
	err := b.flushMap()
	if err != nil {
		b.fail(err)
	}
	return err
}
