package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"
)

// engine is the loop: virtual time and what is to happen in it.
type engine struct {
	seed  uint64
	now   time.Duration // true time, which no machine's clock shows
	seq   uint64
	queue []event // a heap by (at, seq)
	count uint64  // events so far
	mark  uint64  // of all events so far: equal runs have equal marks

	text io.Writer // the trace, nil: none
}

// event is something to happen. It happens to a machine, or to nobody (nil); if
// to a process, then only if that still lives.
type event struct {
	at   time.Duration
	seq  uint64
	to   *machine
	life *life
	do   func()
}

// life is a process's: what belongs to a dead one no longer happens.
type life struct{ over bool }

func newEngine(seed uint64, trace io.Writer) *engine {
	return &engine{seed: seed, text: trace, mark: seed}
}

// rng returns the stream of random numbers for a purpose.
func (e *engine) rng(purpose string) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, purpose)
	return rand.New(rand.NewPCG(e.seed, h.Sum64()))
}

// after plans an event d from now.
func (e *engine) after(d time.Duration, to *machine, l *life, do func()) {
	e.seq++
	e.push(event{at: e.now + max(0, d), seq: e.seq, to: to, life: l, do: do})
}

// run lets events happen until the time has come or nothing is left.
func (e *engine) run(until time.Duration) {
	for len(e.queue) > 0 && e.queue[0].at <= until {
		ev := e.pop()
		if ev.life != nil && ev.life.over {
			continue
		}
		e.now = ev.at
		if ev.to != nil && ev.to.pausedUntil > e.now {
			ev.at = ev.to.pausedUntil
			e.seq++
			ev.seq = e.seq
			e.push(ev)
			continue
		}
		e.count++
		e.mark = (e.mark ^ uint64(ev.at)) * 0x9e3779b97f4a7c15
		e.mark ^= e.mark >> 29
		ev.do()
	}
	e.now = max(e.now, until)
}

// note mixes what was seen into the mark.
func (e *engine) note(x uint64) { e.mark = (e.mark ^ x) * 0xff51afd7ed558ccd }

// tracing reports whether anyone reads the trace; ask before composing a line.
func (e *engine) tracing() bool { return e.text != nil }

// tracef writes a line.
func (e *engine) tracef(format string, args ...any) {
	if e.text != nil {
		fmt.Fprintf(e.text, "%12.6f ", e.now.Seconds())
		fmt.Fprintf(e.text, format, args...)
		fmt.Fprintln(e.text)
	}
}

func (ev *event) before(o *event) bool {
	return ev.at < o.at || ev.at == o.at && ev.seq < o.seq
}

func (e *engine) push(ev event) {
	q := append(e.queue, ev)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !q[i].before(&q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	e.queue = q
}

func (e *engine) pop() event {
	q := e.queue
	top := q[0]
	n := len(q) - 1
	q[0], q[n] = q[n], event{}
	q = q[:n]
	for i := 0; ; {
		least := i
		for _, c := range []int{2*i + 1, 2*i + 2} {
			if c < n && q[c].before(&q[least]) {
				least = c
			}
		}
		if least == i {
			break
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
	e.queue = q
	return top
}

// between returns a duration in [lo, hi).
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}
