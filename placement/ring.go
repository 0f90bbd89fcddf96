package placement

import (
	"cmp"
	"slices"
)

// orderRing returns the servers in the order of a ring on which members of a
// link stand in different sites as far as that can be had. Servers of one site
// come in ascending order.
func orderRing(servers []Place, copies int) []Server {
	places := slices.Clone(servers)
	slices.SortFunc(places, func(a, b Place) int { return cmp.Compare(a.Server, b.Server) })
	bySite := map[string][]Server{}
	var sites []string // in the order of their least server
	for _, p := range places {
		if bySite[p.Site] == nil {
			sites = append(sites, p.Site)
		}
		bySite[p.Site] = append(bySite[p.Site], p.Server)
	}
	ring := make([]Server, 0, len(places))
	for _, site := range orderSites(sites, bySite, copies) {
		ring = append(ring, bySite[site][0])
		bySite[site] = bySite[site][1:]
	}
	return ring
}

// orderSites returns a ring of sites, each as often as it has servers. It takes
// the better of two beginnings and then swaps places as long as that helps.
func orderSites(sites []string, bySite map[string][]Server, copies int) []string {
	large := slices.Clone(sites)
	slices.SortStableFunc(large, func(a, b string) int { return cmp.Compare(len(bySite[b]), len(bySite[a])) })
	turns, second := takingTurns(large, bySite), everySecond(large, bySite)
	improve(turns, copies)
	improve(second, copies)
	if siteCost(second, copies) < siteCost(turns, copies) {
		return second
	}
	return turns
}

// takingTurns gives each site in turn a place, as long as it has servers.
func takingTurns(sites []string, bySite map[string][]Server) []string {
	var ring []string
	for round, any := 0, true; any; round++ {
		any = false
		for _, s := range sites {
			if round < len(bySite[s]) {
				ring, any = append(ring, s), true
			}
		}
	}
	return ring
}

// everySecond fills the even places, then the odd ones, one site after another:
// if the largest comes first and has no more than half of the servers, no
// neighbours are equal.
func everySecond(sites []string, bySite map[string][]Server) []string {
	var all []string
	for _, s := range sites {
		for range bySite[s] {
			all = append(all, s)
		}
	}
	ring := make([]string, len(all))
	at := 0
	for _, s := range all {
		ring[at] = s
		if at += 2; at >= len(ring) {
			at = 1
		}
	}
	return ring
}

func improve(ring []string, copies int) {
	cost := siteCost(ring, copies)
	for again := cost > 0; again; {
		again = false
		for i := range ring {
			for j := range i {
				ring[i], ring[j] = ring[j], ring[i]
				if c := siteCost(ring, copies); c < cost {
					cost, again = c, true
				} else {
					ring[i], ring[j] = ring[j], ring[i]
				}
			}
		}
	}
}

// siteCost counts what the loss of one site would do: a link all in one site is
// the worst, then each pair of members of a link in one site.
func siteCost(ring []string, copies int) int {
	n, cost := len(ring), 0
	for p := range ring {
		pairs := 0
		for i := range copies {
			for j := range i {
				if ring[(p+i)%n] == ring[(p+j)%n] {
					pairs++
				}
			}
		}
		cost += pairs
		if copies > 1 && pairs == copies*(copies-1)/2 {
			cost += 10 * MaxRing
		}
	}
	return cost
}
