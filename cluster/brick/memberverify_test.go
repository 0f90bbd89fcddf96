package brick

import (
	"fmt"

	"petal/placement"
)

// verify checks one chunk, read as clients do, and read bare; and its sums.
func (g *memberRig) verify(k placement.Key) error {
	want := g.fold(k, true)
	got, err := g.at(k)
	if err != nil || !same(k, got, want) {
		return fmt.Errorf("%+v holds\n%v, want\n%v (%v)", k, got, want, err)
	}
	lineage := g.lineage(k.Node)
	var states []state
	for _, n := range lineage {
		states = append(states, g.fold(placement.Key{Family: 1, Node: n, Chunk: k.Chunk}, true))
	}
	want = view(states)
	for i := range want {
		if want[i] == absent {
			want[i] = 0
		}
	}
	over := false
	first := g.rng.IntN(16)
	op := &ReadOp{Family: 1, Lineage: lineage, Chunk: k.Chunk, First: first, Count: 1 + g.rng.IntN(16-first), Done: func(*ReadOp) { over = true }}
	got = want
	if err := g.finish(op, &over, func() error { return g.readInto(op, &got) }); err != nil {
		return err
	}
	if got != want || (op.Err == nil) != (op.Missing == 0) {
		return fmt.Errorf("%+v reads\n%v, want\n%v (%v, missing %#x)", k, got, want, op.Err, op.Missing)
	}
	return g.verifySums(k)
}

func (g *memberRig) verifySums(k placement.Key) error {
	var sums Sums
	if err := g.b.Sums(k, &sums); err != nil {
		return err
	}
	b := make([]byte, placement.BlockSize)
	for i, id := range g.fold(k, true) {
		valid, zero, missing := sums.Valid>>i&1 != 0, sums.Zero>>i&1 != 0, sums.Missing>>i&1 != 0
		ok := false
		switch id {
		case absent, 0:
			ok = !valid && !missing && (root(k.Node) || zero == (id == 0))
		case lacking:
			ok = missing && !valid && !zero
		default:
			fill(b, id)
			ok = valid && !zero && !missing && sums.Sum[i] == checksum(b)
		}
		if !ok {
			return fmt.Errorf("sums of %+v, block %d, which is %d: %+v", k, i, id, sums)
		}
	}
	return nil
}

// verifyNotes checks what the brick lists: missing blocks exactly, marks, keys.
func (g *memberRig) verifyNotes() error {
	missing := map[placement.Key]placement.Mask{}
	present := map[placement.Key]bool{}
	for _, k := range g.keys() {
		for i, id := range g.fold(k, true) {
			if id == lacking {
				missing[k] |= 1 << i
			}
			if id != absent && !(id == 0 && root(k.Node)) {
				present[k] = true
			}
		}
	}
	var from Mark
	for dst := make([]Mark, 0, 1+g.rng.IntN(3)); ; from = dst[len(dst)-1] {
		var err error
		if dst, err = g.b.Missing(memberLink, from, dst[:0]); err != nil {
			return err
		}
		for _, m := range dst {
			if missing[m.Key] != m.Mask || m.Bucket != placement.BucketOf(1, m.Key.Chunk) {
				return fmt.Errorf("%+v is said to be missing, want %#x", m, missing[m.Key])
			}
			delete(missing, m.Key)
		}
		if len(dst) < cap(dst) {
			break
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not said to be missing: %v", missing)
	}
	for bucket := range placement.Bucket(3) {
		bucket += placement.BucketOf(1, 0)
		dst := make([]placement.Key, 0, 1+g.rng.IntN(3))
		var last placement.Key
		for {
			var err error
			if dst, err = g.b.Keys(1, bucket, last, dst[:0]); err != nil {
				return err
			}
			for _, k := range dst {
				if last.Family != 0 && compareKeys(last, k) >= 0 || placement.BucketOf(1, k.Chunk) != bucket {
					return fmt.Errorf("key %+v after %+v in bucket %d", k, last, bucket)
				}
				delete(present, k)
				last = k
			}
			if len(dst) < cap(dst) {
				break
			}
		}
	}
	if len(present) > 0 {
		return fmt.Errorf("keys that are not listed: %v", present)
	}
	return g.verifyMarks()
}

// verifyMarks checks that all marks are there, and none that nobody made.
func (g *memberRig) verifyMarks() error {
	for m := range placement.Member(2) {
		live := map[placement.Key]placement.Mask{}
		ever := map[placement.Key]placement.Mask{}
		some := map[placement.Key]bool{}
		for _, o := range g.ops {
			if !o.excl.Has(m) || o.gone {
				continue
			}
			ever[o.key] |= o.mask
			if o.stamp.Ver >= g.drops[m] {
				some[o.key] = true
			}
			if o.stamp.Ver >= max(g.drops[m], g.maybe[m]) && (o.typ != typeMarks || o.done) {
				live[o.key] |= o.mask
			}
		}
		for c := range placement.Chunk(3) {
			bucket := placement.BucketOf(1, c)
			dst := make([]Mark, 0, 1+g.rng.IntN(3))
			var from placement.Key
			for {
				var err error
				if dst, err = g.b.Marks(memberLink, m, bucket, from, dst[:0]); err != nil {
					return err
				}
				for _, x := range dst {
					if !some[x.Key] || live[x.Key]&^x.Mask != 0 || x.Mask&^ever[x.Key] != 0 {
						return fmt.Errorf("member %d lacks %+v, want %#x", m, x, live[x.Key])
					}
					delete(live, x.Key)
					from = x.Key
				}
				if len(dst) < cap(dst) {
					break
				}
			}
		}
		if len(live) > 0 {
			return fmt.Errorf("member %d is not said to lack %v", m, live)
		}
	}
	return nil
}
