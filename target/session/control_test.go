package session

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petal/target/iscsi"
	"petal/target/login"
	"petal/target/serial"
)

// TestWindow: the window closes with the commands in flight, what is outside
// of it is ignored, and it opens again with the answers.
func TestWindow(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold = true
		var hs []*iscsi.BHS
		for range 8 {
			h := r.command(0x28, 10, 10)
			r.send(h, nil)
			hs = append(hs, h)
		}
		beyond := r.command(0x28, 10, 10)
		r.send(beyond, nil)
		before := r.command(0x28, 10, 10)
		before.Request().SetCmdSN(99)
		r.send(before, nil)
		r.cmdSN -= 2
		synctest.Wait()
		if n := len(r.nexus.saw().running); n != 8 {
			t.Fatalf("%d commands run, the window was for 8", n)
		}
		for i := range hs {
			r.nexus.complete(r.nexus.saw().running[0])
			d := r.want(iscsi.OpDataIn).DataIn()
			if w := d.Window(); w.First != 108 || w.Last != 108+serial.CmdSN(i) {
				t.Errorf("after %d answers the window is %v", i+1, w)
			}
		}
	})
}

// TestImmediate: immediate commands take no place in the window, up to a limit.
func TestImmediate(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold = true
		for range maxImmediate {
			h := r.command(0x28, 10, 10)
			h.SetImmediate(true)
			r.cmdSN--
			r.send(h, nil)
		}
		h := r.command(0x28, 10, 10)
		h.SetImmediate(true)
		r.send(h, nil)
		x := r.want(iscsi.OpReject).Reject()
		if x.Reason() != iscsi.RejectTooManyImmediate || x.Window().Len() != 8 {
			t.Errorf("reason %v, window %v", x.Reason(), x.Window())
		}
		if bad := r.data(); !bytes.Equal(bad, h[:]) {
			t.Errorf("rejected header % x", bad)
		}
	})
}

// TestImmediateBudget: immediate commands wait for nothing, so what they borrow
// is refused beyond the budget; those that borrow nothing are let in.
func TestImmediateBudget(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Budget = 5000 }, func(r *rig) {
		r.nexus.hold = true
		immediate := func(opcode byte, n int) {
			h := r.command(opcode, n, n)
			h.SetImmediate(true)
			r.cmdSN--
			r.send(h, nil)
		}
		immediate(0x28, 3000)
		immediate(0x28, 3000)
		if x := r.want(iscsi.OpReject).Reject(); x.Reason() != iscsi.RejectTooManyImmediate {
			t.Errorf("reason %v", x.Reason())
		}
		r.data()
		immediate(0, 0)
		r.want(iscsi.OpSCSIResponse)
	})
}

// TestReject: what costs one PDU, after which the session goes on.
func TestReject(t *testing.T) {
	for name, c := range map[string]struct {
		pdu    func(*rig) *iscsi.BHS
		reason iscsi.RejectReason
	}{
		"SNACK": {func(r *rig) *iscsi.BHS {
			h := r.request(iscsi.OpSNACK)
			r.cmdSN--
			return h
		}, iscsi.RejectSNACK},
		"unknown opcode": {func(r *rig) *iscsi.BHS {
			h := r.request(iscsi.Opcode(0x1c))
			r.cmdSN--
			return h
		}, iscsi.RejectCommandNotSupported},
		"tag in use": {func(r *rig) *iscsi.BHS {
			r.nexus.hold = true
			h := r.command(0x28, 10, 10)
			r.send(h, nil)
			h.Request().SetCmdSN(r.cmdSN)
			r.cmdSN++
			return h
		}, iscsi.RejectTaskInProgress},
		"logout reason": {func(r *rig) *iscsi.BHS {
			h := r.request(iscsi.OpLogoutReq)
			h.LogoutRequest().SetReason(3)
			return h
		}, iscsi.RejectInvalidPDUField},
		"AHS cut off": {func(r *rig) *iscsi.BHS { return nil }, iscsi.RejectInvalidPDUField},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				if h := c.pdu(r); h != nil {
					r.send(h, nil)
				} else {
					r.out.Append(r.command(0x28, 10, 10), []byte{0, 9, 1, 0}, nil)
					r.flush()
				}
				if x := r.want(iscsi.OpReject).Reject(); x.Reason() != c.reason {
					t.Errorf("reason %v, want %v", x.Reason(), c.reason)
				}
				r.nexus.hold = false
				h := r.command(0x00, 0, 0)
				r.send(h, nil)
				r.wantStatus(h, 0)
			})
		})
	}
}

// TestProtocolError: what costs the connection.
func TestProtocolError(t *testing.T) {
	strict := func(cfg *Config) { cfg.Params.InitialR2T, cfg.Params.ImmediateData = true, false }
	for name, c := range map[string]struct {
		change func(*Config)
		send   func(*rig)
		why    string
	}{
		"immediate data with a read":            {nil, func(r *rig) { r.send(r.command(0x28, 10, 10), pattern(10)) }, "does not write"},
		"immediate data not agreed":             {strict, func(r *rig) { r.send(r.command(0x2a, 10, 10), pattern(10)) }, "ImmediateData"},
		"immediate data too long":               {nil, func(r *rig) { r.send(r.command(0x2a, 10, 10), pattern(11)) }, "13.14"},
		"immediate data beyond the first burst": {nil, func(r *rig) { r.send(r.command(0x2a, 4000, 4000), pattern(3001)) }, "13.14"},
		"unsolicited data not agreed": {strict, func(r *rig) {
			h := r.command(0x2a, 10, 10)
			h.SetFinal(false)
			r.send(h, nil)
		}, "InitialR2T"},
		"read without F": {nil, func(r *rig) {
			h := r.command(0x28, 10, 10)
			h.SetFinal(false)
			r.send(h, nil)
		}, "F bit"},
		"CmdSN left out": {nil, func(r *rig) {
			r.cmdSN++
			r.send(r.command(0x28, 10, 10), nil)
		}, "left out"},
		"login": {nil, func(r *rig) { r.send(r.immediate(iscsi.OpLoginRequest), nil) }, "Login Request"},
		"data segment too long": {nil, func(r *rig) {
			h := r.command(0x2a, 9000, 9000)
			h.SetDataLength(4097)
			r.out.AppendRaw(h[:])
			r.flush()
		}, "MaxRecvDataSegmentLength"},
		"unsolicited after F": {nil, func(r *rig) {
			h := r.command(0x2a, 4000, 4000)
			r.send(h, nil)
			r.want(iscsi.OpR2T)
			r.send(r.dataOut(h, iscsi.ReservedTag, 0, 0), pattern(10))
		}, "after the F bit"},
		"unsolicited beyond the first burst": {nil, func(r *rig) {
			h := r.command(0x2a, 4000, 4000)
			h.SetFinal(false)
			r.send(h, pattern(2000))
			r.send(r.dataOut(h, iscsi.ReservedTag, 0, 2000), pattern(1001))
		}, "FirstBurstLength"},
		"offset": {nil, func(r *rig) {
			h := r.command(0x2a, 4000, 4000)
			r.send(h, nil)
			q := *r.want(iscsi.OpR2T)
			r.send(r.dataOut(h, q.R2T().TTT(), 0, 4), pattern(10))
		}, "buffer offset"},
		"more than the R2T": {nil, func(r *rig) {
			h := r.command(0x2a, 1000, 1000)
			r.send(h, nil)
			q := *r.want(iscsi.OpR2T)
			r.send(r.dataOut(h, q.R2T().TTT(), 0, 0), pattern(1001))
		}, "the R2T at 1000"},
		"less than the R2T": {nil, func(r *rig) {
			h := r.command(0x2a, 1000, 1000)
			r.send(h, nil)
			q := *r.want(iscsi.OpR2T)
			r.send(r.dataOut(h, q.R2T().TTT(), 0, 0), pattern(999))
		}, "the R2T at 1000"},
		"second R2T first": {nil, func(r *rig) {
			h := r.command(0x2a, 8000, 8000)
			r.send(h, nil)
			r.want(iscsi.OpR2T)
			q := *r.want(iscsi.OpR2T)
			r.send(r.dataOut(h, q.R2T().TTT(), 0, 5000), pattern(10))
		}, "DataSequenceInOrder"},
		"ping without tag that is not immediate": {nil, func(r *rig) {
			h := r.request(iscsi.OpNOPOut)
			h.SetITT(iscsi.ReservedTag)
			r.send(h, nil)
		}, "not immediate"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.change, func(r *rig) {
				r.doomed = true
				c.send(r)
				err := r.wantClosed()
				if _, ok := errors.AsType[*iscsi.ConnectionError](err); !ok || !strings.Contains(err.Error(), c.why) {
					t.Errorf("ended with %v, want a ConnectionError with %q", err, c.why)
				}
				if lost := <-r.nexus.detached; !lost {
					t.Error("not a loss of the nexus")
				}
			})
		})
	}
}

// TestRefused: commands that the session refuses with sense data.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		odd       func(iscsi.SCSICommand)
		asc, ascq byte
	}{
		"ACA":           {func(c iscsi.SCSICommand) { c.SetAttribute(iscsi.ACA) }, 0x49, 0},
		"reserved":      {func(c iscsi.SCSICommand) { c.SetAttribute(7) }, 0x49, 0},
		"bidirectional": {func(c iscsi.SCSICommand) { c.SetWrite(true) }, 0x24, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				h := r.command(0x28, 10, 10)
				c.odd(h.SCSICommand())
				r.send(h, nil)
				r.wantStatus(h, 2)
				if s := r.data(); s[2+2] != 5 || s[2+12] != c.asc || s[2+13] != c.ascq {
					t.Errorf("sense % x", s)
				}
			})
		})
	}
}

// TestOrder: ORDERED waits for what came before and holds back what comes
// after; HEAD OF QUEUE waits for nothing.
func TestOrder(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold = true
		for i, a := range []iscsi.TaskAttribute{iscsi.Simple, iscsi.Untagged, iscsi.Ordered, iscsi.Simple, iscsi.HeadOfQueue} {
			h := r.command(0x28, 10, 10)
			h.SCSICommand().SetAttribute(a)
			h.SCSICommand().CDB()[1] = byte(i)
			r.send(h, nil)
		}
		other := r.command(0x28, 10, 10) // of another logical unit: not held back
		other.SetLUN(1 << 48)
		other.SCSICommand().CDB()[1] = 9
		r.send(other, nil)
		for _, want := range [][]byte{{0, 1, 4, 9}, {2}, {3}} {
			synctest.Wait()
			if got := r.nexus.saw().order; !bytes.Equal(got, want) {
				t.Fatalf("running %v, want %v", got, want)
			}
			r.nexus.forget()
			n := len(want)
			go r.nexus.completeAll()
			for range n {
				r.want(iscsi.OpDataIn)
			}
		}
	})
}

// TestColdReset: all sessions of the target are dropped after the answer.
func TestColdReset(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Reset = nil }, func(r *rig) {
		r.s.cfg.Reset = func() { r.s.Close(errors.New("reset")) }
		r.send(r.taskRequest(iscsi.TargetColdReset).BHS, nil)
		r.wantTask(iscsi.TaskFunctionComplete)
		r.wantClosed()
	})
}

// TestPing: the initiator's NOP-Out comes back with its data, as much as the
// initiator takes.
func TestPing(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.request(iscsi.OpNOPOut)
		h.NOPOut().SetTTT(iscsi.ReservedTag)
		r.send(h, pattern(3000))
		n := *r.want(iscsi.OpNOPIn)
		if n.ITT() != h.ITT() || n.NOPIn().StatSN() != 10 || n.NOPIn().Window().First != 101 || !bytes.Equal(r.data(), pattern(testParams.MaxSend)) {
			t.Errorf("answer % x", n[:])
		}
	})
}

// TestLifeline: silence is pinged, an answer saves the session, none ends it.
func TestLifeline(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Ping, cfg.PingTimeout = 5*time.Second, 10*time.Second }, func(r *rig) {
		begin := time.Now()
		n := r.want(iscsi.OpNOPIn).NOPIn()
		if time.Since(begin) != 5*time.Second || n.ITT() != iscsi.ReservedTag || n.TTT() == iscsi.ReservedTag || n.StatSN() != 10 {
			t.Errorf("ping after %v: % x", time.Since(begin), n.BHS[:])
		}
		a := r.immediate(iscsi.OpNOPOut).NOPOut()
		a.SetITT(iscsi.ReservedTag)
		a.SetTTT(n.TTT())
		r.send(a.BHS, nil)
		r.want(iscsi.OpNOPIn) // the next one
		if err := r.wantClosed(); err != ErrDeadPeer {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(begin); d != 30*time.Second {
			t.Errorf("lived %v: ping at 5 s, heard, looked again at 15 s, pinged at 20 s, gone at 30 s", d)
		}
	})
}

// TestLogout: what is in flight ends, the answer comes last, and the nexus is
// not lost.
func TestLogout(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold, r.nexus.stubborn = true, true
		r.send(r.command(0x28, 10, 10), nil)
		h := r.request(iscsi.OpLogoutReq)
		r.send(h, nil)
		r.wantNothing()
		r.nexus.completeAll()
		l := r.want(iscsi.OpLogoutResp).LogoutResponse()
		if l.Code() != iscsi.LogoutDone || l.Time2Wait() != 2 || l.Time2Retain() != 20 {
			t.Errorf("answer % x", l.BHS[:])
		}
		if err := r.wantClosed(); err != nil {
			t.Errorf("ended with %v", err)
		}
		if lost := <-r.nexus.detached; lost {
			t.Error("logged out, but the nexus was lost")
		}
	})
}

// TestLogoutRefused: for recovery, or of another connection.
func TestLogoutRefused(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.request(iscsi.OpLogoutReq)
		h.LogoutRequest().SetReason(iscsi.LogoutRecovery)
		r.send(h, nil)
		if l := r.want(iscsi.OpLogoutResp).LogoutResponse(); l.Code() != iscsi.LogoutRecoveryUnsupported {
			t.Errorf("recovery: %v", l.Code())
		}
		h = r.request(iscsi.OpLogoutReq)
		h.LogoutRequest().SetReason(iscsi.LogoutConnection)
		h.LogoutRequest().SetCID(8)
		r.send(h, nil)
		if l := r.want(iscsi.OpLogoutResp).LogoutResponse(); l.Code() != iscsi.LogoutCIDNotFound {
			t.Errorf("other connection: %v", l.Code())
		}
	})
}

// authority of text requests.
type authority struct{}

func (authority) Admit(string, string) login.Admission { return login.Admission{} }
func (authority) Targets(string) []login.Target {
	var ts []login.Target
	for range 40 {
		ts = append(ts, login.Target{Name: "iqn.2026-11.petal:" + strings.Repeat("x", 50), Portals: []login.Portal{{Address: "192.0.2.1:3260", Group: 1}}})
	}
	return ts
}

// TestText: SendTargets in several PDUs, in a discovery session.
func TestText(t *testing.T) {
	result := &login.Result{Discovery: true, Params: testParams}
	discovery := func(cfg *Config) { cfg.Nexus, cfg.Text = nil, login.NewText(authority{}, result) }
	inBubble(t, discovery, func(r *rig) {
		h := r.request(iscsi.OpTextRequest)
		h.TextRequest().SetTTT(iscsi.ReservedTag)
		r.send(h, iscsi.AppendPair(nil, "SendTargets", "All"))
		var text []byte
		for {
			a := *r.want(iscsi.OpTextResponse)
			text = append(text, r.data()...)
			if a.Final() {
				break
			}
			if len(text)%testParams.MaxSend != 0 || !a.TextResponse().Continue() {
				t.Fatalf("part ends at %d", len(text))
			}
			h.TextRequest().SetTTT(a.TextResponse().TTT())
			h.Request().SetCmdSN(r.cmdSN)
			r.cmdSN++
			r.send(h, nil)
		}
		if n := bytes.Count(text, []byte("TargetAddress=192.0.2.1:3260,1\x00")); n != 40 {
			t.Errorf("%d addresses", n)
		}
		r.send(r.command(0x00, 0, 0), nil)
		r.want(iscsi.OpReject)
		r.wantClosed()
	})
}

// TestDrain: the initiator is asked to log out; as it does not, what is in
// flight is answered and the connection closed.
func TestDrain(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.hold = true
		h := r.command(0x28, 10, 10)
		r.send(h, nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go r.s.Drain(ctx, 3*time.Second)
		a := r.want(iscsi.OpAsyncMessage).AsyncMessage()
		if _, _, p3 := a.Parameters(); a.Event() != iscsi.AsyncLogoutRequest || p3 != 3 {
			t.Errorf("asked with % x", a.BHS[:])
		}
		<-time.After(5 * time.Second)        // virtual
		r.send(r.command(0x28, 10, 10), nil) // too late: not taken
		r.nexus.completeAll()
		r.want(iscsi.OpDataIn)
		if a := r.want(iscsi.OpAsyncMessage).AsyncMessage(); a.Event() != iscsi.AsyncDropConnection {
			t.Errorf("dropped with %v", a.Event())
		}
		if err := r.wantClosed(); err != ErrDrained || r.nexus.saw().began != 1 {
			t.Errorf("ended with %v; %d commands", err, r.nexus.saw().began)
		}
	})
}

// TestUnreachable: no status where the data cannot be reached; the path is
// lost instead.
func TestUnreachable(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.drop = true
		r.send(r.command(0x28, 10, 10), nil)
		if err := r.wantClosed(); err != ErrUnreachable {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestDrop: the initiator is told, and when it may come back.
func TestDrop(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		why := errors.New("why")
		r.s.RequestNegotiation(9 * time.Second)
		if a := r.want(iscsi.OpAsyncMessage).AsyncMessage(); a.Event() != iscsi.AsyncNegotiate {
			t.Errorf("event %v", a.Event())
		}
		r.s.Drop(why, 2*time.Second, 0)
		if a := r.want(iscsi.OpAsyncMessage).AsyncMessage(); a.Event() != iscsi.AsyncDropSession {
			t.Errorf("event %v", a.Event())
		}
		if err := r.wantClosed(); err != why {
			t.Errorf("ended with %v", err)
		}
		r.s.AbortAll(0, false, func() { why = nil })
		if why != nil {
			t.Error("AbortAll after the end does not call done")
		}
	})
}

// TestReopen: when the window was closed for want of bytes and nothing is left
// to answer, a NOP-In opens it.
func TestReopen(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Depth, cfg.Budget = 1, 1000 }, func(r *rig) {
		h := r.command(0x28, 1000, 1000)
		r.send(h, nil)
		if d := r.want(iscsi.OpDataIn).DataIn(); d.Window().Len() != 0 {
			t.Fatalf("window %v with the whole budget lent", d.Window())
		}
		r.data()
		if n := r.want(iscsi.OpNOPIn).NOPIn(); n.Window().Len() != 1 || n.TTT() != iscsi.ReservedTag {
			t.Errorf("NOP-In with window %v", n.Window())
		}
	})
}

// TestBacklog: an initiator that sends pings and never reads the answers is not
// read from any more after a while; when it reads again, all is there.
func TestBacklog(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		const pings = 2000
		sent := make(chan int, pings)
		go func() {
			for i := range pings {
				h := new(iscsi.BHS)
				h.Reset(iscsi.OpNOPOut)
				h.SetImmediate(true)
				h.SetFinal(true)
				h.SetITT(uint32(i))
				h.NOPOut().SetTTT(iscsi.ReservedTag)
				h.Request().SetCmdSN(100)
				r.out.AppendBytes(h, pattern(2048))
				r.out.Flush(r.conn)
				sent <- i
			}
		}()
		synctest.Wait()
		if n := len(sent) * 2048; n < backlogMax*9/10 || n > backlogMax*11/10 {
			t.Errorf("%d bytes of answers wait, the limit is %d", n, backlogMax)
		}
		for i := range uint32(pings) {
			if n := r.want(iscsi.OpNOPIn); n.ITT() != i {
				t.Fatalf("answer to %d, want %d", n.ITT(), i)
			}
		}
	})
}
