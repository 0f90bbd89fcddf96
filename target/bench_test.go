package target

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"petal/target/iscsi"
)

// initiator is the other side in the raw: it logs in and then writes and reads
// whatever PDUs a test wants.
type initiator struct {
	t     testing.TB
	conn  net.Conn
	in    *iscsi.Reader
	out   iscsi.Writer
	cmdSN uint32
	itt   uint32
}

// dial connects to a portal.
func dial(t testing.TB, address string) *initiator {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	i := &initiator{t: t, conn: c, in: iscsi.NewReader(c, 1<<20)}
	i.in.MaxData = iscsi.MaxDataSegmentField
	return i
}

// login logs in to testTarget straight into operational negotiation, with more
// keys beside the names, and returns the last response.
func (i *initiator) login(isid byte, keys ...string) iscsi.LoginResponse {
	i.t.Helper()
	text := []iscsi.Pair{{Key: "InitiatorName", Value: testInitiator}, {Key: "SessionType", Value: "Normal"}, {Key: "TargetName", Value: testTarget}}
	for k := 0; k < len(keys); k += 2 {
		text = append(text, iscsi.Pair{Key: keys[k], Value: keys[k+1]})
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpLoginRequest)
	h.SetImmediate(true)
	l := h.LoginRequest()
	l.SetTransit(true)
	l.SetCSG(iscsi.StageOperational)
	l.SetNSG(iscsi.StageFullFeature)
	l.SetISID(iscsi.ISID{0x80, 0, 0, 0, 0, isid})
	l.SetCmdSN(1)
	i.cmdSN = 1
	i.send(&h, iscsi.AppendText(nil, text))
	for {
		r := i.next().LoginResponse()
		if r.Status() != iscsi.LoginSuccess || r.Transit() {
			return r
		}
		l.SetCmdSN(1)
		i.send(&h, nil)
	}
}

func (i *initiator) send(h *iscsi.BHS, data []byte) {
	i.t.Helper()
	i.out.AppendBytes(h, data)
	if err := i.out.Flush(i.conn); err != nil {
		i.t.Fatal(err)
	}
}

func (i *initiator) next() *iscsi.BHS {
	i.t.Helper()
	h, err := i.in.Next()
	if err != nil {
		i.t.Fatal(err)
	}
	return h
}

// BenchmarkCommand measures 4 KiB commands on a disk in memory over loopback,
// both sides together but for allocations of the initiator, of which there are
// none. It goes round in batches of the depth.
func BenchmarkCommand(b *testing.B) {
	for _, c := range []struct {
		name  string
		write bool
		depth int
		size  int
	}{
		{"Read4K/Depth1", false, 1, 4096}, {"Read4K/Depth32", false, 32, 4096},
		{"Write4K/Depth1", true, 1, 4096}, {"Write4K/Depth32", true, 32, 4096},
		{"Read64K/Depth8", false, 8, 64 << 10}, {"Write64K/Depth8", true, 8, 64 << 10},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkCommand(b, c.write, c.depth, c.size) })
	}
}

func benchmarkCommand(b *testing.B, write bool, depth, size int) {
	bench := newBench(b, Config{NopInterval: -1})
	i := dial(b, bench.address)
	if r := i.login(1, "MaxRecvDataSegmentLength", "262144", "FirstBurstLength", "262144", "InitialR2T", "No", "ImmediateData", "Yes"); r.Status() != iscsi.LoginSuccess {
		b.Fatal(r.Status())
	}
	for range 4 { // unit attentions
		i.out.AppendBytes(i.command(0, size, false), nil)
		i.out.Flush(i.conn)
		i.finish()
	}
	unit := iscsi.HeaderSize
	if write {
		unit += size
	}
	request := make([]byte, depth*unit)
	answer := make([]byte, depth*(iscsi.HeaderSize+size))
	if write {
		answer = answer[:depth*iscsi.HeaderSize]
	}
	round := func(n int) {
		for k := range n {
			h := i.command(uint32(k*size/512)%60000, size, write)
			copy(request[k*unit:], h[:])
			if write {
				(*iscsi.BHS)(request[k*unit:]).SetDataLength(size)
			}
		}
		if _, err := i.conn.Write(request[:n*unit]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(i.conn, answer[:n*len(answer)/depth]); err != nil {
			b.Fatal(err)
		}
		if h := (*iscsi.BHS)(answer); h.DataIn().Status() != 0 {
			b.Fatal("status", h.DataIn().Status())
		}
	}
	for range 64 {
		round(depth)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += depth {
		round(min(depth, b.N-n))
	}
}

var benchHeader iscsi.BHS

// command is a READ(10) or WRITE(10) with immediate data.
func (i *initiator) command(lba uint32, size int, write bool) *iscsi.BHS {
	h := &benchHeader
	h.Reset(iscsi.OpSCSICommand)
	h.SetFinal(true)
	c := h.SCSICommand()
	c.SetRead(!write)
	c.SetWrite(write)
	c.SetAttribute(iscsi.Simple)
	i.itt++
	c.SetITT(i.itt)
	c.SetExpectedLength(uint32(size))
	binary.BigEndian.PutUint32(h[24:], i.cmdSN)
	i.cmdSN++
	cdb := c.CDB()
	cdb[0] = 0x28
	if write {
		cdb[0] = 0x2a
	}
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], uint16(size/512))
	return h
}

// finish reads PDUs up to the status.
func (i *initiator) finish() (status uint8) {
	for {
		h := i.next()
		if h.Opcode() == iscsi.OpSCSIResponse {
			return h.SCSIResponse().Status()
		}
		if h.Opcode() == iscsi.OpDataIn && h.DataIn().HasStatus() {
			return h.DataIn().Status()
		}
	}
}
