package target

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"petal/target/login"
	"petal/target/lun"
	"petal/target/session"
)

// nexus identifies a session among all: initiator port and target port, the
// latter being the target's name and the portal group (RFC 7143, section
// 4.4.3.1). A new login of the same nexus reinstates the session.
type nexus struct {
	login.Nexus
	TPGT uint16
}

// entry is a session in the registry.
type entry struct {
	nexus     nexus
	tsih, cid uint16
	initiator string
	target    string // empty: discovery
	source    netip.Addr
	device    *lun.Device
	session   *session.Session
	info      SessionInfo
	gone      chan struct{} // closed when it is out of the registry
}

// registry holds the sessions of a server. Safe for concurrent use.
type registry struct {
	mu      sync.Mutex
	byTSIH  map[uint16]*entry // nil entry: given to a login under way
	byNexus map[nexus]*entry
	last    uint16
	// discovery are the discovery sessions, oldest first.
	discovery []*entry
}

func (r *registry) init() {
	r.byTSIH, r.byNexus = map[uint16]*entry{}, map[nexus]*entry{}
}

// connection returns the CID of the nexus' session.
func (r *registry) connection(n nexus, tsih uint16) (cid uint16, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byNexus[n]
	if e == nil || tsih != 0 && e.tsih != tsih {
		return 0, false
	}
	return e.cid, true
}

// newTSIH gives out a TSIH. It is taken until add, or else freeTSIH.
func (r *registry) newTSIH() (uint16, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.byTSIH) >= maxSessions {
		return 0, false
	}
	for {
		r.last++
		if _, taken := r.byTSIH[r.last]; !taken && r.last != 0 {
			r.byTSIH[r.last] = nil
			return r.last, true
		}
	}
}

func (r *registry) freeTSIH(tsih uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byTSIH, tsih)
}

// add enters e. A session of the same nexus is ended first and waited for
// (section 6.3.5); add reports false if that took too long, and e is not
// entered.
func (r *registry) add(e *entry) bool {
	limit := time.NewTimer(reinstateTimeout)
	defer limit.Stop()
	for {
		r.mu.Lock()
		old := r.byNexus[e.nexus]
		if old == nil {
			r.byTSIH[e.tsih], r.byNexus[e.nexus] = e, e
			crowding := r.crowding(e)
			r.mu.Unlock()
			if crowding != nil {
				crowding.session.Close(errCrowded)
			}
			return true
		}
		r.mu.Unlock()
		old.session.Close(errReinstated)
		select {
		case <-old.gone:
		case <-limit.C:
			return false
		}
	}
}

// crowding counts e in if it is a discovery session, and returns the one that
// has to go for it, if there are too many.
func (r *registry) crowding(e *entry) *entry {
	if e.target != "" {
		return nil
	}
	r.discovery = append(r.discovery, e)
	if len(r.discovery) <= maxDiscovery {
		return nil
	}
	count := map[netip.Addr]int{}
	for _, o := range r.discovery {
		count[o.source]++
	}
	most := 0
	for _, n := range count {
		most = max(most, n)
	}
	i := slices.IndexFunc(r.discovery, func(o *entry) bool { return count[o.source] == most })
	out := r.discovery[i]
	r.discovery = slices.Delete(r.discovery, i, i+1)
	return out
}

// remove takes e out, after its session has ended.
func (r *registry) remove(e *entry) {
	r.mu.Lock()
	delete(r.byTSIH, e.tsih)
	delete(r.byNexus, e.nexus)
	r.discovery = slices.DeleteFunc(r.discovery, func(o *entry) bool { return o == e })
	r.mu.Unlock()
	close(e.gone)
}

// all returns the sessions that match.
func (r *registry) all(match func(*entry) bool) []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var es []*entry
	for _, e := range r.byTSIH {
		if e != nil && match(e) {
			es = append(es, e)
		}
	}
	return es
}
