package meta

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal"

	"go.etcd.io/raft/v3/raftpb"
)

// persist takes a MsgStorageAppend. They are made durable in order; those after
// one with a snapshot wait until its file is written.
func (g *Group) persist(m *raftpb.Message) {
	if g.wal.writing && m.GetSnapshot() != nil || len(g.wal.held) > 0 {
		g.wal.held = append(g.wal.held, m)
		return
	}
	if m.GetSnapshot() != nil {
		g.install(m)
		return
	}
	g.write(&walWrite{m: m}, nil)
}

// install writes the file of a snapshot that came from the leader, and then its
// mark.
func (g *Group) install(m *raftpb.Message) {
	s, err := unmarshal(m.GetSnapshot().GetData())
	if err != nil { // it was looked at when it came
		g.fail(err)
		return
	}
	g.wal.writing = true
	g.wal.held = append(g.wal.held, m)
	g.background(func() error { return writeSnapshot(g.cfg.FS, g.cfg.Dir, s) }, func() {
		g.wal.writing = false
		g.wal.snapshot = s.index
		g.wal.records = nil
		held := g.wal.held[1:]
		g.wal.held = nil
		g.write(&walWrite{m: m, state: s, trim: s.index}, &metapb.Mark{Term: s.term, Index: s.index, Reset_: true})
		for _, next := range held {
			g.persist(next)
		}
	})
}

// background runs f outside the lock, and then done under it. If f fails the
// group does: nobody can tell what is on the disk.
func (g *Group) background(f func() error, done func()) {
	g.later(func() {
		g.cfg.Background(func() {
			err := f()
			g.enter(func() {
				if err != nil {
					g.fail(fmt.Errorf("meta: snapshot: %w", err))
					return
				}
				done()
			})
		})
	})
}

// write gives what is new to the journal.
func (g *Group) write(w *walWrite, mark *metapb.Mark) {
	g.wal.queue = append(g.wal.queue, w)
	records := g.recordsOf(w, mark)
	if len(records) == 0 {
		w.durable = true
		g.flushed()
		return
	}
	for i, m := range records {
		head, err := proto.Marshal(m)
		if err != nil || journal.RecordBytes(len(head), 0) > g.log.MaxRecord() || len(head) > journal.MaxHead {
			g.fail(fmt.Errorf("meta: a log record of %d bytes: %v", len(head), err))
			return
		}
		last := i == len(records)-1
		rec := &journal.Record{Head: head, Done: func(_ *journal.Record, err error) { g.written(w, last, err) }}
		g.log.Append(rec)
		if i == 0 {
			w.lsn = rec.LSN
		}
		if n := len(m.Entries); n > 0 {
			g.wal.records = append(g.wal.records, walRecord{rec.LSN, m.Entries[n-1].Index})
		}
	}
}

// recordsOf returns the records that w needs, none if there is nothing to be
// kept: how far entries are committed is written along with other things only,
// since raft finds it out again.
func (g *Group) recordsOf(w *walWrite, mark *metapb.Mark) []*metapb.Record {
	m, h := w.m, g.wal.hard
	urgent := mark != nil
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		urgent = urgent || h.Term != m.GetTerm() || h.Vote != m.GetVote()
		h.Term, h.Vote, h.Commit = m.GetTerm(), m.GetVote(), max(h.Commit, m.GetCommit())
	}
	if mark != nil {
		h.Commit = max(h.Commit, mark.Index)
	}
	if !urgent && len(m.GetEntries()) == 0 {
		return nil
	}
	rec := &metapb.Record{Hard: hardOf(h), Snapshot: mark}
	if mark != nil {
		rec.Session = g.wal.session
	}
	out, size := []*metapb.Record{rec}, 0
	for _, e := range m.GetEntries() {
		if size > 0 && size+len(e.GetData()) > walRecordBytes {
			rec, size = &metapb.Record{}, 0
			out = append(out, rec)
		}
		rec.Entries = append(rec.Entries, &metapb.LogEntry{Term: e.GetTerm(), Index: e.GetIndex(), Type: uint32(e.GetType()), Data: e.GetData()})
		size += len(e.GetData()) + 32
	}
	return out
}

// written is the journal's word. Nothing is done twice after a failure.
func (g *Group) written(w *walWrite, last bool, err error) {
	g.enter(func() {
		if err != nil {
			g.fail(fmt.Errorf("meta: log: %w", err))
			return
		}
		if last {
			w.durable = true
			g.flushed()
		}
	})
}

// flushed tells raft, and through it the others, what is durable.
func (g *Group) flushed() {
	for len(g.wal.queue) > 0 && g.wal.queue[0].durable && g.failed == nil {
		w := g.wal.queue[0]
		g.wal.queue = g.wal.queue[1:]
		if w.state != nil {
			if err := g.storage.ApplySnapshot(&raftpb.Snapshot{Metadata: w.state.metadata()}); err != nil {
				g.fail(fmt.Errorf("meta: snapshot %d: %w", w.state.index, err))
				return
			}
			g.adoptState(w.state)
		}
		if err := g.storage.Append(w.m.GetEntries()); err != nil {
			g.fail(err)
			return
		}
		if w.trim > 0 {
			g.trim(w)
		}
		for _, r := range w.m.GetResponses() {
			g.dispatch(r)
		}
	}
	g.compact()
}

// How many applied entries stay in memory for followers that lag, and how many
// bytes of them.
const (
	keepEntries = 512
	keepBytes   = 4 << 20
)

// keepFrom returns the first entry that stays after the log up to index is
// trimmed, 0 if all do.
func (g *Group) keepFrom(index uint64) uint64 {
	first, err := g.storage.FirstIndex()
	if err != nil || index < first {
		return 0
	}
	entries, err := g.storage.Entries(first, index+1, math.MaxUint64)
	if err != nil {
		return 0
	}
	keep, bytes := index+1, 0
	for _, e := range slices.Backward(entries) {
		if bytes += len(e.GetData()); bytes > keepBytes || index+1-keep >= keepEntries {
			break
		}
		keep = e.GetIndex()
	}
	return keep
}

// compact writes a snapshot and drops the log before it when the log is half
// full.
func (g *Group) compact() {
	used, capacity := g.log.Fill()
	s := g.view
	if used < capacity/2 || g.wal.writing || len(g.wal.held) > 0 || s.index <= g.wal.snapshot {
		return
	}
	g.wal.writing = true
	g.background(func() error { return writeSnapshot(g.cfg.FS, g.cfg.Dir, s) }, func() {
		g.wal.writing = false
		g.wal.snapshot = s.index
		g.write(&walWrite{m: &raftpb.Message{}, trim: s.index}, &metapb.Mark{Term: s.term, Index: s.index})
		held := g.wal.held
		g.wal.held = nil
		for _, m := range held {
			g.persist(m)
		}
	})
}

// trim lets go of the log that a snapshot has made needless, once its mark is
// durable: with the mark go raft's term and vote, and a segment that is let go of may
// be written over at once.
func (g *Group) trim(w *walWrite) {
	if keep := g.keepFrom(w.trim); keep > 0 {
		g.storage.Compact(keep - 1)
	}
	g.wal.records = slices.DeleteFunc(g.wal.records, func(r walRecord) bool { return r.last <= w.trim })
	lsn := w.lsn
	if len(g.wal.records) > 0 {
		lsn = min(lsn, g.wal.records[0].lsn)
	}
	g.log.Trim(lsn)
}
