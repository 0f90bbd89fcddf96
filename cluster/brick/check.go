package brick

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"petal/journal"
	"petal/placement"
)

// Problem is something that Check found wrong.
type Problem struct {
	Thing  string         // "super", "journal", "map", "data"
	Key    placement.Key  // of the chunk concerned; zero: none
	Blocks placement.Mask // of it
	Why    string
}

func (p Problem) String() string {
	if p.Key == (placement.Key{}) {
		return fmt.Sprintf("%s: %s", p.Thing, p.Why)
	}
	return fmt.Sprintf("%s: family %d node %d chunk %d, blocks %#04x: %s", p.Thing, p.Key.Family, p.Key.Node, p.Key.Chunk, uint16(p.Blocks), p.Why)
}

// Summary says what Check has looked at.
type Summary struct {
	Identity Identity
	Entries  int64  // of the map
	Extents  int64  // that entries name
	Blocks   int64  // whose checksums were compared
	Records  int64  // of the journal that are not in the map yet
	Unnamed  uint64 // bytes of the data files that no entry names: free, or promised ahead
	Problems int64
	Took     time.Duration
}

// Check verifies a brick that is not open: the superblock, the journal, the map
// and the checksum of every block. It calls report for each problem and changes
// nothing. The error says why it could not go on.
func Check(o Options, report func(Problem)) (s Summary, err error) {
	o.setDefaults()
	began := time.Now()
	c := &checker{o: o, sum: &s, used: map[uint64]placement.Mask{}, over: map[placement.Key]placement.Mask{}}
	c.report = func(p Problem) { s.Problems++; report(p) }
	lock, err := o.FS.Lock("lock")
	if err != nil {
		return s, fmt.Errorf("brick: %w", err)
	}
	defer lock.Close()
	if err := c.super(); err != nil {
		return s, err
	}
	b := &Brick{o: o}
	b.o.FS = readOnly{o.FS}
	if err := b.openData(); err != nil {
		return s, err
	}
	defer func() {
		for _, d := range b.alloc.files {
			d.close()
		}
	}()
	if c.pmap, err = openMap(o.MapFS, o.mapDir(), true, o.Log); err != nil {
		return s, err
	}
	defer c.pmap.close()
	c.b = b
	err = errors.Join(c.journal(), c.entries(), c.space())
	s.Took = time.Since(began)
	return s, err
}

// checker is a Check under way.
type checker struct {
	o      Options
	b      *Brick // for its data files
	pmap   *pmap
	sum    *Summary
	report func(Problem)
	used   map[uint64]placement.Mask        // blocks of extents that were named
	over   map[placement.Key]placement.Mask // blocks whose truth is in the journal
}

func (c *checker) super() error {
	s, good, err := readSuper(c.o.FS)
	if err != nil {
		return err
	}
	c.sum.Identity = s.Identity
	if good < superCopies {
		c.report(Problem{Thing: "super", Why: fmt.Sprintf("only %d of %d copies are intact and the same", good, superCopies)})
	}
	return nil
}

// journal looks at the records that the map does not have yet.
func (c *checker) journal() error {
	applied, err := c.pmap.applied()
	if err != nil {
		return err
	}
	o := c.o.journalOptions(c.sum.Identity.Brick)
	o.FS, o.Manual = readOnly{c.o.FS}, true
	j, rec, err := journal.Open(o)
	if err != nil {
		c.report(Problem{Thing: "journal", Why: err.Error()})
		return nil
	}
	defer j.Close()
	if rec.First > applied+1 {
		c.report(Problem{Thing: "journal", Why: fmt.Sprintf("it begins at record %d, but the map ends at %d", rec.First, applied)})
	}
	for _, r := range rec.Rotten {
		if r.To > applied {
			c.report(Problem{Thing: "journal", Why: fmt.Sprintf("records %d to %d were durable and have rotted", r.From, r.To)})
		}
	}
	return j.Replay(applied+1, func(e journal.Entry) error {
		c.sum.Records++
		var h head
		if err := parseHead(e.Head, &h); err != nil {
			c.report(Problem{Thing: "journal", Why: fmt.Sprintf("record %d: %v", e.LSN, err)})
		} else {
			c.over[h.Key] |= h.Mask
		}
		return nil
	})
}

// entries reads the whole map and every block that it names.
func (c *checker) entries() error {
	it, err := c.pmap.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyData}, UpperBound: []byte{keyData + 1}})
	if err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	defer it.Close()
	var e entry
	for it.First(); it.Valid(); it.Next() {
		c.sum.Entries++
		k, err := parseKey(it.Key())
		if err != nil {
			c.report(Problem{Thing: "map", Why: err.Error()})
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("brick: map: %w", err)
		}
		if err := parseEntry(v, &e); err != nil {
			c.report(Problem{Thing: "map", Key: k, Blocks: placement.Full, Why: err.Error()})
			continue
		}
		c.entry(k, &e)
	}
	if err := it.Error(); err != nil {
		c.report(Problem{Thing: "map", Why: err.Error()})
	}
	return nil
}

func (c *checker) entry(k placement.Key, e *entry) {
	var twice placement.Mask
	for i := range e.Sum {
		if e.Valid>>i&1 == 0 {
			continue
		}
		at := e.place(i)
		took := placement.Mask(1) << (at & 15)
		if e.Kind == kindExtent {
			took = placement.Full
		}
		if n := len(c.used); c.used[at.extent()]&took != 0 {
			twice |= 1 << i
		} else if c.used[at.extent()] |= took; len(c.used) > n {
			c.sum.Extents++
		}
		if e.Kind == kindExtent {
			break
		}
	}
	if twice != 0 {
		c.report(Problem{Thing: "map", Key: k, Blocks: twice, Why: fmt.Sprintf("its place, extent %d, is named twice", e.place(bits.TrailingZeros16(uint16(twice))).extent())})
	}
	buf := c.o.Pool.Get(placement.BlockSize)
	defer buf.Release()
	var bad placement.Mask
	var cause error
	for i := range placement.BlocksPerChunk {
		if e.Valid>>i&1 == 0 || c.over[k]>>i&1 != 0 {
			continue
		}
		c.sum.Blocks++
		at := place{kind: onDisk, slot: e.place(i)}
		if err := c.b.readPlace(&at, buf.Bytes()); err != nil {
			bad, cause = bad|1<<i, err
		} else if crc32.Checksum(buf.Bytes(), castagnoli) != e.Sum[i] {
			bad |= 1 << i
		}
	}
	switch {
	case cause != nil:
		c.report(Problem{Thing: "data", Key: k, Blocks: bad, Why: cause.Error()})
	case bad != 0:
		c.report(Problem{Thing: "data", Key: k, Blocks: bad, Why: fmt.Sprintf("checksum mismatch in extent %d", e.place(bits.TrailingZeros16(uint16(bad))).extent())})
	}
}

// space adds up what no entry names.
func (c *checker) space() error {
	for _, d := range c.b.alloc.files {
		n, err := d.plain.Size()
		if err != nil {
			return fmt.Errorf("brick: %w", err)
		}
		c.sum.Unnamed += uint64(n)
	}
	c.sum.Unnamed -= min(c.sum.Unnamed, uint64(len(c.used))*extentSize)
	return nil
}
