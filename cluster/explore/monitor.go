package explore

// The monitor is an automaton that has taken every step of every linearizable
// register that could have answered the clients as the cluster did: a set of
// (value, writes that have taken effect), one per block. It is a bit set; when
// it is empty, no register explains the answers.

func bit(value, effect uint8) uint32 { return 1 << (uint32(value)<<maxWrites + uint32(effect)) }

// closure lets every write in flight of the block take effect, that may.
func (w *world) closure(k *Case, block uint8) {
	for grew := true; grew; {
		grew = false
		for v := uint8(0); v <= uint8(len(k.Writes)); v++ {
			for e := uint8(0); e < 1<<len(k.Writes); e++ {
				if w.mon[block]&bit(v, e) == 0 {
					continue
				}
				for i := range k.Writes {
					// What a preemption has overtaken takes effect no more.
					if k.Writes[i] != block || w.wst[i] == wNew || e>>i&1 != 0 || i == 0 && w.bar == barAnswered {
						continue
					}
					b := bit(uint8(i)+1, e|1<<i)
					grew = grew || w.mon[block]&b == 0
					w.mon[block] |= b
				}
			}
		}
	}
}

// answerWrite is the answer to write i: it has taken effect.
func (w *world) answerWrite(k *Case, i uint8) {
	b := k.Writes[i]
	w.closure(k, b)
	w.keep(b, func(_, e uint8) bool { return e>>i&1 != 0 })
}

// answerRead is the answer to a read of a block.
func (w *world) answerRead(k *Case, block, value uint8) {
	w.closure(k, block)
	w.keep(block, func(v, _ uint8) bool { return v == value })
}

func (w *world) keep(block uint8, f func(v, e uint8) bool) {
	for v := uint8(0); v < 4; v++ {
		for e := uint8(0); e < 1<<maxWrites; e++ {
			if !f(v, e) {
				w.mon[block] &^= bit(v, e)
			}
		}
	}
}

// explained reports whether some register explains all answers so far.
func (w *world) explained(k *Case) bool {
	for b := range k.Blocks {
		if w.mon[b] == 0 {
			return false
		}
	}
	return true
}
