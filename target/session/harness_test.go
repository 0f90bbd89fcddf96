package session

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/lun"
	"petal/target/serial"
)

// fakeNexus is a device server with three commands, whose CDB says how many
// bytes they want to transfer:
//
//	00 .. ............ TEST UNIT READY, decided in Begin
//	28 .. length(4)    read: bytes of pattern
//	2a .. length(4)    write: kept in written
//	12 .. ............ decided in Begin, with 36 bytes of pattern
//
// Commands end in Run, unless hold is set; then complete ends them.
type fakeNexus struct {
	s *Session // whose AbortAll a reset calls

	mu       sync.Mutex
	hold     bool
	stubborn bool // Abort is ignored
	sense    []byte
	drop     bool
	panics   bool // in Begin
	began    int
	finished int
	running  []*lun.Command
	order    []byte // byte 1 of the CDBs, in the order of Run
	written  [][]byte
	aborted  int
	managed  []lun.Function
	detached chan bool
}

func (f *fakeNexus) length(c *lun.Command) int { return int(binary.BigEndian.Uint32(c.CDB[2:])) }

func (f *fakeNexus) Begin(c *lun.Command) lun.Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.began++
	if f.panics {
		panic("a bug in Begin")
	}
	switch c.CDB[0] {
	case 0x2a:
		c.OutLen = f.length(c)
		for n := min(c.OutLen, c.Expected); n > 0; n -= 1000 {
			c.Out = append(c.Out, make([]byte, min(n, 1000)))
		}
		return lun.Wait
	case 0x28, 0x5f:
		return lun.Wait
	case 0x12:
		c.In, c.InLen = [][]byte{pattern(36)}, 36
	}
	return lun.Decided
}

func (f *fakeNexus) Run(c *lun.Command) {
	f.mu.Lock()
	f.order = append(f.order, c.CDB[1])
	f.running = append(f.running, c)
	hold := f.hold
	f.mu.Unlock()
	if !hold {
		f.complete(c)
	}
}

// complete ends a running command.
func (f *fakeNexus) complete(c *lun.Command) {
	f.mu.Lock()
	f.running = slices.DeleteFunc(f.running, func(o *lun.Command) bool { return o == c })
	if c.CDB[0] == 0x2a {
		f.written = append(f.written, bytes.Join(c.Out, nil)[:c.OutGot])
	} else {
		c.InLen = f.length(c)
		p := pattern(c.InLen)
		c.In = [][]byte{p[:len(p)/3], p[len(p)/3:]}
	}
	if f.sense != nil {
		c.Status, c.Sense, c.InLen = 2, f.sense, 0
	}
	c.Drop = f.drop
	f.mu.Unlock()
	c.Done(c)
}

// fakeState is what a fakeNexus has seen, for tests to look at.
type fakeState struct {
	began, finished, aborted int
	running                  []*lun.Command
	order                    []byte
	written                  [][]byte
	managed                  []lun.Function
}

func (f *fakeNexus) saw() fakeState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeState{f.began, f.finished, f.aborted, slices.Clone(f.running), slices.Clone(f.order), slices.Clone(f.written), slices.Clone(f.managed)}
}

// forget empties the order of Run.
func (f *fakeNexus) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.order = nil
}

// completeAll ends what is running, in order.
func (f *fakeNexus) completeAll() {
	f.mu.Lock()
	cs := slices.Clone(f.running)
	f.mu.Unlock()
	for _, c := range cs {
		f.complete(c)
	}
}

func (f *fakeNexus) Finish(*lun.Command) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finished++
}

func (f *fakeNexus) Abort(c *lun.Command) {
	f.mu.Lock()
	f.aborted++
	stubborn := f.stubborn
	f.mu.Unlock()
	if !stubborn {
		f.complete(c)
	}
}

func (f *fakeNexus) Manage(fn lun.Function, lu uint64, done func(lun.Response)) {
	f.mu.Lock()
	f.managed = append(f.managed, fn)
	f.mu.Unlock()
	if fn == lun.LogicalUnitReset {
		f.s.AbortAll(lu, false, func() { done(lun.FunctionComplete) })
		return
	}
	done(lun.FunctionComplete)
}

func (f *fakeNexus) Detach(lost bool) { f.detached <- lost }

// pattern is n bytes that tell their place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8*7)
	}
	return b
}

// rig is a session with a fake device server, and the initiator's end of its
// connection, on which the test writes and wants PDUs.
type rig struct {
	t      testing.TB
	nexus  *fakeNexus
	s      *Session
	conn   net.Conn
	in     *iscsi.Reader
	out    iscsi.Writer
	cmdSN  serial.CmdSN
	itt    uint32
	result chan error
	doomed bool // the session may close the connection before it has taken all
}

// testParams are small, so that little data meets every limit.
var testParams = login.Params{
	MaxRecv: 4096, MaxSend: 2048, MaxBurst: 5000, FirstBurst: 3000, MaxOutstandingR2T: 2, ImmediateData: true,
	Time2Wait: 2, Time2Retain: 20,
}

// start runs a session in a synctest bubble.
func start(t testing.TB, change func(*Config)) *rig {
	ours, theirs := net.Pipe()
	r := &rig{t: t, conn: theirs, cmdSN: 100, result: make(chan error, 1), nexus: &fakeNexus{detached: make(chan bool, 1)}}
	r.in = iscsi.NewReader(theirs, 4096)
	cfg := Config{
		Conn: ours, In: iscsi.NewReader(ours, 1024), Params: testParams, Nexus: r.nexus,
		ExpCmdSN: r.cmdSN, StatSN: 10, CID: 7, Depth: 8, Ping: -1,
	}
	if change != nil {
		change(&cfg)
	}
	r.in.HeaderDigest, r.in.DataDigest = cfg.Params.HeaderDigest, cfg.Params.DataDigest
	r.out.HeaderDigest, r.out.DataDigest = cfg.Params.HeaderDigest, cfg.Params.DataDigest
	r.s = New(cfg)
	r.nexus.s = r.s
	go func() { r.result <- r.s.Serve() }()
	return r
}

// inBubble runs a test with a session under virtual time, and checks that the
// session ends with its connection and has given back all that it borrowed.
func inBubble(t *testing.T, change func(*Config), test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, change)
		test(r)
		r.conn.Close()
		synctest.Wait()
		r.nexus.completeAll()
		synctest.Wait()
		select {
		case <-r.s.Done():
		default:
			t.Fatal("the session has not ended with its connection")
		}
		if r.s.broken.Load() {
			t.Error("a panic")
		}
		if saw := r.nexus.saw(); saw.began != saw.finished {
			t.Errorf("%d commands began and %d were finished", saw.began, saw.finished)
		}
		if r.s.part.bytes != 0 {
			t.Errorf("%d bytes of the shared budget are left taken", r.s.part.bytes)
		}
		if r.s.lent != 0 || r.s.tasks.count != 0 || r.s.inFlight.Load() != 0 {
			t.Errorf("left: %d bytes lent, %d tasks, %d in flight", r.s.lent, r.s.tasks.count, r.s.inFlight.Load())
		}
	})
}

// request is a header with the next CmdSN and a tag of its own.
func (r *rig) request(op iscsi.Opcode) *iscsi.BHS {
	h := new(iscsi.BHS)
	h.Reset(op)
	h.SetFinal(true)
	r.itt++
	h.SetITT(r.itt)
	h.Request().SetCmdSN(r.cmdSN)
	r.cmdSN++
	return h
}

// immediate is the same with the I bit.
func (r *rig) immediate(op iscsi.Opcode) *iscsi.BHS {
	h := r.request(op)
	h.SetImmediate(true)
	r.cmdSN--
	return h
}

// command is a SCSI command of the fake device server; expected bytes in the
// direction that the operation code has.
func (r *rig) command(opcode byte, length, expected int) *iscsi.BHS {
	h := r.request(iscsi.OpSCSICommand)
	c := h.SCSICommand()
	c.SetRead(opcode == 0x28 || opcode == 0x12)
	c.SetWrite(opcode == 0x2a)
	c.SetExpectedLength(uint32(expected))
	c.CDB()[0] = opcode
	binary.BigEndian.PutUint32(c.CDB()[2:], uint32(length))
	return h
}

func (r *rig) send(h *iscsi.BHS, data []byte) {
	r.t.Helper()
	r.out.AppendBytes(h, data)
	r.flush()
}

func (r *rig) flush() {
	r.t.Helper()
	if err := r.out.Flush(r.conn); err != nil && !r.doomed {
		r.t.Fatalf("the session does not take what is sent: %v", err)
	}
}

// want reads the next PDU, which must be of the kind.
func (r *rig) want(op iscsi.Opcode) *iscsi.BHS {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(time.Minute))
	h, err := r.in.Next()
	if err != nil {
		r.t.Fatalf("want %v, got %v", op, err)
	}
	if h.Opcode() != op {
		r.t.Fatalf("want %v, got %v % x", op, h.Opcode(), h[:])
	}
	return h
}

// wantStatus reads a SCSI Response for a command.
func (r *rig) wantStatus(command *iscsi.BHS, status uint8) iscsi.SCSIResponse {
	r.t.Helper()
	a := r.want(iscsi.OpSCSIResponse).SCSIResponse()
	if a.ITT() != command.ITT() || a.Status() != status {
		r.t.Fatalf("want status %#x of %d, got %#x of %d", status, command.ITT(), a.Status(), a.ITT())
	}
	return a
}

// wantNothing makes sure that nothing comes for now.
func (r *rig) wantNothing() {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(time.Second))
	if h, err := r.in.Next(); err == nil {
		r.t.Fatalf("want nothing, got %v % x", h.Opcode(), h[:])
	}
	r.in = iscsi.NewReader(r.conn, 4096)
}

// wantClosed makes sure that the session ends the connection, and returns why.
func (r *rig) wantClosed() error {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if h, err := r.in.Next(); err != io.EOF {
		r.t.Fatalf("want the connection closed, got %v %v", h, err)
	}
	return <-r.result
}

// data reads the rest of the present PDU's data.
func (r *rig) data() []byte {
	r.t.Helper()
	b, err := r.in.Data()
	if err != nil {
		r.t.Fatal(err)
	}
	return bytes.Clone(b)
}
