package target

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/lun"
)

// Target is what is served under an iSCSI name.
type Target struct {
	Device *lun.Device
	Alias  string
	// ACL are the iSCSI names of the initiators that may log in; empty: all.
	ACL []string
	// CHAP is what initiators have to show; the zero CHAP is none.
	CHAP CHAP
	// Redirect, if set, is the portal (host:port) to which logins are sent
	// temporarily instead of being served here.
	Redirect string
}

// CHAP are the credentials of an initiator and, for mutual authentication, of
// the target.
type CHAP struct {
	User, Secret             string
	MutualUser, MutualSecret string
	// Algorithms that are allowed; all that there are if empty.
	Algorithms []login.Algorithm
}

func (c CHAP) login() *login.CHAP {
	if c.User == "" && c.Secret == "" {
		return nil
	}
	return &login.CHAP{User: c.User, Secret: c.Secret, MutualUser: c.MutualUser, MutualSecret: c.MutualSecret, Algorithms: c.Algorithms}
}

func (c CHAP) validate() error {
	if l := c.login(); l != nil {
		return l.Validate()
	}
	if c.MutualUser != "" || c.MutualSecret != "" {
		return errors.New("mutual CHAP without the initiator's user and secret would let everybody in")
	}
	return nil
}

// served is a Target with its names in normal form.
type served struct {
	Target
	name string
	acl  map[string]bool
	chap *login.CHAP
}

func (t *served) admits(initiator string) bool { return len(t.acl) == 0 || t.acl[initiator] }

// SetTarget serves t under name, or changes what is served under it. Sessions
// go on; those of initiators that the new ACL leaves out are ended.
func (s *Server) SetTarget(name string, t Target) error {
	if t.Device == nil {
		return errors.New("target without a device")
	}
	n, err := iscsi.NormalizeName(name)
	if err != nil {
		return err
	}
	if err := t.CHAP.validate(); err != nil {
		return fmt.Errorf("target %s: %w", n, err)
	}
	v := &served{Target: t, name: n, chap: t.CHAP.login(), acl: map[string]bool{}}
	for _, a := range t.ACL {
		i, err := iscsi.NormalizeName(a)
		if err != nil {
			return fmt.Errorf("target %s: access list: %w", n, err)
		}
		v.acl[i] = true
	}
	s.mu.Lock()
	s.targets[n] = v
	s.mu.Unlock()
	s.endSessions(func(e *entry) bool { return e.target == n && (!v.admits(e.initiator) || v.Device != e.device) }, errAccessLost)
	return nil
}

// RemoveTarget stops serving a target and ends its sessions. It returns when
// none of their commands can have an effect any more.
func (s *Server) RemoveTarget(name string) {
	n, err := iscsi.NormalizeName(name)
	if err != nil {
		return
	}
	s.mu.Lock()
	delete(s.targets, n)
	s.mu.Unlock()
	for _, e := range s.endSessions(func(e *entry) bool { return e.target == n }, errTargetRemoved) {
		<-e.gone
	}
}

// SetDiscovery sets what initiators have to show for discovery sessions.
func (s *Server) SetDiscovery(c CHAP) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discovery = c.login()
	return nil
}

// authority is login.Authority and login.Sessions for one connection: what an
// initiator may see depends on the portal that it came to.
type authority struct {
	server *Server
	portal *portal
	local  netip.AddrPort // of the connection
}

// Admit decides about a login by its names.
func (a *authority) Admit(initiator, name string) login.Admission {
	s := a.server
	s.mu.RLock()
	defer s.mu.RUnlock()
	ok := login.Admission{Status: iscsi.LoginSuccess, PortalGroup: a.portal.TPGT}
	if !s.serves() {
		return login.Admission{Status: iscsi.LoginUnavailable}
	}
	if name == "" {
		ok.CHAP = s.discovery
		return ok
	}
	t := s.targets[name]
	switch {
	case t == nil:
		return login.Admission{Status: iscsi.LoginNotFound}
	case !t.admits(initiator):
		return login.Admission{Status: iscsi.LoginForbidden}
	case t.Redirect != "":
		return login.Admission{Status: iscsi.LoginMovedTemporarily, Redirect: t.Redirect}
	}
	ok.CHAP, ok.Alias = t.chap, t.Alias
	return ok
}

// Targets are the targets that the initiator may log in to, by name, with the
// portals that it can reach.
func (a *authority) Targets(initiator string) []login.Target {
	s := a.server
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ts []login.Target
	for _, name := range slices.Sorted(maps.Keys(s.targets)) {
		if s.targets[name].admits(initiator) {
			ts = append(ts, login.Target{Name: name, Portals: a.addresses(initiator, name)})
		}
	}
	return ts
}

// Connection is login.Sessions: which connection the nexus has now.
func (a *authority) Connection(n login.Nexus, tsih uint16) (cid uint16, ok bool) {
	return a.server.sessions.connection(nexus{n, a.portal.TPGT}, tsih)
}

// NewTSIH is login.Sessions.
func (a *authority) NewTSIH() (uint16, bool) { return a.server.sessions.newTSIH() }
