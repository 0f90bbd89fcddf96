package placement

import (
	"math/bits"
	"testing"
)

func TestSpan(t *testing.T) {
	for first := 0; first <= BlocksPerChunk; first++ {
		for n := 0; first+n <= BlocksPerChunk; n++ {
			m := Span(first, n)
			if bits.OnesCount16(uint16(m)) != n || n > 0 && (bits.TrailingZeros16(uint16(m)) != first || bits.Len16(uint16(m)) != first+n) {
				t.Errorf("Span(%d, %d) = %#x", first, n, m)
			}
		}
	}
	if Span(0, BlocksPerChunk) != Full {
		t.Error("Span of a whole chunk is not Full")
	}
	for _, c := range [][2]int{{-1, 1}, {0, -1}, {0, 17}, {16, 1}, {9, 8}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Span(%d, %d) does not panic", c[0], c[1])
				}
			}()
			Span(c[0], c[1])
		}()
	}
}

// TestBucketOf holds buckets to what they are on people's disks: the low bits of
// 514e28b7, 30f4c306 and 81f16f39, which is MurmurHash3's finalizer of the families.
func TestBucketOf(t *testing.T) {
	for _, c := range []struct {
		family Family
		chunk  Chunk
		want   Bucket
	}{
		{1, 0, 0x8b7}, {1, 1, 0x8b8}, {1, 4095, 0x8b6}, {1, 4096, 0x8b7}, {1, 1<<48 - 1, 0x8b6},
		{2, 0, 0x306}, {0xffffffff, 0, 0xf39},
	} {
		if got := BucketOf(c.family, c.chunk); got != c.want {
			t.Errorf("BucketOf(%d, %d) = %d, want %d", c.family, c.chunk, got, c.want)
		}
	}
}

// TestBucketsAreAStride: 4096 chunks in a row lie in 4096 different buckets,
// and the first chunks of small disks are spread over all of them.
func TestBucketsAreAStride(t *testing.T) {
	var seen [Buckets]int
	for c := range Chunk(Buckets) {
		seen[BucketOf(77, 1000+c)]++
	}
	for b, n := range seen {
		if n != 1 {
			t.Fatalf("bucket %d has %d of %d chunks in a row", b, n, Buckets)
		}
	}
	clear(seen[:])
	for f := range Family(16 * Buckets) {
		seen[BucketOf(f+1, 0)]++
	}
	for b, n := range seen {
		if n < 2 || n > 48 {
			t.Errorf("bucket %d has the first chunk of %d families, 16 would be even", b, n)
		}
	}
}
