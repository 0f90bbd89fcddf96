package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"petal/appliance/api"
	"petal/placement"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.Local)

// ring is a mirrored disk on n nodes; change adapts member m of link p.
func ring(n, copies int, change func(p int, node int, m *memberView)) []linkView {
	var links []linkView
	for p := range n {
		l := linkView{id: placement.LinkID{GMap: 1, Position: uint32(p)}, buckets: placement.Buckets / n}
		for i := range copies {
			node := (p+i)%n + 1
			m := memberView{name: fmt.Sprintf("n%d", node), inSync: true}
			if change != nil {
				change(p, node, &m)
			}
			l.members = append(l.members, m)
		}
		links = append(links, l)
	}
	return links
}

func TestHealth(t *testing.T) {
	down := func(nodes ...int) func(int, int, *memberView) {
		return func(p, node int, m *memberView) {
			for _, d := range nodes {
				if node == d {
					m.down, m.inSync = noon, false
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		links  []linkView
		state  string
		served int
		why    string
		fix    string
		risks  string
	}{
		{"well", ring(4, 2, nil), "healthy", 100, "", "", ""},
		{"one copy", ring(4, 1, nil), "healthy", 100, "", "", "n1 25 lost; n2 25 lost; n3 25 lost; n4 25 lost"},
		{"one node down", ring(4, 2, down(3)), "degraded", 100, "n3 is down, or cut off from the others, since 2026-11-21 12:00:00", "start n3 again", "n2 25 lost; n4 25 lost"},
		{"two that are no neighbours", ring(4, 2, down(1, 3)), "degraded", 100, "n1 is down", "start n1", "n2 50 lost; n4 50 lost"},
		{"three copies", ring(4, 3, down(3)), "degraded", 100, "n3 is down", "start n3", ""},
		{"who was copying is down, and who has the rest is up", ring(4, 2, func(p, node int, m *memberView) {
			if node == 3 {
				m.down, m.filling = noon, p == 2
				m.inSync = p == 2
			}
			if node == 4 && p == 2 {
				m.inSync = false
			}
		}), "unavailable", 75, "n4 is up and has missed writes of link 1.2, and nobody is up who has them", "if n3 never comes back: `petal link force 1.2 --node n4 --accept-loss`", "n2 25 lost"},
		// Of two neighbours the second to fall holds the only whole copy.
		{"two neighbours", ring(4, 2, func(p, node int, m *memberView) {
			if node == 2 || node == 3 {
				m.down, m.inSync = noon, node == 3 && p == 1
			}
		}), "unavailable", 75, "nobody who is up has all of link 1.1, 25 % of the disk: only n3 has", "link force 1.1 --node n2", "n1 25 lost; n4 25 lost"},
		{"and the first has an empty brick", ring(4, 2, func(p, node int, m *memberView) {
			if node == 2 || node == 3 {
				m.down, m.inSync, m.blank = noon, node == 3 && p == 1, node == 2
			}
		}), "unavailable", 75, "nobody who is up has all of link 1.1", "if n3 never comes back, all of link 1.1 is lost", "n1 25 lost; n4 25 lost"},
		{"down, not yet excluded", ring(4, 2, func(_, node int, m *memberView) {
			if node == 3 {
				m.down = noon
			}
		}), "degraded", 100, "n3 is down", "start n3", "n2 25; n4 25"},
		{"back, catching up", ring(4, 2, func(_, node int, m *memberView) { m.inSync = node != 3 }), "degraded", 100, "n3 is up and has missed writes", "`petal status` on n3 says why", "n2 25 lost; n4 25 lost"},
		{"copying from one that has died", ring(4, 2, func(p, node int, m *memberView) {
			if m.filling = p == 1 && node == 2; node == 3 {
				m.down, m.inSync = noon, false
			}
		}), "unavailable", 75, "what n2 has not copied yet of link 1.1 is served by nobody: only n3 has it", "if n3 never comes back: `petal link force 1.1 --node n2 --accept-loss` gives up what n2 has not copied", "n4 25 lost"},
		{"and nothing counts that it had", ring(4, 2, func(p, node int, m *memberView) {
			if m.filling = p == 1 && node == 2; node == 3 {
				m.down, m.inSync, m.blank = noon, false, true
			}
		}), "degraded", 100, "n2 is copying what it has missed", "start n3 again", "n2 25 lost; n4 25 lost"},
		{"a brick has failed", ring(4, 2, func(p, node int, m *memberView) {
			if node == 3 {
				m.failed, m.inSync = noon, false
			}
		}), "degraded", 100, "the brick of n3 has failed, since 2026-11-21 12:00:00", "start n3 with `petal serve --accept-loss`", "n2 25 lost; n4 25 lost"},
		{"the brick of the only copy has failed", ring(4, 1, func(p, node int, m *memberView) {
			if node == 3 {
				m.failed = noon
			}
		}), "unavailable", 75, "nobody who is up has all of link 1.2, 25 % of the disk: only n3 has", "restart n3", "n1 25 lost; n2 25 lost; n4 25 lost"},
		{"copying", ring(4, 2, func(_, node int, m *memberView) { m.filling = node == 3 }), "degraded", 100, "n3 is copying", "wait", "n2 25 lost; n4 25 lost"},
	} {
		h := judge(c.links)
		if h.State != c.state || h.Served != c.served {
			t.Errorf("%s: %s, %d %% served; want %s, %d", c.name, h.State, h.Served, c.state, c.served)
		}
		if !strings.Contains(strings.Join(h.Why, "; "), c.why) || !strings.Contains(strings.Join(h.Fix, "; "), c.fix) {
			t.Errorf("%s: why %q, fix %q", c.name, h.Why, h.Fix)
		}
		if (h.State == "healthy") != (len(h.Why) == 0) {
			t.Errorf("%s: %s because of %q", c.name, h.State, h.Why)
		}
		if got := riskWords(h.Risks); got != c.risks {
			t.Errorf("%s: risks %q, want %q", c.name, got, c.risks)
		}
	}
}

// TestHealthWithoutQuorum: a node that is cut off does not say that all is well.
func TestHealthWithoutQuorum(t *testing.T) {
	h := judge(ring(4, 2, nil))
	if got := known(h, true); got.State != "healthy" || len(got.Why) > 0 {
		t.Errorf("with quorum: %+v", got)
	}
	if got := known(h, false); got.State != "unknown" || len(got.Why) != 1 || !strings.Contains(got.Why[0], "when it last did, it was healthy") || len(got.Fix) == 0 || len(got.Risks) > 0 {
		t.Errorf("without: %+v", got)
	}
}

func riskWords(list []api.Risk) string {
	var out []string
	for _, r := range list {
		s := fmt.Sprintf("%s %d", r.Node, r.Percent)
		if r.Lost {
			s += " lost"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}
