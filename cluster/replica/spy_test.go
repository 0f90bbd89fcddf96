package replica

import (
	"fmt"

	"petal/cluster/brick"
	"petal/placement"
)

// spy is a brick that tells what is done to a chunk that is looked into.
type spy struct {
	*brick.Brick
	n *node
}

func (s spy) tell(k placement.Key, format string, args ...any) {
	if *chunkFlag >= 0 && k.Chunk == placement.Chunk(*chunkFlag) {
		fmt.Printf("%v server %d: %s\n", s.n.w.now, s.n.id, fmt.Sprintf(format, args...))
	}
}

func first2(r *brick.Record) string {
	if r.Buf == nil {
		return "zeros"
	}
	return fmt.Sprintf("%x", r.Buf.Bytes()[:2])
}

func (s spy) Append(r *brick.Record) error {
	err := s.Brick.Append(r)
	s.tell(r.Key, "append %v %v mask %x excluded %x %s: %v", r.Stamp(), r.Kind, r.Mask, r.Excluded, first2(r), err)
	return err
}

func (s spy) Commit(r *brick.Record) {
	s.tell(r.Key, "commit %v mask %x %s", r.Stamp(), r.Mask, first2(r))
	s.Brick.Commit(r)
}

func (s spy) Abandon(r *brick.Record, done func(error)) {
	s.tell(r.Key, "abandon %v mask %x", r.Stamp(), r.Mask)
	s.Brick.Abandon(r, done)
}

func (s spy) AppendFill(r *brick.Record) error {
	s.tell(r.Key, "fill %v mask %x %s", r.Kind, r.Mask, first2(r))
	return s.Brick.AppendFill(r)
}

func (s spy) AddMissing(l placement.LinkID, b placement.Bucket, ms []brick.Mark, last placement.Stamp, done func(error)) {
	for _, m := range ms {
		s.tell(m.Key, "missing %x, last %v", m.Mask, last)
	}
	s.Brick.AddMissing(l, b, ms, last, done)
}

func (s spy) AddMarks(l placement.LinkID, who placement.Members, ms []brick.Mark, ver uint64, done func(error)) {
	for _, m := range ms {
		s.tell(m.Key, "mark %x for %b", m.Mask, who)
	}
	s.Brick.AddMarks(l, who, ms, ver, done)
}

// Read keeps what it has read until release, if it is to.
func (s spy) Read(op *brick.ReadOp) {
	if s.n.holds {
		done := op.Done
		op.Done = func(op *brick.ReadOp) {
			op.Done = done
			s.n.held = append(s.n.held, func() { done(op) })
		}
	}
	s.Brick.Read(op)
}

func (n *node) release() {
	n.holds = false
	held := n.held
	n.held = nil
	for _, f := range held {
		f()
	}
}
