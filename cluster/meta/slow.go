package meta

import (
	"slices"
	"time"

	"petal/placement"
)

// slowness is what a leader knows of servers that are far slower than the others
// (DESIGN A.2). A mirrored write takes as long as its slower copy, so one tired
// disk slows everybody down. Such a server rests: it gets no lease for a while,
// and so leaves its links by the usual way (R6); then it may come back, and is
// copied what it missed.
//
// That costs redundancy for so long, so much is asked for it: two voices, of
// those who replicate to it and itself; nobody else is called slow, for then it
// is the load; all its links have another member that is alive, in sync and
// complete; and no other has had to rest lately.
type slowness struct {
	complaints []complaint
	resting    placement.Server
	until      time.Duration
	next       time.Duration            // nobody has to rest before that
	times      map[placement.Server]int // each time it rests longer
	out        map[outOf]time.Duration  // members that live and are not in sync, and since when
}

// outOf is a member that is out of a link.
type outOf struct {
	link   placement.LinkID
	member placement.Member
}

// hear notes a complaint.
func (s *slowness) hear(c complaint) {
	s.complaints = slices.DeleteFunc(s.complaints, func(o complaint) bool { return o.by == c.by && o.on == c.on })
	if len(s.complaints) < maxComplaints {
		s.complaints = append(s.complaints, c)
	}
}

// victim returns the one server that is called slow by two, 0 if there is none.
func (s *slowness) victim() placement.Server {
	voices := 0
	for _, c := range s.complaints {
		if c.on != s.complaints[0].on {
			return 0
		}
		voices++ // hear keeps one of each
	}
	if voices < 2 {
		return 0
	}
	return s.complaints[0].on
}

// called reports whether one server calls another slow.
func (s *slowness) called(by, on placement.Server) bool {
	return slices.ContainsFunc(s.complaints, func(c complaint) bool { return c.by == by && c.on == on })
}

// hearOut counts the silence of those who lead links without a member that lives.
// A disk that is slow enough seems to stand still at times: its server is fenced
// and stays out, and nobody is left who could tell how slow it is, but itself. So
// one that calls itself slow, and has long been out of a link, is called slow by
// who leads that link.
func (g *Group) hearOut() {
	s, now := &g.leader.slow, g.now()
	out := map[outOf]time.Duration{}
	for _, id := range g.view.Links() {
		l, servers := g.view.LinkInfo(id), g.view.LinkServers(id)
		for i, srv := range servers {
			m := placement.Member(i)
			if l.InSync.Has(m) || !g.live(srv) {
				continue
			}
			key := outOf{id, m}
			since, known := s.out[key]
			if !known {
				since = now
			}
			out[key] = since
			if head := servers[l.Head]; now-since >= slowWindow*g.cfg.Times.Complain && g.live(head) && s.called(srv, srv) {
				s.hear(complaint{link: id, ver: l.Ver, from: l.Head, about: m, by: head, on: srv, at: now})
			}
		}
	}
	s.out = out
}

// rests reports whether a server gets no lease because it is slow.
func (g *Group) rests(id placement.Server) bool {
	s := &g.leader.slow
	return s.resting == id && id != 0 && g.now() < s.until
}

// slowWindow is how many times Times.Complain a word of slowness counts; as long as
// it is true it is said again sooner.
const slowWindow = 8

// tickSlow lets a slow server rest. A new leader does not know when that was last
// done, and waits.
func (g *Group) tickSlow() {
	s, now, t := &g.leader.slow, g.now(), &g.cfg.Times
	s.complaints = slices.DeleteFunc(s.complaints, func(c complaint) bool { return now-c.at > slowWindow*t.Complain })
	if s.next == 0 {
		s.next = g.leader.elected + 2*t.Replace
	}
	g.hearOut()
	id := s.victim()
	if id == 0 || now < s.next || !g.spare(id) {
		return
	}
	if id == g.cfg.Self {
		g.handOver() // who leads cannot withhold its own lease; the next one may
		return
	}
	if s.times == nil {
		s.times = map[placement.Server]int{}
	}
	rest := t.Replace / 2 << min(s.times[id], 4)
	s.times[id]++
	s.resting, s.until, s.next, s.complaints = id, now+rest, now+rest+2*t.Replace, nil
	g.cfg.Log.Warn("a server is far slower than the others: it gets no lease for a while", "server", id, "for", rest)
}

// spare reports whether all that a server has is complete on others that live.
func (g *Group) spare(id placement.Server) bool {
	if !g.live(id) {
		return false
	}
	for _, l := range g.view.LinksOf(id) {
		info, other := g.view.LinkInfo(l), false
		for m, srv := range g.view.LinkServers(l) {
			m := placement.Member(m)
			other = other || srv != id && info.InSync.Has(m) && !info.Filling.Has(m) && g.live(srv)
		}
		if !other {
			return false
		}
	}
	return true
}
