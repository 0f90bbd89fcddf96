package session

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/lun"
)

// FuzzSession feeds what bytes there are to a session after login, with a disk
// in memory behind it. It must end, at once and without a panic, with all tasks
// finished and all memory given back.
func FuzzSession(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, input []byte, digests bool) {
		synctest.Test(t, func(t *testing.T) { fuzzSession(t, input, digests) })
	})
}

func fuzzSession(t *testing.T, input []byte, digests bool) {
	disk := lun.NewMemoryDisk(1<<20, 512)
	unit, err := lun.NewUnit(lun.UnitConfig{Disk: disk, Reservations: lun.NewMemoryReservations(), UUID: [16]byte{1}, Name: "d"})
	if err != nil {
		t.Fatal(err)
	}
	device := lun.NewDevice("iqn.2026-11.petal:fuzz")
	device.SetUnit(0, unit)
	ours, theirs := net.Pipe()
	go io.Copy(io.Discard, theirs)
	p := testParams
	p.HeaderDigest, p.DataDigest = digests, digests
	s := New(Config{
		Conn: ours, In: iscsi.NewReader(ours, 1024), Params: p, ExpCmdSN: 1, Depth: 8, Budget: 10000, Ping: -1,
		Log:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
		Text: login.NewText(authority{}, &login.Result{Params: p}),
	})
	s.SetNexus(device.Attach(lun.NexusConfig{Initiator: "iqn.2026-11.petal:i", TargetPort: 1, TPGT: 1, AbortAll: s.AbortAll}))
	go func() {
		theirs.Write(input)
		theirs.Close()
	}()
	begin := time.Now() // virtual
	if err := s.Serve(); err == errBug {
		t.Fatal("a panic; its stack is in the log above")
	}
	if d := time.Since(begin); d > 0 {
		t.Fatalf("took %v to end", d)
	}
	if s.tasks.count != 0 || s.lent != 0 || s.inFlight.Load() != 0 || disk.Outstanding() != 0 {
		t.Errorf("left: %d tasks, %d bytes lent, %d in flight, %d loans", s.tasks.count, s.lent, s.inFlight.Load(), disk.Outstanding())
	}
}

// seeds are streams with each PDU that an initiator sends.
func seeds() [][]byte {
	r := &rig{cmdSN: 1}
	read, write := r.command(0x28, 0, 512), r.command(0x2a, 0, 4096)
	for _, h := range []*iscsi.BHS{read, write} {
		clear(h.SCSICommand().CDB()[1:])
		h.SCSICommand().CDB()[8] = byte(h.SCSICommand().ExpectedLength() / 512)
	}
	out := r.dataOut(write, 1, 0, 1000)
	abort := r.taskRequest(iscsi.AbortTask)
	abort.SetRefITT(write.ITT())
	reset := r.taskRequest(iscsi.LogicalUnitReset)
	cold := r.taskRequest(iscsi.TargetColdReset)
	ping, text, logout := r.request(iscsi.OpNOPOut), r.request(iscsi.OpTextRequest), r.request(iscsi.OpLogoutReq)
	text.TextRequest().SetTTT(iscsi.ReservedTag)
	snack := r.immediate(iscsi.OpSNACK)
	var all [][]byte
	stream := func(data []byte, hs ...*iscsi.BHS) {
		var b sink
		var w iscsi.Writer
		for _, h := range hs {
			w.AppendBytes(h, data)
		}
		w.Flush(&b)
		all = append(all, b)
	}
	stream(nil, read, write, abort.BHS)
	stream(nil, read, write, reset.BHS, ping)
	stream(pattern(1000), write, out)
	stream(nil, write, write, cold.BHS)
	stream([]byte("SendTargets=All\x00"), text)
	stream(nil, snack, ping, text, logout)
	return all
}

type sink []byte

func (s *sink) Write(b []byte) (int, error) {
	*s = append(*s, b...)
	return len(b), nil
}
