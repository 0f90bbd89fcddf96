package replica

import (
	"hash/crc32"
	"math/bits"
	"sync"
	"time"

	"petal/placement"
)

// throttle is a token bucket on the server's clock: so many bytes per second,
// and a tenth of a second's worth at once.
type throttle struct {
	mu   sync.Mutex
	rate int64 // bytes per second; below 0: no bound
	have float64
	at   time.Duration
}

func (x *throttle) set(rate int64) {
	x.mu.Lock()
	x.rate = rate
	x.mu.Unlock()
}

// take takes n bytes, or says after which time to ask again.
func (x *throttle) take(now time.Duration, n int) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rate < 0 {
		return 0
	}
	rate := float64(max(1, x.rate))
	full := max(rate/10, placement.ChunkSize)
	x.have = min(full, x.have+rate*(now-x.at).Seconds())
	x.at = now
	if x.have < float64(n) {
		return time.Duration((float64(n)-x.have)/rate*float64(time.Second)) + time.Millisecond
	}
	x.have -= float64(n)
	return 0
}

// rateMeter is bytes per second over the last seconds.
type rateMeter struct {
	since time.Duration
	bytes uint64
	last  uint64 // per second
}

func (m *rateMeter) add(now time.Duration, n uint64) {
	m.roll(now)
	m.bytes += n
}

func (m *rateMeter) roll(now time.Duration) {
	if d := now - m.since; d >= time.Second {
		m.last = uint64(float64(m.bytes) / d.Seconds())
		m.bytes, m.since = 0, now
	}
}

func blocks(m placement.Mask) int      { return bits.OnesCount16(uint16(m)) }
func chunkBytes(m placement.Mask) int  { return blocks(m) * placement.BlockSize }
func firstBlock(m placement.Mask) int  { return bits.TrailingZeros16(uint16(m)) }
func lastBlock(m placement.Mask) int   { return bits.Len16(uint16(m)) - 1 }
func rank(m placement.Mask, i int) int { return bits.OnesCount16(uint16(m) & (1<<i - 1)) }
func checksum(b []byte) uint32         { return crc32.Checksum(b, castagnoli) }
