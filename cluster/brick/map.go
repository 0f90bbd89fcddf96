package brick

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/journal"
	"petal/placement"
)

// pmap is the physical map: Pebble without its own log, since the journal is
// the log. After a crash it holds the effect of a prefix of the batches that
// were applied; each batch sets the applied mark, so the mark says which.
//
//	Rules: every batch sets the mark; Flush comes before journal.Trim; nothing
//	is ever ingested (it would not keep the order).
type pmap struct {
	db      *pebble.DB
	cache   *pebble.Cache
	hot     hotEntries
	trouble trouble
}

// mapFormat is the format of the files in map/. Raising it is a format change
// of the brick: an older petal refuses the map then.
const mapFormat = pebble.FormatFlushableIngest

func openMap(fsys pebblefs.FS, dir string, readOnly bool, log *slog.Logger) (*pmap, error) {
	m := &pmap{cache: pebble.NewCache(32 << 20)}
	m.trouble.init(log)
	o := &pebble.Options{
		FS:                          fsys,
		Cache:                       m.cache,
		DisableWAL:                  true,
		ReadOnly:                    readOnly,
		FormatMajorVersion:          mapFormat,
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                256,
		Logger:                      &m.trouble,
		EventListener:               &pebble.EventListener{BackgroundError: m.trouble.background},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 8 << 10
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		m.cache.Unref()
		return nil, fmt.Errorf("brick: map: %w", err)
	}
	m.db = db
	m.trouble.open.Store(true)
	return m, nil
}

// close ends the map. One that Pebble gave up is left as it is: some of its
// goroutines ended with locks held.
func (m *pmap) close() error {
	if m.trouble.gaveUp() {
		return nil
	}
	err := m.db.Close()
	m.cache.Unref()
	return err
}

// applied returns the mark: every record up to it is wholly in the map.
func (m *pmap) applied() (journal.LSN, error) { return m.mark(keyApplied) }

// mark returns the LSN under a key, or zero if there is none.
func (m *pmap) mark(key []byte) (journal.LSN, error) {
	v, c, err := m.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("brick: map: %w", err)
	}
	defer c.Close()
	if len(v) != 8 {
		return 0, rotten("map", "has a mark %q of %d bytes", key, len(v))
	}
	return journal.LSN(binary.LittleEndian.Uint64(v)), nil
}

func setApplied(b *pebble.Batch, l journal.LSN) error {
	return b.Set(keyApplied, binary.LittleEndian.AppendUint64(nil, uint64(l)), nil)
}

// lookup returns the entry of a key; a zero entry if there is none.
func (m *pmap) lookup(k placement.Key, e *entry) error {
	gen, ok := m.hot.get(k, e)
	if ok {
		return nil
	}
	var kb [keySize]byte
	v, c, err := m.db.Get(appendKey(kb[:0], k))
	if errors.Is(err, pebble.ErrNotFound) {
		*e = entry{}
		m.hot.put(k, e, gen)
		return nil
	} else if err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	defer c.Close()
	if err := parseEntry(v, e); err != nil {
		return err
	}
	m.hot.put(k, e, gen)
	return nil
}

// scan calls f for each entry of the keys in [lo, hi), in order.
func (m *pmap) scan(lo, hi []byte, f func(placement.Key, *entry) error) error {
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	defer it.Close()
	var e entry
	for it.First(); it.Valid(); it.Next() {
		k, err := parseKey(it.Key())
		if err != nil {
			return err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("brick: map: %w", err)
		}
		if err := parseEntry(v, &e); err != nil {
			return fmt.Errorf("entry of family %d chunk %d node %d: %w", k.Family, k.Chunk, k.Node, err)
		}
		if err := f(k, &e); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	return nil
}

// hotEntries is a direct-mapped cache of decoded entries, absent ones too. A
// fill carries the generation that its shard had before the map was read, and
// is dropped if the shard was written since, so it never holds what the map no
// longer says.
type hotEntries struct {
	shards [hotShards]hotShard
}

const (
	hotShards = 64
	hotSlots  = 256
)

type hotShard struct {
	mu    sync.Mutex
	gen   uint64
	slots []hotSlot
}

type hotSlot struct {
	key   placement.Key
	entry entry
}

func (h *hotEntries) find(k placement.Key) (*hotShard, int) {
	x := hashKey(k)
	return &h.shards[x>>58], int(x >> 32 % hotSlots)
}

// get copies a cached entry, or returns the generation for a later put.
func (h *hotEntries) get(k placement.Key, e *entry) (gen uint64, ok bool) {
	s, i := h.find(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots != nil && s.slots[i].key == k {
		*e = s.slots[i].entry
		return s.gen, true
	}
	return s.gen, false
}

func (h *hotEntries) put(k placement.Key, e *entry, gen uint64) {
	s, i := h.find(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		return
	}
	if s.slots == nil {
		s.slots = make([]hotSlot, hotSlots)
	}
	s.slots[i] = hotSlot{k, *e}
}

// set replaces what is cached of k, after the map was written.
func (h *hotEntries) set(k placement.Key, e *entry) {
	s, i := h.find(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	if s.slots != nil && s.slots[i].key == k {
		s.slots[i].entry = *e
	}
}

// clear forgets everything.
func (h *hotEntries) clear() {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.gen++
		s.slots = nil
		s.mu.Unlock()
	}
}
