package load

import (
	"math/bits"
	"time"
)

// subBits sets a Histogram's resolution: 2^subBits buckets an octave, an error
// of at most 1/2^subBits (3 %) of a value.
const subBits = 5

// Histogram counts durations, from 1 ns to the longest that time.Duration
// holds, in buckets of constant relative width. Not safe for concurrent use.
type Histogram struct {
	counts [(64 - subBits) << subBits]uint64
	count  uint64
	sum    time.Duration
	max    time.Duration
}

// bucket is the index of d's bucket: its exponent, then its next subBits bits.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	exp := bits.Len64(v) - subBits - 1
	return exp<<subBits + int(v>>exp)
}

// bucketTop is the longest duration that falls into bucket i.
func bucketTop(i int) time.Duration {
	exp := i>>subBits - 1
	if exp < 0 {
		return time.Duration(i)
	}
	low := uint64(i&(1<<subBits-1)|1<<subBits) << exp
	return time.Duration(low + 1<<exp - 1)
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(d)]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds all that o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.count += o.count
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.count }

// Max is the longest duration added, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the arithmetic mean, 0 of nothing.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile is the duration that a share q (0 to 1) of all did not exceed, at
// most 3 % too long and never above Max. It is 0 of nothing.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.count))
	rank = min(max(rank, 1), h.count)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(bucketTop(i), h.max)
		}
	}
	return h.max
}

// Latency is a Histogram in short, in microseconds.
type Latency struct {
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

// Summary is the histogram's Latency.
func (h *Histogram) Summary() Latency {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return Latency{
		Mean: us(h.Mean()), P50: us(h.Quantile(0.5)), P90: us(h.Quantile(0.9)),
		P99: us(h.Quantile(0.99)), P999: us(h.Quantile(0.999)), Max: us(h.max),
	}
}
