package target

import (
	"errors"
	"net"
)

// errSuspended ends the sessions of a node that may not serve.
var errSuspended = errors.New("this node may not serve the disks now; others may")

// serves reports whether logins are taken. The caller holds mu.
func (s *Server) serves() bool { return s.state == serving && !s.suspended }

func (s *Server) isSuspended() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.suspended
}

// Suspend closes all portals and drops all connections, without a word to the
// initiators: they are to try another node, and whatever this one said might be
// false. It does not wait for commands that are with their disks; those are
// answered to nobody. Portals that are added later are not opened before
// Resume. Safe to call again.
func (s *Server) Suspend() {
	s.mu.Lock()
	s.suspended = true
	var open []net.Listener
	for _, p := range s.portals {
		if p.listener != nil {
			open = append(open, p.listener)
			p.listener = nil
		}
	}
	s.mu.Unlock()
	for _, l := range open {
		l.Close()
	}
	s.halfOpen.closeAll()
	s.endSessions(func(*entry) bool { return true }, errSuspended)
}

// Resume opens the portals again at the addresses that they had. Those that
// can't be opened now are named by the error, and Resume is to be called again;
// the others serve. Safe to call when nothing was suspended.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != serving {
		return nil
	}
	s.suspended = false
	var all []error
	for _, p := range s.portals {
		if p.listener != nil {
			continue
		}
		l, err := net.Listen("tcp", p.bound)
		if p.err = err; err != nil {
			all = append(all, err)
			continue
		}
		s.open(p, l)
	}
	return errors.Join(all...)
}

// open accepts connections for a portal. The caller holds mu.
func (s *Server) open(p *portal, l net.Listener) {
	p.listener = l
	s.busy.Add(1)
	go s.accept(p, l)
}

// PortalInfo tells of a portal.
type PortalInfo struct {
	Address   string // where it listens, or would
	TPGT      uint16
	Listening bool
	Err       error // why it could not be opened; nil also while suspended
}

// Portals tells of this node's portals, in the order in which they were added.
func (s *Server) Portals() []PortalInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]PortalInfo, len(s.portals))
	for i, p := range s.portals {
		out[i] = PortalInfo{Address: p.bound, TPGT: p.TPGT, Listening: p.listener != nil, Err: p.err}
	}
	return out
}
