package replica

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/times"
	"petal/placement"
)

// remembered is the slow twin of a history: all that was ever added.
type remembered struct {
	all   []past
	floor map[placement.Bucket]placement.Stamp
}

func (r *remembered) since(b placement.Bucket, prev, last placement.Stamp) (out []placement.Stamp) {
	for _, p := range r.all {
		if p.bucket == b && prev.Before(p.stamp) && !last.Before(p.stamp) {
			out = append(out, p.stamp)
		}
	}
	return out
}

// TestHistoryTwin: R11. What a history says of the records between two stamps is
// all of them, or it says that it has forgotten some; and what is asked of the
// latest ones it has not forgotten.
func TestHistoryTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var h history
		h.init(times.Default())
		twin := remembered{floor: map[placement.Bucket]placement.Stamp{}}
		const buckets = 3
		var last [buckets]placement.Stamp
		for b := range placement.Bucket(buckets) {
			last[b] = placement.Stamp{Ver: 1, Seq: uint64(rng.IntN(3))}
			h.begin(b, last[b]) // what the journal no longer tells of
			twin.floor[b] = last[b]
		}
		known, lost := 0, 0
		for i := range 3000 {
			b := placement.Bucket(rng.IntN(buckets))
			if last[b].Seq++; rng.IntN(50) == 0 {
				last[b] = placement.Stamp{Ver: last[b].Ver + 1, Seq: 1}
			}
			r := brick.Record{Bucket: b, Ver: last[b].Ver, Seq: last[b].Seq, Op: placement.OpID{Number: uint64(i + 1)}}
			h.add(&r, time.Hour)
			twin.all = append(twin.all, past{stamp: last[b], bucket: b, op: r.Op})
			if rng.IntN(4) == 0 && h.next-h.first > 200 {
				h.forget()
			}
			if i%7 != 0 {
				continue
			}
			from := max(0, len(twin.all)-rng.IntN(400)-1)
			prev := twin.all[from].stamp
			if rng.IntN(20) == 0 {
				prev = placement.Stamp{Ver: 1}
			}
			if last[b].Before(prev) {
				continue
			}
			var got []placement.Stamp
			want := twin.since(b, prev, last[b])
			switch ok := h.since(b, prev, last[b], func(p *past) { got = append(got, p.stamp) }); {
			case !ok && got != nil:
				t.Fatal("it has forgotten, and tells all the same")
			case !ok:
				lost++
			case prev.Before(twin.floor[b]) || !slices.Equal(got, want):
				t.Fatalf("bucket %d after %s: %v, want %v", b, prev, got, want)
			default:
				known++
			}
		}
		if known < 100 || lost < 10 {
			t.Fatalf("%d ranges known, %d forgotten: the test shows little", known, lost)
		}
	}
}

// TestHistoryKeepsWhatMayComeAgain: R12. Operations are remembered for 10 s,
// however many there are, up to a limit; older ones only while they take no more
// memory than a journal's.
func TestHistoryKeepsWhatMayComeAgain(t *testing.T) {
	id := func(i int) placement.OpID { return placement.OpID{Coordinator: 1, Number: uint64(i)} }
	fill := func(n int, between time.Duration) *history {
		h := &history{}
		h.init(times.Default())
		for i := range n {
			h.add(&brick.Record{Bucket: 1, Ver: 1, Seq: uint64(i + 1), Op: id(i)}, time.Hour+time.Duration(i)*between)
		}
		return h
	}
	if h := fill(historyMax+1000, resultsFor/(historyMax+2000)); !h.did(id(0)) || !h.did(id(historyMax)) {
		t.Error("an operation of the last 10 s is forgotten")
	}
	if h := fill(historyMax-1, time.Second); !h.did(id(0)) {
		t.Error("an operation is forgotten for which there was room")
	}
	if h := fill(historyMax+1, time.Second); len(h.ring) > historyMax || h.did(id(0)) || !h.did(id(historyMax)) {
		t.Errorf("%d are kept, though they are old", len(h.ring))
	}
	slow := &history{} // a cluster whose commands live for 20 s
	slow.init(times.Default().Scale(5))
	for i := range historyMax + 1 {
		slow.add(&brick.Record{Bucket: 1, Ver: 1, Seq: uint64(i + 1), Op: id(i)}, time.Hour+time.Duration(i)*25*time.Second/historyMax)
	}
	if !slow.did(id(0)) {
		t.Error("an operation that may come again is forgotten")
	}
	h := &history{}
	h.init(times.Default())
	h.tell(id(1), time.Hour)
	for i := range historyMax {
		h.tell(id(2+i), time.Hour+resultsFor-1)
	}
	if !h.did(id(1)) {
		t.Error("an operation that another head told of is forgotten before 10 s are over")
	}
}
