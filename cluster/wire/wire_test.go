package wire

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"petal/placement"
)

// TestHeaderByteForByte holds the format to the package's drawing.
func TestHeaderByteForByte(t *testing.T) {
	m := Message{
		Kind: Replicate, Flags: FlagZero, Status: OK, Excluded: 2, Code: 1,
		Op: placement.OpID{Coordinator: 0x01020304, Incarnation: 0x05060708, Number: 0x1112131415161718}, Ver: 0x21, VVer: 0x31,
		Link: placement.LinkID{GMap: 0x41, Position: 0x42}, Key: placement.Key{Family: 0x51, Node: 0x52, Chunk: 0x53},
		Bucket: 0x0abc, Mask: 0x8001, Stamp: placement.Stamp{Ver: 0x61, Seq: 0x62}, Committed: placement.Stamp{Ver: 0x63, Seq: 0x64},
		Sent: 0x0000_a6a5_a4a3_a2a1 * time.Microsecond,
	}
	frame, err := m.AppendFrame(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "70746c1a 01 20 0200 04030201 08070605 1817161514131211 2100000000000000 3100000000000000 5300000000000000" +
		"00000000 4000 a1a2a3a4a5a6 CRC" +
		"00 02 01 00 00000000 51000000 52000000 41000000 42000000 bc0a 0180 0000 0000" +
		"6100000000000000 6200000000000000 6300000000000000 6400000000000000"
	got := hex.EncodeToString(frame[:60]) + "CRC" + hex.EncodeToString(frame[64:])
	if want = strings.ReplaceAll(want, " ", ""); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestTable: every kind has a name of its own and a detail that fits; what it is
// for has a class.
func TestTable(t *testing.T) {
	names := map[string]Kind{}
	for _, k := range allKinds() {
		r := &kinds[k]
		if other, twice := names[r.name]; twice {
			t.Errorf("%d and %d are both called %s", k, other, r.name)
		}
		names[r.name] = k
		if n := r.detailSize() + 4*placement.BlocksPerChunk; n > MaxDetail {
			t.Errorf("%v has a detail of up to %d bytes", k, n)
		}
		if (r.form == formBody) != (r.body > 0) || r.body > MaxPayload {
			t.Errorf("%v: form %d, body of up to %d bytes", k, r.form, r.body)
		}
		hasData := r.form != formNone && r.form != formBody
		if hasData != (r.fields&fieldSums != 0) {
			t.Errorf("%v: data and their sums go together", k)
		}
		if (r.class == ClassAny) != (k < Write) {
			t.Errorf("%v is of class %v", k, r.class)
		}
	}
	if len(names) < 30 {
		t.Errorf("only %d kinds", len(names))
	}
	if got := Kind(200).String(); got != "kind 200" || Kind(200).Known() {
		t.Errorf("unknown kind is %q", got)
	}
}

func TestStatusNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range Status(statuses) {
		if n := s.String(); n == "" || seen[n] || strings.HasPrefix(n, "status") {
			t.Errorf("status %d is called %q", uint8(s), n)
		} else {
			seen[n] = true
		}
	}
	if got := Status(200).String(); got != "status 200" {
		t.Errorf("unknown status is %q", got)
	}
}

// TestNewerAndCorruptDiffer: a version is believed only if the checksum is right.
func TestNewerAndCorruptDiffer(t *testing.T) {
	pool := newPool(t)
	frame, _ := filled(Ping, pool).AppendFrame(nil)
	var m Message
	frame[atVersion] = Version + 1
	if _, err := m.DecodeFrame(frame, pool); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		t.Errorf("damaged version: %v", err)
	}
	reseal(frame)
	if _, err := m.DecodeFrame(frame, pool); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Errorf("newer version: %v", err)
	}
	frame[atVersion] = 0
	reseal(frame)
	if _, err := m.DecodeFrame(frame, pool); !errors.Is(err, ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
}

// TestLengthsBeforeMemory: lengths beyond the maximum are refused by the first 64
// bytes alone.
func TestLengthsBeforeMemory(t *testing.T) {
	pool := newPool(t)
	frame, _ := filled(Raft, pool).AppendFrame(nil)
	for _, c := range []struct {
		name   string
		change func(h []byte)
	}{
		{"payload", func(h []byte) { le.PutUint32(h[atPayload:], MaxPayload+1) }},
		{"payload of 4 GiB", func(h []byte) { le.PutUint32(h[atPayload:], 1<<32-1) }},
		{"detail", func(h []byte) { le.PutUint16(h[atDetail:], MaxDetail+1) }},
		{"no detail", func(h []byte) { le.PutUint16(h[atDetail:], wordSize-1) }},
		{"magic", func(h []byte) { h[0]++ }},
	} {
		h := Header(frame)
		c.change(h[:])
		var m Message
		if _, err := m.DecodeFrame(h[:], pool); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestDetailIsExact: bytes that no field accounts for are refused.
func TestDetailIsExact(t *testing.T) {
	pool := newPool(t)
	for _, k := range []Kind{Ping, Ack, Raft, Replicate} {
		m := filled(k, pool)
		frame, _ := m.AppendFrame(nil)
		join(m)
		for _, change := range []int{4, -4} {
			detail, _, _ := (*Header)(frame).Lengths()
			long := append([]byte(nil), frame[:HeaderSize+detail+min(change, 0)]...)
			long = append(append(long, make([]byte, max(change, 0))...), frame[HeaderSize+detail:]...)
			le.PutUint16(long[atDetail:], uint16(detail+change))
			reseal(long)
			var got Message
			if _, err := got.DecodeFrame(long, pool); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v with a detail of %d bytes, not %d: %v", k, detail+change, detail, err)
			}
		}
	}
}

// TestCheckRefuses what a receiver would refuse, or could not tell.
func TestCheckRefuses(t *testing.T) {
	pool := newPool(t)
	for _, c := range []struct {
		name   string
		kind   Kind
		change func(m *Message)
	}{
		{"unknown kind", Ping, func(m *Message) { m.Kind = 7 }},
		{"unknown flag", Ping, func(m *Message) { m.Flags = 1 << 15 }},
		{"body too long", Raft, func(m *Message) { m.Body = make([]byte, MaxBody+1) }},
		{"body of a kind without", Ping, func(m *Message) { m.Body = []byte{1} }},
		{"data too short", Write, func(m *Message) { m.Data[0].Len-- }},
		{"data of a kind without", Read, func(m *Message) { m.Data = dataOf(pool, 1) }},
		{"chunk", Read, func(m *Message) { m.Key.Chunk = 1 << 48 }},
		{"bucket", Ack, func(m *Message) { m.Bucket = placement.Buckets }},
		{"excluded", Replicate, func(m *Message) { m.Excluded = 8 }},
		{"no block", Replicate, func(m *Message) { m.Mask, m.Flags = 0, FlagZero }},
		{"data and none", Fetched, func(m *Message) { m.Mask, m.Flags = 1, FlagZero }},
		{"empty span", Read, func(m *Message) { m.To = m.From }},
		{"span to the left", Read, func(m *Message) { m.From, m.To = m.To, m.From }},
		{"span beyond", Read, func(m *Message) { m.To = placement.ChunkSize + 512 }},
		{"unaligned from", Read, func(m *Message) { m.From++ }},
		{"unaligned to", Read, func(m *Message) { m.To++ }},
		{"compare over two blocks", CompareAndWrite, func(m *Message) { m.From, m.To = 4096-512, 4096+512 }},
		{"reply of blocks not asked for", Reply, func(m *Message) { m.Mask = 1 << 15 }},
	} {
		m := filled(c.kind, pool)
		if err := m.Check(); err != nil {
			t.Fatalf("%v: %v", c.kind, err)
		}
		c.change(m)
		if err := m.Check(); err == nil {
			t.Errorf("%s: taken", c.name)
		}
		m.Data.Release()
	}
}

func TestPieces(t *testing.T) {
	for _, c := range []struct {
		m    Message
		want []int
	}{
		{Message{Kind: Write, From: 0, To: 512}, []int{512}},
		{Message{Kind: Write, From: 0, To: 65536}, []int{4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096}},
		{Message{Kind: Write, From: 4096 - 512, To: 8192 + 1024}, []int{512, 4096, 1024}},
		{Message{Kind: Reply, From: 4096 - 512, To: 8192 + 1024, Mask: 0b101}, []int{512, 1024}},
		{Message{Kind: Reply, From: 77}, nil},
		{Message{Kind: CompareAndWrite, From: 512, To: 1024}, []int{512, 512}},
		{Message{Kind: Replicate, Mask: 0x8001}, []int{4096, 4096}},
		{Message{Kind: Replicate, Mask: 0x8001, Flags: FlagZero}, nil},
		{Message{Kind: Fetched, Mask: 0, Bad: 0xffff}, nil},
		{Message{Kind: Raft}, nil},
	} {
		var got []int
		n := c.m.Pieces(func(i, length int) {
			if i != len(got) {
				t.Errorf("%v: piece %d is called %d", c.m.Kind, len(got), i)
			}
			got = append(got, length)
		})
		sum := 0
		for _, l := range c.want {
			sum += l
		}
		if n != len(c.want) || len(got) != n || c.m.DataLength() != sum {
			t.Errorf("%v of %d to %d: %v, %d bytes; want %v", c.m.Kind, c.m.From, c.m.To, got, c.m.DataLength(), c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%v: %v, want %v", c.m.Kind, got, c.want)
			}
		}
	}
}

// TestVerify finds one wrong byte in any piece, wherever buffers are cut.
func TestVerify(t *testing.T) {
	pool := newPool(t)
	for _, k := range []Kind{Write, CompareAndWrite, Reply, Replicate, Fetched} {
		m := filled(k, pool)
		if !m.Verify() {
			t.Fatalf("%v: sums do not fit", k)
		}
		for i := range m.Data {
			b := m.Data[i].Bytes()
			for _, at := range []int{0, len(b) / 2, len(b) - 1} {
				b[at]++
				if m.Verify() {
					t.Errorf("%v: byte %d of buffer %d is wrong and not found", k, at, i)
				}
				b[at]--
			}
		}
		last := &m.Data[len(m.Data)-1]
		last.Len--
		if m.Verify() {
			t.Errorf("%v: a byte is lacking and not found", k)
		}
		last.Len++
		m.Data.Release()
	}
	if Sum([]byte("123456789")) != 0xe3069283 { // RFC 3720 appendix B.4's polynomial
		t.Error("not CRC32C")
	}
}

func TestLists(t *testing.T) {
	var b []byte
	want := []Progress{{1, placement.Stamp{Ver: 2, Seq: 3}, placement.Stamp{Ver: 4, Seq: 5}}, {4095, placement.Stamp{Ver: 1<<64 - 1}, placement.Stamp{}}}
	for _, p := range want {
		b = AppendProgress(b, p)
	}
	i := 0
	if err := ParseProgress(b, func(p Progress) bool { i++; return p == want[i-1] }); err != nil || i != 2 {
		t.Errorf("%d elements right, %v", i, err)
	}
	if err := ParseProgress(b[1:], func(Progress) bool { t.Error("called"); return true }); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	b[ProgressSize+1] = 0x10 // bucket 4351
	if err := ParseProgress(b, func(Progress) bool { t.Error("called"); return true }); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if len(b) != 2*ProgressSize || ProgressMax < placement.Buckets {
		t.Errorf("%d bytes; %d in the longest list", len(b), ProgressMax)
	}

	marks := []Mark{{placement.Key{Family: 1, Node: 2, Chunk: 3}, 4}, {placement.Key{Family: 1<<32 - 1, Node: 1<<32 - 1, Chunk: maxChunk}, placement.Full}}
	b = nil
	for _, m := range marks {
		b = AppendMark(b, m)
	}
	i = 0
	if err := ParseMarks(b, func(m Mark) bool { i++; return m == marks[i-1] }); err != nil || i != 2 {
		t.Errorf("%d elements right, %v", i, err)
	}
	for _, at := range []int{0, 4, 16} { // family, node or mask zero
		c := append([]byte(nil), b[:MarkSize]...)
		clear(c[at:min(at+4, MarkSize)])
		if err := ParseMarks(c, func(Mark) bool { t.Error("called"); return true }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("zero at %d: %v", at, err)
		}
	}
	b[15] = 1 // chunk
	if err := ParseMarks(b, nil); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if err := ParseMarks(b[:17], nil); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

func FuzzLists(f *testing.F) {
	f.Add(AppendProgress(nil, Progress{Bucket: 1}), AppendMark(nil, Mark{placement.Key{Family: 1, Node: 1}, 1}))
	f.Fuzz(func(t *testing.T, p, m []byte) {
		var b []byte
		if ParseProgress(p, func(x Progress) bool { b = AppendProgress(b, x); return true }) == nil && string(b) != string(p) {
			t.Fatal("progress encoded again differs")
		}
		b = nil
		if ParseMarks(m, func(x Mark) bool { b = AppendMark(b, x); return true }) == nil && string(b) != string(m) {
			t.Fatal("marks encoded again differ")
		}
	})
}

// room records what it got back.
type room int

func (r *room) ReturnRoom(n int) { *r += room(n) }

func TestRoomGoesBackOnce(t *testing.T) {
	var r room
	m := Message{Room: Room{&r, 100}}
	kept := m.Keep()
	m.Room.Return()
	if r != 0 {
		t.Errorf("%d bytes came back, but they are kept", r)
	}
	kept.Return()
	if r != 100 {
		t.Errorf("%d bytes came back", r)
	}
	Room{}.Return()
}

// TestNoAllocations on the kinds that each block and each command needs.
func TestNoAllocations(t *testing.T) {
	pool := newPool(t)
	for _, k := range []Kind{Write, Read, Reply, Replicate, Ack, Ping} {
		m := filled(k, pool)
		b := make([]byte, 0, 1<<10)
		var got Message
		if n := testing.AllocsPerRun(2000, func() {
			b = m.Append(b[:0])
			if got.Decode(b[:len(b)-len(m.Body)]) != nil || m.Check() != nil || !m.Verify() {
				t.Fatal(k)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", k, n)
		}
		m.Data.Release()
	}
}

func BenchmarkCodec(b *testing.B) {
	pool := newPool(b)
	for _, k := range []Kind{Replicate, Ack, Read} {
		m := filled(k, pool)
		if k == Replicate {
			m.Data.Release()
			m.Mask = 1
			m.Data = dataOf(pool, placement.BlockSize)
		}
		var got Message
		buf := make([]byte, 0, 1<<10)
		b.Run(k.String()+"/append", func(b *testing.B) {
			for b.Loop() {
				buf = m.Append(buf[:0])
			}
		})
		b.Run(k.String()+"/decode", func(b *testing.B) {
			for b.Loop() {
				if err := got.Decode(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		m.Data.Release()
	}
}
