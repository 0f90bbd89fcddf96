package brick

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"petal/placement"
)

// Sums is what one node of a chunk holds, for comparing copies.
type Sums struct {
	Valid, Zero, Missing placement.Mask                   // disjoint; blocks in none were never written there
	Sum                  [placement.BlocksPerChunk]uint32 // CRC32C of each valid block
}

// Sums fills in what is committed of a chunk at one node. It may wait for the
// disk; no data is read.
func (b *Brick) Sums(k placement.Key, dst *Sums) error {
	var at places
	absent, err := b.findAt(k, placement.Full, &at)
	defer at.release()
	if err != nil {
		return err
	}
	*dst = Sums{Missing: at.of(elsewhere), Zero: at.of(nowhere) &^ absent}
	dst.Valid = placement.Full &^ (dst.Missing | dst.Zero | absent)
	for i := range at {
		if dst.Valid>>i&1 != 0 {
			dst.Sum[i] = at[i].sum
		}
	}
	return nil
}

// Keys appends to dst the chunks of a family, at each node, of which there is
// anything here in a bucket: data, zeros or missing blocks, in the map or
// committed and on the way there. They ascend by chunk, then by node from new to
// old, after from, or from the beginning if that is zero, until dst is full.
// Fewer than fit mean that there are no more. It may wait for the disk.
func (b *Brick) Keys(f placement.Family, bucket placement.Bucket, from placement.Key, dst []placement.Key) ([]placement.Key, error) {
	waiting := b.pending.keys(f, bucket, from)
	upTo := func(k *placement.Key) {
		for len(waiting) > 0 && len(dst) < cap(dst) && (k == nil || compareKeys(waiting[0], *k) < 0) {
			dst, waiting = append(dst, waiting[0]), waiting[1:]
		}
	}
	lo, hi := familyBounds(f)
	it, err := b.pmap.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return dst, fmt.Errorf("brick: map: %w", err)
	}
	defer it.Close()
	at := bucketChunk(f, bucket, from.Chunk)
	lo = binary.BigEndian.AppendUint64(lo[:5:5], uint64(at))
	if from.Family != 0 && at == from.Chunk {
		lo = append(appendKey(nil, from), 0)
	}
	for ok := it.SeekGE(lo); ok && len(dst) < cap(dst); {
		k, err := parseKey(it.Key())
		if err != nil {
			return dst, err
		}
		if at := bucketChunk(f, bucket, k.Chunk); at > maxChunk {
			break
		} else if at != k.Chunk { // on to the bucket's next chunk
			ok = it.SeekGE(binary.BigEndian.AppendUint64(lo[:5:5], uint64(at)))
			continue
		}
		upTo(&k)
		if len(waiting) > 0 && waiting[0] == k {
			waiting = waiting[1:]
		}
		if len(dst) < cap(dst) {
			dst = append(dst, k)
		}
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		return dst, fmt.Errorf("brick: map: %w", err)
	}
	upTo(nil)
	return dst, nil
}

// bucketChunk returns the first chunk from one on that is in a bucket.
func bucketChunk(f placement.Family, bucket placement.Bucket, from placement.Chunk) placement.Chunk {
	return from + placement.Chunk((bucket+placement.Buckets-placement.BucketOf(f, from))%placement.Buckets)
}

// keys returns the keys of a family's committed records in a bucket, in order,
// after from.
func (x *pending) keys(f placement.Family, bucket placement.Bucket, from placement.Key) (found []placement.Key) {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for k, c := range s.chunks {
			if k.Family == f && placement.BucketOf(f, k.Chunk) == bucket && c.newest != nil && (from.Family == 0 || compareKeys(k, from) > 0) {
				found = append(found, k)
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(found, compareKeys)
	return found
}

// Families appends to dst the families that have anything here, in the map or
// committed and on the way there, ascending.
func (b *Brick) Families(dst []placement.Family) ([]placement.Family, error) {
	first := len(dst)
	for i := range b.pending.shards {
		s := &b.pending.shards[i]
		s.mu.Lock()
		for k, c := range s.chunks {
			if c.newest != nil {
				dst = append(dst, k.Family)
			}
		}
		s.mu.Unlock()
	}
	it, err := b.pmap.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyData}, UpperBound: []byte{keyData + 1}})
	if err != nil {
		return dst, fmt.Errorf("brick: map: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; {
		k, err := parseKey(it.Key())
		if err != nil {
			return dst, err
		}
		dst = append(dst, k.Family)
		_, next := familyBounds(k.Family)
		ok = it.SeekGE(next)
	}
	if err := it.Error(); err != nil {
		return dst, fmt.Errorf("brick: map: %w", err)
	}
	found := dst[first:]
	slices.Sort(found)
	return append(dst[:first], slices.Compact(found)...), nil
}
