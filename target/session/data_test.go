package session

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"petal/target/iscsi"
	"petal/target/serial"
)

// TestWrite sends data by all three ways, with every split that the limits of
// testParams make, and looks at what the device server got.
func TestWrite(t *testing.T) {
	for _, c := range []struct{ length, expected, immediate, unsolicited int }{
		{1, 1, 1, 0}, {1000, 1000, 0, 0}, {3000, 3000, 3000, 0}, {3000, 3000, 1000, 2000},
		{4096, 4096, 512, 0}, {20000, 20000, 3000, 0}, {20000, 20000, 100, 2900}, {10000, 10000, 0, 3000},
		{500, 1000, 1000, 0},     // underflow: more comes than the CDB asks for
		{500, 3000, 1000, 2000},  // the same, unsolicited
		{2000, 1000, 0, 0},       // overflow
		{9000, 20000, 500, 500},  // underflow beyond the first burst
		{0, 600, 600, 0},         // nothing is of use
		{20000, 20000, 0, 1},     // the smallest unsolicited burst
		{20001, 20001, 1001, 99}, // nothing divides
	} {
		for _, digest := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v/digest=%v", c, digest), func(t *testing.T) {
				inBubble(t, func(cfg *Config) { cfg.Params.DataDigest, cfg.Params.HeaderDigest = digest, digest }, func(r *rig) {
					h := r.command(0x2a, c.length, c.expected)
					h.SetFinal(c.unsolicited == 0)
					data := pattern(c.expected)
					r.send(h, data[:c.immediate])
					r.sendBurst(h, iscsi.ReservedTag, c.immediate, data[c.immediate:c.immediate+c.unsolicited])
					used := min(c.length, c.expected)
					r.serveR2Ts(h, data[:used], c.immediate+c.unsolicited)
					a := r.wantStatus(h, 0)
					if got := r.nexus.saw().written[0]; !bytes.Equal(got, data[:used]) {
						t.Errorf("the device server got %d bytes, wrong ones or too few", len(got))
					}
					checkResidual(t, a.Residual(), c.length, c.expected)
				})
			})
		}
	}
}

// sendBurst sends one sequence of Data-Out PDUs of uneven sizes.
func (r *rig) sendBurst(command *iscsi.BHS, ttt uint32, offset int, data []byte) {
	for sn := serial.DataSN(0); len(data) > 0; sn++ {
		n := min(len(data), 700+333*int(sn))
		d := r.dataOut(command, ttt, sn, offset)
		d.SetFinal(n == len(data))
		r.send(d, data[:n])
		data, offset = data[n:], offset+n
	}
}

func (r *rig) dataOut(command *iscsi.BHS, ttt uint32, sn serial.DataSN, offset int) *iscsi.BHS {
	h := new(iscsi.BHS)
	h.Reset(iscsi.OpDataOut)
	h.SetFinal(true)
	h.SetITT(command.ITT())
	d := h.DataOut()
	d.SetTTT(ttt)
	d.SetDataSN(sn)
	d.SetBufferOffset(uint32(offset))
	return h
}

// serveR2Ts answers R2Ts from offset at to the end of data, and checks them.
func (r *rig) serveR2Ts(command *iscsi.BHS, data []byte, at int) {
	r.t.Helper()
	asked, sn := at, serial.R2TSN(0)
	var open []iscsi.R2T
	for at < len(data) {
		for len(open) < testParams.MaxOutstandingR2T && asked < len(data) {
			h := *r.want(iscsi.OpR2T)
			q := h.R2T()
			if int(q.BufferOffset()) != asked || q.R2TSN() != sn || q.DesiredLength() > uint32(testParams.MaxBurst) || q.ITT() != command.ITT() {
				r.t.Fatalf("R2T %d at %d for %d of task %d, want R2T %d at %d", q.R2TSN(), q.BufferOffset(), q.DesiredLength(), q.ITT(), sn, asked)
			}
			asked += int(q.DesiredLength())
			sn++
			open = append(open, q)
		}
		n := int(open[0].DesiredLength())
		r.sendBurst(command, open[0].TTT(), at, data[at:at+n])
		at += n
		open = open[1:]
	}
}

func checkResidual(t testing.TB, got iscsi.Residual, length, expected int) {
	t.Helper()
	want := iscsi.Residual{Overflow: length > expected, Underflow: length < expected, Count: uint32(max(length-expected, expected-length))}
	if got != want {
		t.Errorf("residual %+v, want %+v", got, want)
	}
}

// TestRead checks how data is split, and where the status is.
func TestRead(t *testing.T) {
	for _, c := range []struct{ length, expected int }{
		{1, 1}, {2048, 2048}, {2049, 2049}, {5000, 5000}, {5001, 5001}, {20000, 20000},
		{100, 2000}, {2000, 100}, {0, 100}, {100, 0},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			inBubble(t, func(cfg *Config) { cfg.Params.DataDigest = true }, func(r *rig) {
				h := r.command(0x28, c.length, c.expected)
				r.send(h, nil)
				n := min(c.length, c.expected)
				if n == 0 {
					checkResidual(t, r.wantStatus(h, 0).Residual(), c.length, c.expected)
					return
				}
				checkResidual(t, r.wantData(h, pattern(c.length)[:n]).Residual(), c.length, c.expected)
			})
		})
	}
}

// wantData reads Data-In PDUs up to the one with the status, which it returns.
func (r *rig) wantData(command *iscsi.BHS, want []byte) iscsi.DataIn {
	r.t.Helper()
	var got []byte
	burst := 0
	for sn := serial.DataSN(0); ; sn++ {
		h := *r.want(iscsi.OpDataIn)
		d := h.DataIn()
		data := r.data()
		if d.DataSN() != sn || int(d.BufferOffset()) != len(got) || d.ITT() != command.ITT() {
			r.t.Fatalf("Data-In %d at %d, want %d at %d", d.DataSN(), d.BufferOffset(), sn, len(got))
		}
		got = append(got, data...)
		burst += len(data)
		last := len(got) == len(want)
		if len(data) > testParams.MaxSend || burst > testParams.MaxBurst || d.Final() != (last || burst == testParams.MaxBurst) {
			r.t.Fatalf("Data-In of %d bytes with %d in its burst, F %v", len(data), burst, d.Final())
		}
		if d.Final() {
			burst = 0
		}
		if d.HasStatus() != last {
			r.t.Fatalf("S bit %v at %d of %d bytes", d.HasStatus(), len(got), len(want))
		}
		if last {
			if !bytes.Equal(got, want) {
				r.t.Fatal("wrong data")
			}
			return d
		}
	}
}

// TestSense: sense data never rides on Data-In, and has its length in front.
func TestSense(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.nexus.sense = []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0}
		h := r.command(0x28, 100, 100)
		r.send(h, nil)
		a := r.wantStatus(h, 2)
		checkResidual(t, a.Residual(), 0, 100)
		if got := r.data(); !bytes.Equal(got, append([]byte{0, 18}, r.nexus.sense...)) {
			t.Errorf("sense % x", got)
		}
	})
}

// TestDecidedDrainsUnsolicited: a command that is over at once is answered when
// the data that comes unasked has been thrown away.
func TestDecidedDrainsUnsolicited(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.command(0x00, 0, 2000)
		h.SCSICommand().SetWrite(true)
		h.SetFinal(false)
		r.send(h, pattern(1000))
		r.wantNothing()
		r.sendBurst(h, iscsi.ReservedTag, 1000, pattern(1000))
		checkResidual(t, r.wantStatus(h, 0).Residual(), 0, 2000)
	})
}

// TestLostData: a Data-Out with a bad digest or out of its sequence fails the
// command when the rest has come, and nothing is written.
func TestLostData(t *testing.T) {
	for _, way := range []string{"digest", "DataSN"} {
		t.Run(way, func(t *testing.T) {
			inBubble(t, func(cfg *Config) { cfg.Params.DataDigest = true; cfg.Params.MaxOutstandingR2T = 1 }, func(r *rig) {
				h := r.command(0x2a, 9000, 9000)
				r.send(h, nil)
				q := *r.want(iscsi.OpR2T)
				first := r.dataOut(h, q.R2T().TTT(), 0, 0)
				first.SetFinal(false)
				if way == "digest" {
					r.out.Spoil = iscsi.SpoilDataDigest
				} else {
					first.DataOut().SetDataSN(1)
				}
				r.send(first, pattern(2000))
				if way == "digest" {
					if x := r.want(iscsi.OpReject).Reject(); x.Reason() != iscsi.RejectDataDigest {
						t.Fatalf("reason %v", x.Reason())
					}
				}
				r.wantNothing()
				r.send(r.dataOut(h, q.R2T().TTT(), 1, 2000), pattern(3000))
				r.wantStatus(h, 2)
				if sense := r.data(); sense[2+2] != 0x0b || sense[2+12] != 0x47 || sense[2+13] != 5 {
					t.Errorf("sense % x", sense)
				}
				if len(r.nexus.saw().written) > 0 {
					t.Error("the command ran")
				}
			})
		})
	}
}

// TestStaleDataOut: data for a task that is gone, or for an R2T that is not
// open, is thrown away.
func TestStaleDataOut(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		h := r.command(0x2a, 4000, 4000)
		r.send(r.dataOut(h, 77, 0, 0), pattern(100))
		r.send(h, nil)
		q := *r.want(iscsi.OpR2T)
		r.send(r.dataOut(h, q.R2T().TTT()+1, 0, 0), pattern(100))
		r.sendBurst(h, q.R2T().TTT(), 0, pattern(4000))
		r.wantStatus(h, 0)
		if !bytes.Equal(r.nexus.saw().written[0], pattern(4000)) {
			t.Error("stale data was written")
		}
	})
}

// TestBudget: commands beyond the budget wait their turn, in order, with their
// immediate data, and the window closes meanwhile.
func TestBudget(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Budget = 5000 }, func(r *rig) {
		r.nexus.hold = true
		var hs []*iscsi.BHS
		for i := range 4 {
			h := r.command(0x2a, 3000, 3000)
			h.SCSICommand().CDB()[1] = byte(i)
			h.SetFinal(i != 2) // the third sends the rest unasked
			r.send(h, pattern(3000)[:2000])
			hs = append(hs, h)
		}
		r.sendBurst(hs[2], iscsi.ReservedTag, 2000, pattern(3000)[2000:])
		last := r.want(iscsi.OpR2T)
		for i, h := range hs {
			if i != 2 {
				r.sendBurst(h, last.R2T().TTT(), 2000, pattern(3000)[2000:])
			}
			r.wantNothing()
			began := r.nexus.saw().began
			if began != i+1 {
				t.Fatalf("%d commands began, want %d: the budget is for one", began, i+1)
			}
			r.nexus.completeAll()
			a := r.wantStatus(h, 0)
			if i < 2 && a.Window().Last != 107 {
				t.Errorf("window %v was moved while commands were held", a.Window())
			}
			if i < 3 && i != 1 {
				last = r.want(iscsi.OpR2T)
			}
		}
		for _, w := range r.nexus.saw().written {
			if !bytes.Equal(w, pattern(3000)) {
				t.Error("wrong data")
			}
		}
	})
}

// TestBudgetOfReads: what is lent to a read comes back when its data has been
// sent, and only then does the next one begin. A small command does not
// overtake a held one.
func TestBudgetOfReads(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Budget = 5000 }, func(r *rig) {
		sizes := []int{3000, 3000, 1000}
		var hs []*iscsi.BHS
		for i, n := range sizes {
			h := r.command(0x28, n, n)
			h.SCSICommand().CDB()[1] = byte(i)
			r.send(h, nil)
			hs = append(hs, h)
		}
		synctest.Wait() // nothing has been read yet
		if order := r.nexus.saw().order; !bytes.Equal(order, []byte{0}) {
			t.Errorf("running %v, want only the first", order)
		}
		for i, n := range sizes {
			r.wantData(hs[i], pattern(n))
		}
	})
}

// TestShared: what other sessions have borrowed leaves a session one command at
// a time, and no more.
func TestShared(t *testing.T) {
	shared := NewShared(4 * sharedUnit)
	inBubble(t, func(cfg *Config) { cfg.Shared = shared }, func(r *rig) {
		r.nexus.hold = true
		other := part{of: shared}
		for _, c := range []struct{ theirs, want int }{{0, 3}, {2 * sharedUnit, 3}, {3 * sharedUnit, 1}, {4 * sharedUnit, 1}, {100 * sharedUnit, 1}} {
			synctest.Wait() // a session keeps its part until its last command is done
			other.set(c.theirs)
			before := r.nexus.saw().began
			var hs []*iscsi.BHS
			for range 3 {
				h := r.command(0x28, sharedUnit*2/3, sharedUnit*2/3)
				r.send(h, nil)
				hs = append(hs, h)
			}
			synctest.Wait()
			if began := r.nexus.saw().began - before; began != c.want {
				t.Errorf("%d of 3 commands began beside %d units, want %d", began, c.theirs/sharedUnit, c.want)
			}
			for _, h := range hs {
				synctest.Wait() // the held ones begin when the data before has been sent
				r.nexus.completeAll()
				r.wantData(h, pattern(sharedUnit*2/3))
			}
			other.set(0)
		}
		synctest.Wait()
		if n := shared.taken.Load(); n != 0 {
			t.Errorf("%d bytes taken in the end", n)
		}
	})
}
