package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/placement"
)

// What initiators and operators do to a disk while others use it. None of it may
// harm anybody; the first makes a promise that is checked.

// revokeAlways does so again and again: only what is under way at the very moment
// can break the promise.
func (s *Sim) revokeAlways(rng *rand.Rand, until time.Duration) {
	if s.e.now >= until || s.failed() {
		return
	}
	s.revoke(rng)
	s.e.after(between(rng, 0, s.scaled(time.Second)), nil, nil, func() { s.revokeAlways(rng, until) })
}

// revoke does what PERSISTENT RESERVE OUT with PREEMPT does, or a LOGICAL UNIT
// RESET: when it has been answered, nothing that was admitted before takes effect
// any more that had not (DESIGN B).
func (s *Sim) revoke(rng *rand.Rand) {
	m := s.reachAny(rng)
	if m == nil {
		return
	}
	w, ok := m.proc.(*whole)
	d := m.proc.state().Disk(diskName)
	if !ok || d == nil {
		return
	}
	vver := d.VVer // the barrier's is greater
	s.tracef("revoke: through %d, what is of vver %d", m.id, vver)
	done := func(err error) {
		if w.life.over {
			return
		}
		s.tracef("revoke: through %d, what is of vver %d: %v", m.id, vver, err)
		if err == nil {
			s.report.Counts.Barriers++
			s.history.fence(vver)
		}
	}
	if rng.IntN(2) == 0 {
		w.node.ResetAsync(d.ID, done)
	} else {
		r := w.node.Reservations(d.ID)
		_, version := r.Load()
		r.StoreAsync([]byte(fmt.Sprint("held through ", m.id)), version, true, done)
	}
	m.kick()
}

// resize makes the disk twice as large, or small again.
func (s *Sim) resize(rng *rand.Rand) {
	m := s.reachAny(rng)
	if m == nil {
		return
	}
	d := m.proc.state().Disk(diskName)
	size := uint64(diskChunks * placement.ChunkSize)
	if d.Size == size {
		size *= 2
	}
	s.report.Counts.Resizes++
	s.command(m, &metapb.Command{Kind: &metapb.Command_UpdateDisk{UpdateDisk: &metapb.UpdateDisk{Name: diskName, Size: &size, AllowShrink: true}}})
}

// churn makes another disk, or deletes it.
func (s *Sim) churn(rng *rand.Rand) {
	m := s.reachAny(rng)
	if m == nil {
		return
	}
	const name = "other"
	s.report.Counts.Churns++
	if m.proc.state().Disk(name) != nil {
		s.command(m, &metapb.Command{Kind: &metapb.Command_DeleteDisk{DeleteDisk: &metapb.DeleteDisk{Name: name}}})
		return
	}
	id := [16]byte{2}
	for i := range 4 {
		id[4+i] = byte(rng.Uint32())
	}
	s.command(m, &metapb.Command{Kind: &metapb.Command_CreateDisk{CreateDisk: &metapb.CreateDisk{
		Id: id[:], Name: name, Size: diskChunks * placement.ChunkSize, BlockSize: placement.BlockSize, Scheme: s.scheme.String(),
	}}})
}

// command proposes what may be refused: somebody else may have been faster.
func (s *Sim) command(m *machine, cmd *metapb.Command) {
	s.tracef("operator: through %d: %T", m.id, cmd.Kind)
	m.proc.propose(cmd, func(_ *meta.State, err error) { s.tracef("operator: %T: %v", cmd.Kind, err) })
	m.kick()
}
