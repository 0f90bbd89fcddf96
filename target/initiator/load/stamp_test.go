package load

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// withSum appends the CRC that a state file ends with, so that the fuzzer gets
// past it.
func withSum(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

func TestStamp(t *testing.T) {
	data := make([]byte, 4*SectorBytes)
	putStamps(data, 7, 1000, 64)
	for i := range 4 {
		s := data[i*SectorBytes:][:SectorBytes]
		if c, op, sector := readStamp(s, 7); c != contentStamp || op != 1000 || sector != uint64(64+i) {
			t.Errorf("sector %d: content %d, op %d, sector %d", i, c, op, sector)
		}
		if c, _, _ := readStamp(s, 8); c != contentForeign {
			t.Errorf("sector %d passes for another run's", i)
		}
	}
	if bytes.Equal(data[:SectorBytes], data[SectorBytes:2*SectorBytes]) {
		t.Error("two sectors are alike")
	}
	if c, _, _ := readStamp(make([]byte, SectorBytes), 7); c != contentZero {
		t.Errorf("zeros are %d", c)
	}
}

// Every single bit counts.
func TestStampNoticesEveryBit(t *testing.T) {
	s := make([]byte, SectorBytes)
	putStamp(s, 7, 1000, 64)
	for bit := range SectorBytes * 8 {
		s[bit/8] ^= 1 << (bit % 8)
		if c, _, _ := readStamp(s, 7); c != contentRotten && c != contentForeign {
			t.Fatalf("bit %d flipped: content %d", bit, c)
		}
		s[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzReadStamp(f *testing.F) {
	s := make([]byte, SectorBytes)
	putStamp(s, 7, 1000, 64)
	f.Add(s)
	f.Add(make([]byte, SectorBytes))
	f.Fuzz(func(t *testing.T, s []byte) {
		if len(s) != SectorBytes {
			return
		}
		if c, op, sector := readStamp(s, 7); c == contentStamp {
			want := make([]byte, SectorBytes)
			putStamp(want, 7, op, sector)
			if !bytes.Equal(s[:stampFiller], want[:stampFiller]) {
				t.Errorf("taken for a stamp: % x", s)
			}
		}
	})
}

func BenchmarkStamp4k(b *testing.B) {
	data := make([]byte, 4096)
	b.SetBytes(4096)
	for i := range b.N {
		putStamps(data, 7, uint64(i), 64)
	}
}
