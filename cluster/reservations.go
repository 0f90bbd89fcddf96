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

// Load returns the present value, as far as it is known here, and its version.
func (r *Reservations) Load() ([]byte, uint64) {
	v := r.node.State().Reservation(r.disk)
	return v.Value, v.Version
}

// Sync calls done when Load gives whatever was agreed on before the call,
// through any node; or with the reason why it can't be known.
func (r *Reservations) Sync(done func(error)) {
	r.node.group.ReadIndexAsync(func(_ *meta.State, err error) { done(err) })
}

// Store replaces the value if its version still is version. It is durable, and
// known here, on return. With revokes, no command that was admitted under an
// older value anywhere can take effect any more either: the members of the
// disk's links refuse what is of an older vver, and what they had admitted is
// committed (DESIGN B). If that can't be made certain in time, the error is
// ErrBarrier; the value has been replaced all the same.
func (r *Reservations) Store(ctx context.Context, value []byte, version uint64, revokes bool) error {
	done := make(chan error, 1)
	r.StoreAsync(value, version, revokes, func(err error) { done <- err })
	return wait(ctx, done)
}

// StoreAsync is Store for who must not wait.
func (r *Reservations) StoreAsync(value []byte, version uint64, revokes bool, done func(error)) {
	r.node.ProposeAsync(command(&metapb.SwapReservation{Disk: r.disk[:], Version: version, Value: value, Revokes: revokes}), func(s *meta.State, err error) {
		if err != nil || !revokes {
			done(err)
			return
		}
		r.node.fence(s, r.disk, done)
	})
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

// Reset makes certain that no command takes effect any more that any node has
// admitted to the disk before the call, but for those that are done: what a
// LOGICAL UNIT RESET asks for.
func (n *Node) Reset(ctx context.Context, disk meta.ID) error {
	done := make(chan error, 1)
	n.ResetAsync(disk, func(err error) { done <- err })
	return wait(ctx, done)
}

// ResetAsync is Reset for who must not wait.
func (n *Node) ResetAsync(disk meta.ID, done func(error)) {
	n.ProposeAsync(command(&metapb.BumpVVer{Disk: disk[:]}), func(s *meta.State, err error) {
		if err != nil {
			done(err)
			return
		}
		n.fence(s, disk, done)
	})
}

// wait waits for a result.
func wait(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
