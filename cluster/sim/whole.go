package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"petal/cluster"
	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/replica"
	"petal/cluster/slab"
	"petal/journal"
	"petal/placement"
)

// whole is a node as it is: package cluster, with Manual set.
type whole struct {
	s    *Sim
	m    *machine
	life *life
	pool *slab.Pool // of the transport
	node *cluster.Node
}

func (s *Sim) bootWhole(m *machine) (process, error) {
	w := &whole{s: s, m: m, life: m.life, pool: slab.New(poolBytes)}
	node, err := cluster.OpenWith(s.options(m), w.env())
	if err != nil {
		return nil, err
	}
	w.node = node
	node.OnLease(func(leased bool) {
		if !w.life.over && !leased { // its sessions end
			s.clientsOf(m)
		}
	})
	return w, nil
}

func (s *Sim) options(m *machine) cluster.Options {
	name := fmt.Sprintf("m%d", m.id)
	return cluster.Options{
		Name: name, ClusterName: "sim", CacheBytes: 256 << 10, MemoryBytes: poolBytes, Advertise: name, Times: s.times, Log: s.logger(m),
		AcceptLoss: m.blank, Bricks: []cluster.BrickOptions{{Path: "brick", Journal: s.cfg.JournalBytes, Segment: s.cfg.JournalBytes / 8, Capacity: s.cfg.BrickBytes / 2}},
	}
}

func (w *whole) env() cluster.Env {
	rng := rand.New(rand.NewPCG(w.m.rng.Uint64(), 3))
	return cluster.Env{
		FS: w.m.node.attach(w.life), Clock: &clock{&w.m.clock, w.life}, Wall: w.m.clock.realtime, Manual: true,
		Bricks: []cluster.BrickEnv{{FS: w.m.brick.attach(w.life), MapFS: mapFS{w.m.maps, w.m.mapFault}, Path: "brick"}},
		Rand: func(b []byte) {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		},
		Transport: func(self placement.Server, h cluster.Handler) (cluster.Transport, error) {
			if self != w.m.id {
				return nil, fmt.Errorf("sim: machine %d takes itself for %d", w.m.id, self)
			}
			w.m.ends = w.s.net.attach(w.m, w.life, self, w.pool, h)
			return transport{w.m.ends}, nil
		},
	}
}

// transport is an endpoint as package cluster wants it.
type transport struct{ *endpoint }

func (t transport) SetPeers(peers []cluster.Peer) {
	ids := make([]placement.Server, 0, len(peers))
	for _, p := range peers {
		ids = append(ids, p.Server)
	}
	t.setPeers(ids)
}

// join makes a machine a member, and writes into its directory what it has to
// know, as a join by token does.
func (s *Sim) join(first, m *machine) {
	if s.cfg.Bare {
		s.propose(first, &metapb.Command{Kind: &metapb.Command_Join{Join: &metapb.Join{
			Name: fmt.Sprintf("m%d", m.id), Release: meta.Release, Addresses: []string{fmt.Sprintf("m%d", m.id)},
		}}})
		return
	}
	name, ended := fmt.Sprintf("m%d", m.id), false
	first.proc.(*whole).node.Admit(cluster.JoinRequest{Name: name, Addresses: []string{name}, Release: meta.Release, Times: uint32(1000 * s.cfg.Scale)}, func(a cluster.JoinAnswer, err error) {
		ended = true
		if err == nil {
			err = cluster.Adopt(cluster.Env{FS: m.node.attach(&life{})}, a)
		}
		if err != nil {
			s.failf("machine %d can't join: %v", m.id, err)
		}
	})
	first.kick()
	if !s.until(10*time.Second, func() bool { return ended }) {
		s.failf("machine %d gets no answer to its join", m.id)
	}
}

func (w *whole) step() bool {
	switch err := w.node.Failed(); {
	case err != nil && w.m.ailing(): // its supervisor starts it again
		w.m.kill(err.Error())
		return false
	case err != nil && w.s.guests.out(w.m): // and its operator switches it off
		w.m.kill(err.Error())
		return false
	case err != nil && w.m.rotten && refusal(err):
		w.s.faults.giveUp(w.m, err)
		return false
	case err != nil:
		w.s.failf("machine %d: %v", w.m.id, err)
	case w.m.blank && w.node.Started():
		w.m.blank = false
		w.s.checkBlank(w.m, w.node.State())
	}
	return w.node.Step()
}

// refusal reports whether an error says that a start would serve what it should
// not, since the journal has rotted: then the operator has to take another disk.
func refusal(err error) bool {
	return errors.Is(err, meta.ErrInvalid) || errors.Is(err, brick.ErrRotten) || errors.Is(err, journal.ErrUnreadable)
}

func (w *whole) abandon() {
	w.node.Abandon()
	w.pool.Discard()
}

func (w *whole) started() bool               { return w.node.Started() }
func (w *whole) state() *meta.State          { return w.node.State() }
func (w *whole) links() []replica.LinkStatus { return w.node.Links() }

func (w *whole) propose(cmd *metapb.Command, done func(*meta.State, error)) {
	w.node.ProposeAsync(cmd, done)
}

func (w *whole) volume() volume {
	d := w.node.State().Disk(diskName)
	if d == nil || !w.node.Leased() {
		return nil
	}
	v, err := w.node.Volume(d.ID)
	if err != nil {
		return nil
	}
	return wholeVolume{w, v}
}

// wholeVolume is a Volume as clients want it.
type wholeVolume struct {
	w *whole
	v *cluster.Volume
}

// ended translates an error. What is final for an initiator must not happen.
func (v wholeVolume) ended(err error) error {
	var busy interface{ Busy() bool }
	var bad *cluster.MediumError
	switch {
	case v.w.life.over || err == nil:
		return err
	case errors.As(err, &busy) && busy.Busy():
		return errBusy
	case errors.As(err, &bad):
		v.w.s.failf("machine %d: an initiator is told %v", v.w.m.id, err)
	}
	return err
}

func (v wholeVolume) read(off uint64, n int, done func([]byte, error)) {
	v.v.Read(off, n, func(vec [][]byte, loan any, err error) {
		var p []byte
		for _, b := range vec {
			p = append(p, b...)
		}
		if loan != nil {
			v.v.Release(loan)
		}
		if !v.w.life.over {
			done(p, v.ended(err))
		}
	})
}

func (v wholeVolume) write(off uint64, p []byte, done func(error)) {
	vec, loan, err := v.v.Reserve(off, len(p))
	if err != nil {
		done(err)
		return
	}
	for _, b := range vec {
		p = p[copy(b, p):]
	}
	v.v.Write(loan, false, func(err error) { v.tell(err, done) })
}

func (v wholeVolume) tell(err error, done func(error)) {
	if !v.w.life.over {
		done(v.ended(err))
	}
}

func (v wholeVolume) zero(off, n uint64, done func(error)) {
	v.v.Zero(off, n, false, func(err error) { v.tell(err, done) })
}

func (v wholeVolume) compareAndWrite(off uint64, compare, p []byte, done func(int, error)) {
	v.v.CompareAndWrite(off, compare, p, func(at int, err error) {
		v.tell(err, func(err error) { done(at, err) })
	})
}
