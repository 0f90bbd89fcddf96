package initiator_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"petal/target/initiator"
	"petal/target/iscsi"
	"petal/target/serial"
)

// fake is a target that lets a test say what it sends.
type fake struct {
	t      testing.TB
	statSN serial.StatSN
	keys   []string // answered in the operational stage, key=value
	digest bool
	split  bool // the last login response comes in two, with the C bit
}

// accept takes one connection, answers its login and calls script.
func (f *fake) accept(l net.Listener, script func(*initiator.Conn)) {
	nc, err := l.Accept()
	if err != nil {
		return
	}
	c := initiator.NewConn(nc)
	defer c.Close()
	for {
		p, err := c.Recv()
		if err != nil {
			f.t.Error(err)
			return
		}
		if f.login(c, p) {
			break
		}
	}
	c.HeaderDigest, c.DataDigest = f.digest, f.digest
	script(c)
}

// login answers one login request and reports whether it was the last.
func (f *fake) login(c *initiator.Conn, in *initiator.PDU) bool {
	request := in.LoginRequest()
	out := &initiator.PDU{}
	out.Reset(iscsi.OpLoginResponse)
	r := out.LoginResponse()
	r.SetISID(request.ISID())
	r.SetTSIH(1)
	r.SetITT(request.ITT())
	r.SetCSG(request.CSG())
	r.SetNSG(request.NSG())
	r.SetTransit(request.Transit())
	f.number(r.Response)
	text := ""
	if request.CSG() == iscsi.StageOperational {
		text = strings.Join(f.keys, "\x00") + "\x00"
	}
	if f.split && text != "" {
		r.SetContinue(true)
		r.SetTransit(false)
		out.Data = []byte(text[:len(text)/2])
		f.send(c, out)
		if _, err := c.Recv(); err != nil {
			f.t.Error(err)
		}
		r.SetContinue(false)
		r.SetTransit(true)
		r.SetNSG(iscsi.StageFullFeature)
		f.number(r.Response)
		text = text[len(text)/2:]
	}
	out.Data = []byte(text)
	f.send(c, out)
	return request.Transit() && request.NSG() == iscsi.StageFullFeature
}

// number gives a response the next StatSN and a wide window.
func (f *fake) number(r iscsi.Response) {
	r.SetStatSN(f.statSN)
	f.statSN++
	r.SetWindow(serial.CmdWindow{First: 1, Last: 100})
}

// send does not look for errors: an initiator that has seen enough closes the
// connection, and may do so before the fake has said all that it has to say.
func (f *fake) send(c *initiator.Conn, p *initiator.PDU, faults ...initiator.Fault) {
	c.Send(p, faults...)
}

// respond answers a command with GOOD.
func (f *fake) respond(p *initiator.PDU) *initiator.PDU {
	out := &initiator.PDU{}
	out.Reset(iscsi.OpSCSIResponse)
	out.SetFinal(true)
	out.SetITT(p.ITT())
	f.number(out.Response())
	return out
}

// dataIn makes a Data-In PDU without status.
func (f *fake) dataIn(p *initiator.PDU, sn, offset, n int) *initiator.PDU {
	out := &initiator.PDU{Data: make([]byte, n)}
	out.Reset(iscsi.OpDataIn)
	d := out.DataIn()
	d.SetITT(p.ITT())
	d.SetTTT(iscsi.ReservedTag)
	d.SetDataSN(serial.DataSN(sn))
	d.SetBufferOffset(uint32(offset))
	d.SetWindow(serial.CmdWindow{First: 1, Last: 100})
	return out
}

func (f *fake) r2t(p *initiator.PDU, sn, offset, n int) *initiator.PDU {
	out := &initiator.PDU{}
	out.Reset(iscsi.OpR2T)
	out.SetFinal(true)
	r := out.R2T()
	r.SetITT(p.ITT())
	r.SetTTT(7)
	r.SetStatSN(f.statSN)
	r.SetR2TSN(serial.R2TSN(sn))
	r.SetBufferOffset(uint32(offset))
	r.SetDesiredLength(uint32(n))
	r.SetWindow(serial.CmdWindow{First: 1, Last: 100})
	return out
}

// run logs in to the fake and runs one task of 1024 bytes.
func (f *fake) run(write bool, script func(c *initiator.Conn, p *initiator.PDU)) error {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.accept(l, func(c *initiator.Conn) {
			if p, err := c.Recv(); err == nil {
				script(c, p)
				c.Recv() // until the initiator closes
			}
		})
	}()
	s, err := initiator.Dial(within(f.t), urlOf(l.Addr().String()), initiator.Options{
		HeaderDigest: f.digest, DataDigest: f.digest, Keys: map[string]string{"ImmediateData": "No", "InitialR2T": "Yes"},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	task := &initiator.Task{LUN: s.LUN(), CDB: initiator.Read16(0, 2), In: make([]byte, 1024)}
	if write {
		task = &initiator.Task{LUN: s.LUN(), CDB: initiator.Write16(0, 2), Out: make([]byte, 1024)}
	}
	err = s.Do(within(f.t), task)
	s.Close()
	<-done
	return err
}

// Every way of breaking the protocol is noticed, with its name.
func TestTargetBreaksTheProtocol(t *testing.T) {
	type script = func(f *fake, c *initiator.Conn, p *initiator.PDU)
	cases := []struct {
		name  string
		write bool
		do    script
		want  string // in the error
	}{
		{"StatSN skipped", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			f.statSN++
			f.send(c, f.respond(p))
		}, "StatSN"},
		{"response to no task", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			r := f.respond(p)
			r.SetITT(p.ITT() + 1<<16)
			f.send(c, r)
		}, "which is no task"},
		{"DataSN wrong", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.dataIn(p, 1, 0, 512)) }, "DataSN"},
		{"data beyond the buffer", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.dataIn(p, 0, 0, 1028)) }, "buffer of 1024"},
		{"data with a gap", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.dataIn(p, 0, 512, 512)) }, "in force"},
		{"R2T beyond the data", true, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.r2t(p, 0, 512, 1024)) }, "asked for"},
		{"R2T of nothing", true, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.r2t(p, 0, 0, 0)) }, "asked for"},
		{"R2TSN wrong", true, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.r2t(p, 1, 0, 512)) }, "R2TSN"},
		{"R2T of a read", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) { f.send(c, f.r2t(p, 0, 0, 512)) }, "asked for"},
		{"sense longer than its segment", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			r := f.respond(p)
			r.Data = []byte{0, 200, 1, 2}
			f.send(c, r)
		}, "SenseLength"},
		{"request from the target", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			r := f.respond(p)
			r.Reset(iscsi.OpSCSICommand)
			f.send(c, r)
		}, "SCSI Command"},
		{"reject", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			r := f.respond(p)
			r.Reset(iscsi.OpReject)
			r.Reject().SetReason(iscsi.RejectProtocolError)
			f.send(c, r)
		}, "rejected"},
		{"connection closed in a PDU", false, func(f *fake, c *initiator.Conn, p *initiator.PDU) {
			f.send(c, f.dataIn(p, 0, 0, 512), initiator.HalfSent)
		}, "unexpected EOF"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{t: t}
			err := f.run(tc.write, func(c *initiator.Conn, p *initiator.PDU) { tc.do(f, c, p) })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestBadDigestEndsTheConnection(t *testing.T) {
	for name, fault := range map[string]initiator.Fault{"header": initiator.BadHeaderDigest, "data": initiator.BadDataDigest, "none": 0} {
		f := &fake{t: t, digest: true, keys: []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C"}}
		err := f.run(false, func(c *initiator.Conn, p *initiator.PDU) {
			f.send(c, f.dataIn(p, 0, 0, 512), fault)
			f.send(c, f.respond(p))
		})
		if (err != nil) != (fault != 0) {
			t.Errorf("bad digest: %s: error is %v", name, err)
		}
	}
}

func TestDropMessageEndsTheConnection(t *testing.T) {
	f := &fake{t: t}
	err := f.run(false, func(c *initiator.Conn, p *initiator.PDU) {
		out := &initiator.PDU{}
		out.Reset(iscsi.OpAsyncMessage)
		out.SetITT(iscsi.ReservedTag)
		f.number(out.Response())
		out.AsyncMessage().SetEvent(iscsi.AsyncLogoutRequest)
		f.send(c, out)
	})
	if e, ok := errors.AsType[*initiator.DropError](err); !ok || e.Event != iscsi.AsyncLogoutRequest {
		t.Errorf("error is %v", err)
	}
}

// A login response cut in the middle of a key by the C bit.
func TestLoginResponseInTwoParts(t *testing.T) {
	f := &fake{t: t, split: true, keys: []string{"MaxBurstLength=8192", "MaxRecvDataSegmentLength=1024"}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go f.accept(l, func(c *initiator.Conn) { c.Recv() })
	s, err := initiator.Dial(within(t), urlOf(l.Addr().String()), initiator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p := s.Params(); p.MaxBurst != 8192 || p.MaxSend != 1024 {
		t.Errorf("negotiated %+v", p)
	}
}
