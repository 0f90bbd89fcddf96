package brick

import (
	"math/rand/v2"
	"testing"
	"time"

	"petal/placement"
)

// TestIdleIsQuiet: an idle brick vouches for its last records once, and then
// writes nothing more.
func TestIdleIsQuiet(t *testing.T) {
	o := realOptions(t)
	o.DestageAge = 10 * time.Millisecond
	b := openNew(t, o)
	defer b.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	write(t, b, record(b, rng, placement.Key{Family: 1, Node: 1, Chunk: 7}, placement.Full, Write))
	quiet := time.NewTimer(20 * destageTick)
	<-quiet.C
	if n := b.journal.Next() - 1; n > 2 {
		t.Errorf("%d records in the journal of a brick that was written to once", n)
	}
}
