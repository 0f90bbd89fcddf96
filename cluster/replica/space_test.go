package replica

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/wire"
	"petal/placement"
)

// stubborn is a brick that takes no record while it has a reason.
type stubborn struct {
	spy
	err error
}

func (d *stubborn) Append(r *brick.Record) error {
	if d.err != nil {
		return d.err
	}
	return d.spy.Append(r)
}

// TestNoSpaceAtTheHead: a write for which the head has no space fails with just that,
// and changes nothing anywhere. It is no failed disk: the head stays, and what comes
// when there is space is written.
func TestNoSpaceAtTheHead(t *testing.T) {
	w := newWorld(t, 9, 2, placement.Mirror)
	w.opened()
	c := w.chunkOf(0, 0)
	h := w.head(c)
	h.stop(true)
	var d *stubborn
	h.startOn(func(s spy) Store { d = &stubborn{spy: s}; return d })
	w.healed()
	h = w.head(c)
	w.ok(w.write(h, c, 0, pattern(1, 4096)))
	for _, x := range []struct {
		err  error
		want wire.Status
	}{{syscall.ENOSPC, wire.NoSpace}, {syscall.EINVAL, wire.Invalid}, {syscall.EIO, wire.Failed}} {
		d.err = x.err
		got := w.write(h, c, 0, pattern(2, 4096))
		w.done(got)
		if got.Status != x.want {
			t.Errorf("%v ends a write with %v, want %v", x.err, got.Status, x.want)
		}
	}
	w.run(5 * time.Second)
	if slices.ContainsFunc(w.asked, func(p Proposal) bool { return p.Kind == Complain }) || h.status(link10).Full || w.head(c) != h {
		t.Errorf("the head does not go on: %+v", h.status(link10))
	}
	d.err = nil
	w.want(h, c, 0, pattern(1, 4096))
	w.ok(w.write(h, c, 0, pattern(3, 4096)))
	w.want(h, c, 0, pattern(3, 4096))
	w.run(20 * time.Millisecond)
	w.same()
}
