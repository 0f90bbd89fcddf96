package load

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// verifier ties the model to the slots of a subject.
type verifier struct {
	model     *model
	region    region
	syncEvery int
	final     atomic.Bool // the read over all at the end is under way

	mu       sync.Mutex
	findings []Finding
	counts   map[Kind]int
	writes   atomic.Uint64
	judged   atomic.Uint64 // sectors
}

// units are the units that a slot's operation is on.
func (v *verifier) units(sl *slot) (first, count int) {
	bytes := v.region.unitSectors * SectorBytes
	return int(sl.offset / uint64(bytes)), sl.length / bytes
}

// begin notes the begin of the slot's operation and stamps what it writes.
func (v *verifier) begin(sl *slot) {
	first, count := v.units(sl)
	switch sl.op {
	case opRead:
		sl.moment = v.model.beginRead(first, count)
	case opWrite:
		v.writes.Add(1)
		sl.number = v.model.beginWrite(first, count, false)
		putStamps(sl.out[:sl.length], v.region.run, sl.number, v.region.first+sl.offset/SectorBytes)
	case opUnmap:
		v.writes.Add(1)
		sl.number = v.model.beginWrite(first, count, true)
	case opSync:
		sl.moment = v.model.now()
	}
}

// end notes the end of the slot's operation. It returns true if the slot is to
// read the same once more, because an acknowledged write seems to be missing:
// only the second look tells a stale read from a lost write.
func (v *verifier) end(sl *slot, good bool) (again bool) {
	first, count := v.units(sl)
	switch {
	case sl.op == opRead && good:
		return v.endRead(sl, first, count)
	case sl.op == opRead:
		v.model.dropRead(first, count)
		v.add(sl.suspects)
		sl.suspects = nil
	case sl.op == opSync && good:
		v.model.endSync(sl.moment)
	case sl.op != opSync:
		v.model.endWrite(first, count, sl.number, good)
	}
	return false
}

func (v *verifier) endRead(sl *slot, first, count int) (again bool) {
	v.judged.Add(uint64(sl.length / SectorBytes))
	findings := v.model.judge(&v.region, first, count, sl.moment, sl.in[:sl.length])
	if sl.suspects != nil {
		for i := range sl.suspects {
			if !contains(findings, sl.suspects[i].Sector) {
				sl.suspects[i].Kind = Stale
			}
		}
		v.add(sl.suspects)
		sl.suspects = nil
		return false
	}
	var sure []Finding
	for _, f := range findings {
		if f.Kind == Lost {
			sl.suspects = append(sl.suspects, f)
		} else {
			sure = append(sure, f)
		}
	}
	v.add(sure)
	if sl.suspects == nil {
		return false
	}
	sl.moment = v.model.beginRead(first, count)
	return true
}

func contains(findings []Finding, sector uint64) bool {
	for _, f := range findings {
		if f.Sector <= sector && sector < f.Sector+uint64(f.Count) {
			return true
		}
	}
	return false
}

func (v *verifier) add(findings []Finding) {
	if len(findings) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, f := range findings {
		f.Final = v.final.Load()
		v.counts[f.Kind]++
		if len(v.findings) < maxErrors {
			v.findings = append(v.findings, f)
		}
	}
}

// result is what has been found up to now.
func (v *verifier) result(finalRead bool) *Verified {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.model.mu.Lock()
	defer v.model.mu.Unlock()
	uncertain := 0
	for _, u := range v.model.units {
		if u.versions != 0 {
			uncertain++
		}
	}
	sectors := uint64(len(v.model.units)) * uint64(v.region.unitSectors)
	return &Verified{
		Region:        fmt.Sprintf("sectors %d..%d", v.region.first, v.region.first+sectors-1),
		SectorsJudged: v.judged.Load(), Writes: v.writes.Load(), FinalRead: finalRead, Uncertain: uncertain,
		Findings: append([]Finding{}, v.findings...), Counts: v.counts,
	}
}
