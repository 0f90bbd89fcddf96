package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// Grow returns the map with number id for servers, which are those of old and
// more. It moves little (DESIGN F): each new server gets an even share of the
// buckets, about every (n+1)th, taken evenly from the others, and a place on the
// ring where it makes no neighbours of one site if there is such a place.
// Buckets in a row stay spread over the servers.
func Grow(old *GMap, id uint32, servers []Place) (*GMap, error) {
	if err := checkRing(id, old.Scheme, servers); err != nil {
		return nil, err
	}
	site := map[Server]string{}
	for _, p := range servers {
		site[p.Server] = p.Site
	}
	for _, s := range old.Ring {
		if _, ok := site[s]; !ok {
			return nil, fmt.Errorf("%w: gmap %d is to replace gmap %d but lacks its server %d; growth takes no server away", ErrInvalidGMap, id, old.ID, s)
		}
	}
	ring, table := slices.Clone(old.Ring), old.Table
	added := slices.DeleteFunc(slices.Clone(servers), func(p Place) bool { return slices.Contains(old.Ring, p.Server) })
	slices.SortFunc(added, func(a, b Place) int { return cmp.Compare(a.Server, b.Server) })
	for _, p := range added {
		at := bestGap(ring, p.Server, site, old.Copies)
		ring = slices.Insert(ring, at, p.Server)
		for b := range table {
			if int(table[b]) >= at {
				table[b]++
			}
		}
		takeShare(&table, len(ring), uint16(at))
	}
	g := newGMap(id, old.Scheme, ring)
	g.Table = table
	return g, nil
}

// bestGap returns where on the ring a new server does least harm to the sites:
// the last such place.
func bestGap(ring []Server, s Server, site map[Server]string, copies int) int {
	best, least := len(ring), -1
	for at := len(ring); at > 0; at-- {
		var sites []string
		for _, r := range slices.Insert(slices.Clone(ring), at, s) {
			sites = append(sites, site[r])
		}
		if c := siteCost(sites, copies); least < 0 || c < least {
			best, least = at, c
		}
	}
	return best
}

// takeShare gives position fresh, which has no bucket yet, its share of the n
// positions: one bucket of each n in a row, of the position that has most to
// give; of equal ones, that nearest to an even distance.
func takeShare(table *[Buckets]uint16, n int, fresh uint16) {
	count := make([]int, n)
	for _, p := range table {
		count[p]++
	}
	share := Buckets / n
	for k := range share {
		from, to := k*Buckets/share, (k+1)*Buckets/share
		best := from
		for b := from; b < to; b++ {
			if count[table[b]] >= count[table[best]] {
				best = b
			}
		}
		count[table[best]]--
		count[fresh]++
		table[best] = fresh
	}
}
