package explore

import (
	"os"
	"testing"
	"time"
)

// largeCases take minutes and gigabytes: for make soak.
var largeCases = []Case{
	{Name: "crashes", Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 5, Max: Budget{Reads: 2, Crashes: 2}},
	{Name: "crash-lapse", Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 4, Max: Budget{Reads: 2, Crashes: 1, Lapses: 1, Cuts: 1}},
	{Name: "lapses", Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 4, Max: Budget{Reads: 2, Lapses: 3}},
	{Name: "barrier-lapse", Members: 2, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Barrier: true, Max: Budget{Reads: 1, Crashes: 1, Lapses: 1}},
	{Name: "rot", Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 4, Destage: true, Max: Budget{Reads: 2, Crashes: 1, Rots: 1}},
	{Name: "fences", Members: 2, Blocks: oneBlock, Writes: twoWrites, MaxVer: 5, Max: Budget{Reads: 2, Cuts: 1, Fences: 2}},
	{Name: "rejoin", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1, 0}, MaxVer: 7, Start: Degraded, Max: Budget{Reads: 2, Crashes: 2, Fetches: 1}},
	{Name: "rejoin-rot", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 7, Destage: true, Start: Degraded, Max: Budget{Reads: 2, Crashes: 2, Rots: 1}},
	{Name: "rejoin-buckets", Members: 2, Blocks: []uint8{0, 1}, Writes: []uint8{0, 1, 1}, MaxVer: 6, Start: Degraded, Max: Budget{Reads: 1, Crashes: 1, Cuts: 1, Aborts: 1}},
	{Name: "joined", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 8, Destage: true, Start: Joined, Max: Budget{Reads: 1, Crashes: 2, Fetches: 1, Fences: 1}},
	{Name: "forsaken", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 9, Start: Forsaken, Max: Budget{Reads: 2, Crashes: 2, Fetches: 1}},
	{Name: "tailed", Members: 2, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1, 0}, MaxVer: 8, Start: Tailed, Max: Budget{Reads: 2, Crashes: 2, Cuts: 1}},
	{Name: "three-crash", Members: 3, Blocks: oneBlock, Writes: oneWrite, MaxVer: 3, Max: Budget{Reads: 2, Crashes: 1}},
	{Name: "three-rejoin", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 5, Start: Degraded, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "three-bereft", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 10, Start: Bereft, Max: Budget{Reads: 1, Crashes: 1, Fetches: 1}},
	{Name: "three-lonely", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 8, Start: Lonely, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "three-unheard", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1, 1}, MaxVer: 10, Start: Unheard, Max: Budget{Reads: 1, Crashes: 1}},
	{Name: "three-outlived", Members: 3, Blocks: []uint8{0, 0}, Writes: []uint8{0, 1}, MaxVer: 8, Start: Outlived, Max: Budget{Reads: 2, Fetches: 1}},
}

// largeStates bounds a large case: about 60 bytes a state stay, and the states
// of two depths are kept whole.
const largeStates = 20_000_000

// TestLarge searches further than there is time for in go test. A case that is
// too large is searched as far as largeStates go.
func TestLarge(t *testing.T) {
	if os.Getenv("PETAL_SOAK") == "" {
		t.Skip("PETAL_SOAK is not set: minutes and gigabytes")
	}
	for _, k := range largeCases {
		t.Run(k.Name, func(t *testing.T) {
			t0 := time.Now()
			r := Search(&k, largeStates)
			t.Log(time.Since(t0).Round(time.Second), r)
			if r.Trace != nil {
				t.Fail()
			}
		})
	}
}
