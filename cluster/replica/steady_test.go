package replica

import (
	"petal/cluster/brick"
	"petal/placement"
)

// steady is a store that takes every record and finds zeros.
type steady struct {
	Store
	last *brick.Record
}

func (s *steady) Append(r *brick.Record) error { s.last = r; return nil }
func (s *steady) Commit(*brick.Record)         {}
func (s *steady) Read(op *brick.ReadOp)        { op.Err = nil; op.Done(op) }
func (s *steady) Conflict(placement.Family, []placement.Node, placement.Chunk, placement.Mask) bool {
	return false
}

// durable ends the record that was taken last.
func (s *steady) durable() { r := s.last; s.last = nil; r.Done(r, nil) }
