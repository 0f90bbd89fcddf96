package explore

import (
	"testing"
	"time"
)

// smallCases are the cases that go test searches completely.
var smallCases = []Case{
	{Name: "crash", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 4, Max: Budget{Reads: 2, Crashes: 1}},
	{Name: "cut", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0, 0}, MaxVer: 3, Max: Budget{Reads: 2, Cuts: 2}},
	{Name: "buckets", Members: 2, Blocks: []uint8{0, 1}, Writes: []uint8{0, 1}, MaxVer: 2, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "lapse", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 3, Max: Budget{Reads: 2, Lapses: 1}},
	{Name: "barrier", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 3, Barrier: true, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "rot", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 4, Destage: true, Max: Budget{Reads: 1, Crashes: 1, Rots: 1}},
	{Name: "fence", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 3, Max: Budget{Reads: 2, Cuts: 1, Fences: 1}},
	{Name: "rejoin", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Degraded, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "rejoin-cut", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Degraded, Max: Budget{Reads: 1, Cuts: 1, Aborts: 1}},
	{Name: "rejoin-fill", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0, 0}, MaxVer: 5, Start: Degraded, Max: Budget{Reads: 2, Fetches: 1, Fences: 1}},
	{Name: "rejoin-buckets", Members: 2, Blocks: []uint8{0, 1}, Writes: []uint8{0, 1}, MaxVer: 5, Start: Degraded, Max: Budget{Reads: 1, Cuts: 1}},
	{Name: "rejoin-rot", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 5, Destage: true, Start: Degraded, Max: Budget{Reads: 1, Crashes: 1, Rots: 1}},
	{Name: "joined", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Joined, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "forsaken", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 9, Start: Forsaken, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "tailed", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 5, Start: Tailed, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "marked", Members: 2, Blocks: []uint8{0}, Writes: []uint8{0, 0, 0}, MaxVer: 11, Start: Marked, Max: Budget{Reads: 1, Fetches: 1}},
	{Name: "halfway", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 0, 1}, MaxVer: 8, Start: Halfway, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "three", Members: 3, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 2, Max: Budget{Reads: 2}},
	{Name: "three-crash", Members: 3, Blocks: []uint8{0}, Writes: []uint8{0}, MaxVer: 2, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "three-rejoin", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 4, Start: Degraded, Max: Budget{Reads: 1}},
	{Name: "three-bereft", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 8, Start: Bereft, Max: Budget{Reads: 1}},
	{Name: "three-lonely", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 6, Start: Lonely},
	{Name: "three-remembered", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1, 1}, MaxVer: 10, Start: Remembered, Max: Budget{Reads: 1}},
}

func TestSmall(t *testing.T) {
	for _, k := range smallCases {
		t.Run(k.Name, func(t *testing.T) {
			t0 := time.Now()
			r := Search(&k, 400_000)
			t.Log(time.Since(t0).Round(time.Millisecond), r)
			if r.Trace != nil || !r.Complete {
				t.Fail()
			}
		})
	}
}
