package sim

import (
	"errors"
	"fmt"
	"time"

	"petal/cluster"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/placement"
)

// Machines that come and go while clients work: they join by the word of any
// member, vote perhaps, serve the clients that find them, may get links of the
// disks that come and go (Churn), and are removed again, dead or alive. None of
// it may harm anybody.
//
//	nobody --Join--> member --start--> serves --Leave--> leaving --> gone
//	         |  ^                                          for a while it does not
//	         +--+ no answer: the same again                know, and goes on
type membership struct {
	s       *Sim
	joining *machine // asks to be let in; nil: none
	newest  uint64   // index of the newest state that was seen
}

// mostJoins bounds how many machines join in a run.
const mostJoins = 4

// one lets somebody join or leave.
func (n *membership) one(over bool) {
	rng := n.s.faults.rng
	n.look()
	var guests []*machine
	for _, m := range n.s.machines[n.s.cfg.Machines:] {
		if !m.leaving {
			guests = append(guests, m)
		}
	}
	switch {
	case len(guests) > 0 && rng.IntN(2) == 0:
		n.remove(guests[rng.IntN(len(guests))])
	case n.joining == nil && !over && len(n.s.machines) < n.s.cfg.Machines+mostJoins:
		n.s.report.Counts.Joins++
		n.joining = newMachine(n.s, placement.Server(len(n.s.machines)+1))
		n.join()
	}
}

// join asks some member to let the machine in, until one has done it: after no
// answer nobody knows whether it is a member, and it has to ask again.
func (n *membership) join() {
	s, m := n.s, n.joining
	via := s.reachAny(s.faults.rng)
	if via == nil {
		s.e.after(s.scaled(200*time.Millisecond), nil, nil, n.join)
		return
	}
	name, over := fmt.Sprintf("m%d", m.id), false
	s.tracef("operator: %d joins through %d", m.id, via.id)
	ended := func(a cluster.JoinAnswer, err error) {
		if over {
			return
		}
		over = true
		if err == nil {
			err = cluster.Adopt(cluster.Env{FS: m.node.attach(&life{})}, a)
		}
		s.tracef("operator: %d joins through %d: %v", m.id, via.id, err)
		switch {
		case err != nil:
			s.e.after(s.scaled(200*time.Millisecond), nil, nil, n.join)
		case a.Server != m.id:
			s.failf("machine %d has joined as server %d", m.id, a.Server)
		default:
			n.joining = nil
			s.machines = append(s.machines, m)
			s.e.after(between(m.rng, 0, s.scaled(300*time.Millisecond)), nil, nil, m.start)
		}
	}
	via.proc.(*whole).node.Admit(cluster.JoinRequest{Name: name, Addresses: []string{name}, Release: meta.Release, Times: uint32(1000 * s.cfg.Scale)}, ended)
	via.kick()
	s.e.after(s.scaled(4*time.Second), nil, nil, func() { ended(cluster.JoinAnswer{}, errors.New("no answer")) })
}

// remove asks some member to take a machine out. That is refused while it holds
// copies of a disk.
func (n *membership) remove(m *machine) {
	if via := n.s.reachAny(n.s.faults.rng); via != nil {
		n.s.report.Counts.Leaves++
		n.s.command(via, &metapb.Command{Kind: &metapb.Command_Leave{Leave: &metapb.Leave{Name: fmt.Sprintf("m%d", m.id)}}})
	}
}

// watch notes who is a member no more. Such a machine goes on for a while: nobody
// has told it.
func (n *membership) watch() {
	n.look()
	n.s.e.after(n.s.scaled(100*time.Millisecond), nil, nil, n.watch)
}

func (n *membership) look() {
	s := n.s
	st := s.state()
	if st == nil || st.Index() < n.newest {
		return // all who know more are down
	}
	n.newest = st.Index()
	for _, m := range s.machines[s.cfg.Machines:] {
		srv := st.Server(m.id)
		m.member = m.member || srv != nil
		m.leaving = m.member && (srv == nil || srv.Leaving)
		if m.leaving && srv == nil && !m.gone {
			m.gone = true
			s.tracef("operator: %d is no member any more", m.id)
			s.e.after(s.faults.long(), nil, nil, func() { m.end("nobody needs it", 0, 5*time.Millisecond) })
		}
	}
}

// out reports whether a machine is no member any more, or about to be none.
func (n *membership) out(m *machine) bool {
	n.look()
	return m.leaving
}

// settled reports whether nobody is on the way in or out.
func (n *membership) settled() bool {
	if n.joining != nil {
		return false
	}
	for _, m := range n.s.machines[n.s.cfg.Machines:] {
		if m.leaving && (!m.gone || m.alive()) {
			return false
		}
	}
	return true
}

// members are the machines that are of the cluster still.
func (s *Sim) members() (out []*machine) {
	for _, m := range s.machines {
		if !m.gone {
			out = append(out, m)
		}
	}
	return out
}
