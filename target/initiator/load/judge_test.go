package load

import (
	"strings"
	"testing"
)

// sampleRegion is one unit of 4 KiB, atomic, of run 7, at sector 8.
var sampleRegion = region{run: 7, first: 8, unitSectors: 8, atomic: 8}

// stamped is a unit whose sectors were written by ops, in turn.
func stamped(ops ...uint64) []byte {
	data := make([]byte, 8*SectorBytes)
	for i := range 8 {
		if op := ops[i%len(ops)]; op != 0 {
			putStamp(data[i*SectorBytes:][:SectorBytes], 7, op, uint64(8+i))
		}
	}
	return data
}

// judged runs one read that returns data.
func judged(m *model, r region, data []byte) []Finding {
	return m.judge(&r, 0, 1, m.beginRead(0, 1), data)
}

func TestJudge(t *testing.T) {
	foreign := stamped(1)
	copy(foreign, "neither a stamp nor zeros")
	other := make([]byte, 8*SectorBytes)
	putStamps(other, 7, 1, 100)
	future := stamped(99)
	rotten := stamped(1)
	flip(rotten)
	acknowledged := func(m *model) { write(m, true) }
	zeroRegion := sampleRegion
	zeroRegion.zero = true
	fine := sampleRegion
	fine.atomic = 1
	for name, c := range map[string]struct {
		do     func(m *model)
		data   []byte
		region region
		want   Kind
		found  string
	}{
		"as written":                     {acknowledged, stamped(1), sampleRegion, "", ""},
		"failed, there":                  {func(m *model) { write(m, false) }, stamped(1), sampleRegion, "", ""},
		"failed, not there":              {func(m *model) { write(m, false) }, stamped(0), sampleRegion, "", ""},
		"failed, half there":             {func(m *model) { write(m, false) }, stamped(1, 0), sampleRegion, Torn, "zeros in sectors 9..9"},
		"failed, half there, not atomic": {func(m *model) { write(m, false) }, stamped(1, 0), fine, "", ""},
		"two failed, half of each":       {func(m *model) { write(m, false); write(m, false) }, stamped(1, 2), sampleRegion, Torn, "write 2 in sectors 9..9"},
		"gone":                           {acknowledged, stamped(0), sampleRegion, Lost, "zeros"},
		"older":                          {func(m *model) { write(m, true); write(m, true) }, stamped(1), sampleRegion, Lost, "write 1"},
		"half older":                     {func(m *model) { write(m, true); write(m, true) }, stamped(1, 2), sampleRegion, Torn, "write 1 in sectors 8..8"},
		"foreign":                        {acknowledged, foreign, sampleRegion, Invented, "foreign data"},
		"of another place":               {acknowledged, other, sampleRegion, Misplaced, "write 1 of sector 100"},
		"of a write that never was":      {acknowledged, future, sampleRegion, Invented, "write 99"},
		"rotten":                         {acknowledged, rotten, sampleRegion, Rotten, "changed bits"},
		"never written, foreign":         {func(*model) {}, foreign, sampleRegion, Invented, "write 1"},
		"never written, zeros wanted":    {func(*model) {}, stamped(0), zeroRegion, "", ""},
		"never written, not zeros":       {func(*model) {}, filled(0xee), zeroRegion, Invented, "foreign data ee"},
		"never written, anything":        {func(*model) {}, filled(0xee), sampleRegion, "", ""},
		"unmapped":                       {func(m *model) { write(m, true); m.endWrite(0, 1, m.beginWrite(0, 1, true), true) }, stamped(0), sampleRegion, "", ""},
		"unmapped, still there":          {func(m *model) { write(m, true); m.endWrite(0, 1, m.beginWrite(0, 1, true), true) }, stamped(1), sampleRegion, Lost, "write 1"},
		"unmapped, half":                 {func(m *model) { write(m, true); m.endWrite(0, 1, m.beginWrite(0, 1, true), false) }, stamped(1, 0), sampleRegion, Torn, "zeros"},
	} {
		m := newModel(1, false)
		c.do(m)
		got := judged(m, c.region, c.data)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %v", name, got)
		case c.want != "" && (len(got) != 1 || got[0].Kind != c.want || !strings.Contains(got[0].Found, c.found)):
			t.Errorf("%s: findings %v, want one of kind %q with %q", name, got, c.want, c.found)
		}
	}
}

func filled(b byte) []byte {
	data := make([]byte, 8*SectorBytes)
	for i := range data {
		data[i] = b
	}
	return data
}

// Having read a new content, a later read may not go back to the old one.
func TestReadsDoNotGoBack(t *testing.T) {
	m := newModel(1, false)
	first := m.beginWrite(0, 1, false)
	second := m.beginWrite(0, 1, false) // overlaps the first
	m.endWrite(0, 1, first, true)
	m.endWrite(0, 1, second, true)
	if got := judged(m, sampleRegion, stamped(first)); len(got) != 0 {
		t.Fatalf("either of two overlapping writes may win: %v", got)
	}
	if got := judged(m, sampleRegion, stamped(second)); len(got) != 1 || got[0].Kind == "" {
		t.Errorf("the first write was read, then the second: %v", got)
	}
}

// A disk that turned into a write-back one since the state was written may
// lose what is not synced.
func TestStateTakesTheDisksCacheMode(t *testing.T) {
	v := &verifier{model: newModel(4, false), region: region{run: 1, unitSectors: 8, atomic: 8}}
	r := &runner{config: &Config{}}
	s := &subject{info: Disk{WriteCache: true, Bytes: 4 * 4096}}
	if err := r.fits(s, v); err != nil || !v.model.volatile {
		t.Errorf("volatile is %t, %v", v.model.volatile, err)
	}
	s.info.Bytes--
	if err := r.fits(s, v); err == nil {
		t.Error("a state of a larger disk was taken")
	}
}
