package cluster

import (
	"context"
	"sync/atomic"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
)

// Reservations keeps one disk's reservation value in the agreed state. It
// satisfies lun.Reservations; package appliance asserts so.
type Reservations struct {
	node    *Node
	disk    meta.ID
	watcher atomic.Pointer[func()]
	version atomic.Uint64 // of the value that the watcher was last told of
}

// Load returns the present value and its version.
func (r *Reservations) Load() ([]byte, uint64) {
	v := r.node.State().Reservation(r.disk)
	return v.Value, v.Version
}

// Store replaces the value if its version still is version. It is durable on
// return. On one node a new value takes effect with the return of the command
// that set it, since every command looks at the present value when it is
// admitted; revokes needs no more than that here.
func (r *Reservations) Store(ctx context.Context, value []byte, version uint64, revokes bool) error {
	_, err := r.node.propose(ctx, &metapb.Command{Kind: &metapb.Command_SwapReservation{
		SwapReservation: &metapb.SwapReservation{Disk: r.disk[:], Version: version, Value: value, Revokes: revokes}}})
	return err
}

// Watch registers f to be called after every change.
func (r *Reservations) Watch(f func()) {
	if f == nil {
		r.watcher.Store(nil)
		return
	}
	r.watcher.Store(&f)
}

// changed tells the watcher if the value has moved.
func (r *Reservations) changed(s *meta.State) {
	now := s.Reservation(r.disk).Version
	if r.version.Swap(now) == now {
		return
	}
	if f := r.watcher.Load(); f != nil {
		(*f)()
	}
}
