package brick

// flushWait is a call of Flush that waits for extents.
type flushWait struct {
	lsn  uint64
	done func(error)
}

// Flush calls done when everything that was appended before is durable, lazy
// records too, or with the reason why it never will be. done may be called
// before Flush returns and must not block.
func (b *Brick) Flush(done func(error)) {
	if err := b.Failed(); err != nil {
		done(err)
		return
	}
	last := uint64(b.journal.Next() - 1)
	b.journal.Flush(func(err error) {
		if err != nil {
			b.fail(err)
			done(err)
			return
		}
		b.flushMu.Lock()
		b.flushes = append(b.flushes, flushWait{last, done})
		b.flushWaits.Add(1)
		b.flushMu.Unlock()
		b.wakeFlushes()
		if err := b.Failed(); err != nil { // perhaps just before we were in the list
			b.endFlushes(err)
		}
	})
}

// wakeFlushes ends the flushes that have nothing left to wait for.
func (b *Brick) wakeFlushes() {
	if b.flushWaits.Load() == 0 {
		return
	}
	b.endFlushes(nil)
}

func (b *Brick) failFlushes(err error) { b.endFlushes(err) }

func (b *Brick) endFlushes(err error) {
	var over []flushWait
	b.flushMu.Lock()
	kept := b.flushes[:0]
	for _, w := range b.flushes {
		if err != nil || b.order.settled.Load() >= w.lsn {
			over = append(over, w)
		} else {
			kept = append(kept, w)
		}
	}
	clear(b.flushes[len(kept):])
	b.flushes = kept
	b.flushWaits.Add(-int64(len(over)))
	b.flushMu.Unlock()
	for _, w := range over {
		w.done(err)
	}
}

// Touch journals a record that says nothing, and calls done when it is durable, or
// with the reason why it never will be: how long that takes tells how the disk is.
// done may be called before Touch returns if the brick has failed, and must not block.
func (b *Brick) Touch(done func(error)) { b.appendMark(head{Type: typeStamp}, done) }
