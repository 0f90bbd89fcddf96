package load

import (
	"fmt"
	"strings"
	"time"
)

// Kind is what is wrong with what was read.
type Kind string

// The kinds of finding, the worst last.
const (
	Stale     Kind = "stale"     // an older content was read once, the right one when read again
	Torn      Kind = "torn"      // a part of a write that is atomic is there and a part is not
	Lost      Kind = "lost"      // an acknowledged write is gone, an older content is there
	Misplaced Kind = "misplaced" // a write's data lie at another place
	Rotten    Kind = "rotten"    // a stamp of ours with changed bits
	Invented  Kind = "invented"  // something that was never written there
)

// Finding is one range of sectors that should hold something else. All
// addresses are in 512-byte sectors from the beginning of the disk.
type Finding struct {
	Kind    Kind      `json:"kind"`
	Sector  uint64    `json:"sector"`
	Count   int       `json:"sectors"`
	Found   string    `json:"found"`
	Allowed string    `json:"allowed"`
	Final   bool      `json:"final_read"` // found by the read over all at the end
	Time    time.Time `json:"time"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: sectors %d..%d hold %s; allowed: %s", f.Kind, f.Sector, f.Sector+uint64(f.Count)-1, f.Found, f.Allowed)
}

// maxAtomicSectors bounds region.atomic: 64 KiB.
const maxAtomicSectors = 128

// region is the part of the disk that a model stands for.
type region struct {
	disk        [16]byte // identity of the disk; zero: it has none
	run         uint64
	first       uint64 // its first sector
	unitSectors int    // sectors a unit
	atomic      int    // sectors that a write writes all or none of; divides unitSectors, at most maxAtomicSectors
	zero        bool   // what was never written reads as zeros
}

// judge ends a read of units [first, first+count) that began at began and
// returned data, and returns what is wrong with it.
func (m *model) judge(r *region, first, count int, began uint64, data []byte) []Finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	var findings []Finding
	for i := first; i < first+count; i++ {
		l := m.list(i)
		floor := m.permitted(l, began)
		bytes := r.unitSectors * SectorBytes
		sector := r.first + uint64(i)*uint64(r.unitSectors)
		uniform, same := m.judgeUnit(r, l, floor, sector, data[:bytes], &findings)
		data = data[bytes:]
		if same {
			m.observed(i, uniform, began)
		}
		l.users--
		m.settle(i)
	}
	return findings
}

// judgeUnit judges one unit's data, appends what it finds, and returns the
// write that all its sectors came from, if it is one and nothing is wrong.
func (m *model) judgeUnit(r *region, l *list, floor, sector uint64, data []byte, findings *[]Finding) (op uint64, same bool) {
	before := len(*findings)
	same = true
	for part := 0; part < r.unitSectors; part += r.atomic {
		var ops [maxAtomicSectors]uint64
		var bad [maxAtomicSectors]Kind
		anyBad, mixed := false, false
		for k := range r.atomic {
			s := data[(part+k)*SectorBytes:][:SectorBytes]
			ops[k], bad[k] = r.judgeSector(l, floor, sector+uint64(part+k), s)
			anyBad = anyBad || bad[k] != ""
			mixed = mixed || ops[k] != ops[0]
		}
		if part == 0 {
			op = ops[0]
		}
		same = same && !mixed && ops[0] == op
		if anyBad || mixed {
			m.report(r, l, floor, sector+uint64(part), data[part*SectorBytes:], bad[:r.atomic], findings)
		}
	}
	return op, same && len(*findings) == before
}

// judgeSector returns which version s is of, and what is wrong with it.
func (r *region) judgeSector(l *list, floor, sector uint64, s []byte) (op uint64, bad Kind) {
	c, op, at := readStamp(s, r.run)
	switch {
	case c == contentRotten:
		return op, Rotten
	case c == contentStamp && at != sector:
		return op, Misplaced
	case c == contentForeign || c == contentZero:
		op = 0
	}
	allowed, older := false, false
	for _, v := range l.versions {
		var fits bool
		switch c {
		case contentStamp:
			fits = v.op == op
		case contentZero:
			fits = v.op&zeroes != 0 || v.op == 0
		case contentForeign:
			fits = v.op == 0 && !r.zero
		}
		if fits && v.ended >= floor {
			allowed = true
			if c == contentZero {
				op = v.op
			}
		}
		older = older || v.op != 0 && v.op&^zeroes > op
	}
	switch {
	case allowed:
		return op, ""
	case c == contentForeign, c == contentStamp && !older:
		return op, Invented
	}
	return op, Lost
}

// report appends one finding for an atomic part of a unit with bad sectors, or
// with sectors of several writes.
func (m *model) report(r *region, l *list, floor, sector uint64, data []byte, bad []Kind, findings *[]Finding) {
	f := Finding{Sector: sector, Count: len(bad), Kind: Torn, Allowed: describeVersions(l, floor), Time: time.Now()}
	// A sector that was never right anywhere tells more than "torn".
	for k, kind := range bad {
		if kind == Misplaced || kind == Rotten || kind == Invented {
			f.Kind, f.Sector, f.Count = kind, sector+uint64(k), 1
			f.Found = describe(data[k*SectorBytes:][:SectorBytes], r.run, f.Sector)
			*findings = append(*findings, f)
			return
		}
	}
	text := make([]string, len(bad))
	for k := range bad {
		text[k] = describe(data[k*SectorBytes:][:SectorBytes], r.run, sector+uint64(k))
	}
	var parts []string
	for k, end := 0, 0; k < len(text); k = end {
		for end = k + 1; end < len(text) && text[end] == text[k]; end++ {
		}
		part := text[k]
		if end-k < len(text) {
			part += fmt.Sprintf(" in sectors %d..%d", sector+uint64(k), sector+uint64(end)-1)
		}
		parts = append(parts, part)
	}
	f.Found = strings.Join(parts, ", ")
	if len(parts) == 1 {
		f.Kind = Lost
	}
	*findings = append(*findings, f)
}

// describe says what s, read from sector, holds.
func describe(s []byte, run, sector uint64) string {
	switch c, op, at := readStamp(s, run); {
	case c == contentStamp && at == sector:
		return fmt.Sprintf("write %d", op)
	case c == contentStamp:
		return fmt.Sprintf("write %d of sector %d", op, at)
	case c == contentRotten:
		return fmt.Sprintf("write %d of sector %d with changed bits", op, at)
	case c == contentZero:
		return "zeros"
	default:
		return fmt.Sprintf("foreign data % x...", s[:16])
	}
}

// describeVersions says what a unit may hold.
func describeVersions(l *list, floor uint64) string {
	var parts []string
	for _, v := range l.versions {
		if v.ended < floor {
			continue
		}
		text := fmt.Sprintf("write %d", v.op&^zeroes)
		switch {
		case v.op == 0:
			text = "what was there before"
		case v.ended == inFlight:
			text += " (not ended)"
		case v.sure:
			text += " (acknowledged)"
		default:
			text += " (failed)"
		}
		if v.op&zeroes != 0 {
			text += " to zeros"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
