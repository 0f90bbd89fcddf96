package appliance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"petal/appliance/api"
	"petal/cluster/meta"
	"petal/placement"
)

// linkView is a link of one disk as its health is judged by.
type linkView struct {
	id       placement.LinkID
	buckets  int // of the disk, of placement.Buckets
	degraded time.Time
	members  []memberView
}

type memberView struct {
	name    string
	down    time.Time // zero: up
	inSync  bool
	filling bool      // in sync, but misses blocks
	blank   bool      // has nothing that counts
	failed  time.Time // its brick has; zero: it has not
}

// up reports whether the member answers for its copy.
func (m memberView) up() bool { return m.down.IsZero() && m.failed.IsZero() }

// whole reports whether the member has every acknowledged write in its own place.
func (m memberView) whole() bool { return m.inSync && !m.filling }

func (l *linkView) has(name string) bool {
	return slices.ContainsFunc(l.members, func(m memberView) bool { return m.name == name })
}

// serving reports whether all of the link is served if the node called without
// fails (empty: as it is).
func (l *linkView) serving(without string) bool {
	if slices.ContainsFunc(l.members, func(m memberView) bool { return m.up() && m.name != without && m.whole() }) {
		return true
	}
	if _, gone := l.stranded(); without != "" || len(gone) > 0 {
		return false
	}
	// Who misses blocks gets them from another, or nobody has them any more.
	return slices.ContainsFunc(l.members, func(m memberView) bool { return m.up() && m.inSync })
}

// stranded is the only member in sync, if it still misses blocks, and those out of
// sync that may have them. Until one of these is back, nobody serves them.
func (l *linkView) stranded() (who string, gone []string) {
	for _, m := range l.members {
		switch {
		case m.inSync && m.filling && who == "":
			who = m.name
		case m.inSync:
			return "", nil
		case !m.blank:
			gone = append(gone, m.name)
		}
	}
	if who == "" || len(gone) == 0 {
		return "", nil
	}
	return who, gone
}

// copied reports whether somebody is up from whom others can copy what they missed.
func (l *linkView) copied() bool {
	return slices.ContainsFunc(l.members, func(m memberView) bool { return m.inSync && m.up() })
}

// viewLinks are the links that hold a disk.
func viewLinks(s *meta.State, gmap uint32) []linkView {
	g := s.GMap(gmap)
	if g == nil {
		return nil
	}
	views := make([]linkView, len(g.Ring))
	for b := range g.Table {
		views[g.Table[b]].buckets++
	}
	for p := range views {
		v := &views[p]
		v.id = placement.LinkID{GMap: g.ID, Position: uint32(p)}
		l := s.LinkInfo(v.id)
		v.degraded = l.Degraded
		for i, id := range s.LinkServers(v.id) {
			m := placement.Member(i)
			view := memberView{name: s.NameOf(id), inSync: l.InSync.Has(m), filling: l.Filling.Has(m), blank: l.Blank.Has(m)}
			if srv := s.Server(id); srv != nil {
				view.down, view.failed = srv.Down, srv.Failed
			}
			v.members = append(v.members, view)
		}
	}
	return slices.DeleteFunc(views, func(v linkView) bool { return v.buckets == 0 })
}

// judge works out a disk's health from its links.
func judge(links []linkView) api.Health {
	h := api.Health{State: "healthy", Served: 100}
	lost := 0
	for i := range links {
		l := &links[i]
		since := l.degraded
		for _, m := range l.members {
			if !m.whole() || !m.up() {
				h.State = worse(h.State, "degraded")
				since = earlier(earlier(since, m.down), m.failed)
			}
		}
		if !l.serving("") {
			h.State = worse(h.State, "unavailable")
			lost += l.buckets
		}
		if !since.IsZero() && (h.Since == nil || since.Before(*h.Since)) {
			h.Since = &since
		}
	}
	h.Served = 100 - percent(lost)
	h.Why, h.Fix = reasons(links)
	h.Risks = risks(links)
	return h
}

// known makes no more of a disk's health than a node can know: without quorum it
// has only its memory.
func known(h api.Health, quorum bool) api.Health {
	if quorum {
		return h
	}
	why := "this node hears from no majority of the voters, and does not know how the disk is; when it last did, it was " + h.State
	return api.Health{State: "unknown", Served: h.Served, Since: h.Since, Why: append([]string{why}, h.Why...), Fix: []string{"ask another node; `petal status` says what this one lacks"}}
}

func worse(a, b string) string {
	if a == "unavailable" {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// percent is the share of so many buckets, at least 1 if there are any.
func percent(buckets int) int {
	if buckets == 0 {
		return 0
	}
	return max(1, (buckets*100+placement.Buckets/2)/placement.Buckets)
}

// reasons says what is wrong with the links, and what mends it.
func reasons(links []linkView) (why, fix []string) {
	say := func(list *[]string, format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	for i := range links {
		l := &links[i]
		for _, m := range l.members {
			switch {
			case !m.down.IsZero():
				say(&why, "%s is down, or cut off from the others, since %s", m.name, m.down.Local().Format(time.DateTime))
				say(&fix, "start %s again, or mend the network to it: it then copies by itself what it has missed", m.name)
			case !m.failed.IsZero():
				say(&why, "the brick of %s has failed, since %s: %s is up, and serves nothing of it", m.name, m.failed.Local().Format(time.DateTime), m.name)
				say(&fix, "see `petal status` on %s: if its disk is well again, restart %s; if it is lost, mount an empty one in its place and start %s with `petal serve --accept-loss`", m.name, m.name, m.name)
			case !m.inSync && !l.copied():
				say(&why, "%s is up and has missed writes of link %v, and nobody is up who has them", m.name, l.id)
			case !m.inSync:
				say(&why, "%s is up and has missed writes", m.name)
				say(&fix, "wait: %s is about to catch up; if it does not, `petal status` on %s says why, or its log that its disk takes too long to be waited for", m.name, m.name)
			case m.filling && l.serving(""):
				say(&why, "%s is copying what it has missed", m.name)
				say(&fix, "wait: `petal status` on %s shows how far it is", m.name)
			}
		}
		if l.serving("") {
			continue
		}
		since := l.degraded.Local().Format(time.DateTime)
		if who, gone := l.stranded(); who != "" && !l.copied() {
			say(&why, "link %v, %d %% of the disk, is served by nobody: %s the writes since %s, and what %s had not copied before is at %s", l.id, percent(l.buckets),
				onlyHave([]string{who}), since, who, strings.Join(gone, " or "))
			say(&fix, "all of link %v is served again when %s is up, and %s: they complete each other", l.id, who, strings.Join(gone, " or "))
			say(&fix, "as the last resort, if %s never comes back: `petal link force %v --node %s --accept-loss` loses the writes since %s, and, if %s was still copying then, what it had not copied", who, l.id, gone[0], since, gone[0])
			continue
		} else if who != "" {
			say(&why, "what %s has not copied yet of link %v is served by nobody: %s it", who, l.id, onlyHave(gone))
			say(&fix, "all of link %v is served again when %s is up and in sync", l.id, strings.Join(gone, " or "))
			say(&fix, "as the last resort, if %s never comes back: `petal link force %v --node %s --accept-loss` gives up what %s has not copied", strings.Join(gone, " and "), l.id, who, who)
			continue
		}
		var have, lack []string
		for _, m := range l.members {
			switch {
			case m.inSync:
				have = append(have, m.name)
			case !m.blank:
				lack = append(lack, m.name)
			}
		}
		say(&why, "nobody who is up has all of link %v, %d %% of the disk: %s", l.id, percent(l.buckets), onlyHave(have))
		say(&fix, "link %v is served again as soon as %s is up", l.id, strings.Join(have, " or "))
		if len(lack) > 0 {
			say(&fix, "as the last resort, if %s never comes back: `petal link force %v --node %s --accept-loss` loses the writes since %s, and, if %s was still copying then, what it had not copied", strings.Join(have, " and "), l.id, lack[0], since, lack[0])
		} else {
			say(&fix, "if %s never comes back, all of link %v is lost: nobody else has anything of it that counts", strings.Join(have, " and "), l.id)
		}
	}
	return why, fix
}

func onlyHave(names []string) string {
	if len(names) == 1 {
		return "only " + names[0] + " has"
	}
	return "only " + strings.Join(names, " and ") + " have"
}

// risks are the nodes whose failure would now take something away that is
// served. A disk of one copy has them always.
func risks(links []linkView) (out []api.Risk) {
	names := map[string]bool{}
	for i := range links {
		for _, m := range links[i].members {
			names[m.name] = m.up()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !names[name] {
			continue // it has failed already
		}
		gone, lost := 0, false
		for i := range links {
			l := &links[i]
			if !l.has(name) || !l.serving("") || l.serving(name) {
				continue
			}
			gone += l.buckets
			lost = lost || !slices.ContainsFunc(l.members, func(m memberView) bool { return m.name != name && m.whole() })
		}
		if gone > 0 {
			out = append(out, api.Risk{Node: name, Percent: percent(gone), Lost: lost})
		}
	}
	return out
}
