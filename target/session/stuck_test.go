package session

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"petal/target/iscsi"
)

// unread makes a session whose initiator reads nothing: a large answer is
// stuck half-way.
func unread(t *testing.T, ping time.Duration, test func(r *rig)) {
	inBubble(t, func(c *Config) {
		if ping > 0 {
			c.Ping, c.PingTimeout = ping, 2*ping
		}
	}, func(r *rig) {
		r.send(r.command(0x28, 100_000, 100_000), nil)
		synctest.Wait()
		test(r)
	})
}

// ended reports with what a session ends, now.
func (r *rig) ended() error {
	r.t.Helper()
	synctest.Wait()
	select {
	case err := <-r.result:
		return err
	default:
		r.t.Fatal("the session goes on")
		return nil
	}
}

// TestUnreadEnds: whoever wants to end a session does not wait for an
// initiator that does not read.
func TestUnreadEnds(t *testing.T) {
	why := errors.New("because")
	unread(t, 0, func(r *rig) {
		r.s.Close(why)
		if err := r.ended(); err != why {
			t.Errorf("ends with %v", err)
		}
	})
}

// TestUnreadLastWords: an initiator that does not read may miss the last words,
// and cannot put off the end for ever.
func TestUnreadLastWords(t *testing.T) {
	test := func(r *rig) {
		r.s.Drop(errors.New("because"), time.Second, 0)
		<-time.After(sendTimeout - 1)
		synctest.Wait()
		if len(r.result) > 0 {
			t.Errorf("ends too soon with %v", <-r.result)
		}
		<-time.After(1)
		if err := r.ended(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ends with %v", err)
		}
	}
	unread(t, 0, test)     // behind an answer that is stuck
	inBubble(t, nil, test) // stuck themselves
}

// TestUnreadPing: an initiator that takes nothing and says nothing is dead.
func TestUnreadPing(t *testing.T) {
	unread(t, time.Second, func(r *rig) {
		<-time.After(4 * time.Second)
		if err := r.ended(); err != ErrDeadPeer {
			t.Errorf("ends with %v", err)
		}
	})
}

// TestUnreadAbort: a reset by another nexus does not wait for an initiator
// that does not read.
func TestUnreadAbort(t *testing.T) {
	unread(t, 0, func(r *rig) {
		r.nexus.mu.Lock()
		r.nexus.hold = true
		r.nexus.mu.Unlock()
		r.send(r.command(0x2a, 100, 0), nil)
		r.send(r.command(0x28, 100, 100), nil)
		synctest.Wait()
		aborted := make(chan bool, 1)
		r.s.AbortAll(0, false, func() { aborted <- true })
		synctest.Wait()
		select {
		case <-aborted:
		default:
			t.Error("the reset waits")
		}
	})
}

// TestUnreadSlowly: an initiator that is still taking a large answer lives,
// however long it has said nothing.
func TestUnreadSlowly(t *testing.T) {
	unread(t, time.Second, func(r *rig) {
		for range 40 { // a PDU at a time
			r.want(iscsi.OpDataIn)
			r.data()
			<-time.After(time.Second)
		}
	})
}

// TestStarved: memory is not lent for ever to a command whose data does not
// come, even if the initiator answers pings; data for any command is enough.
func TestStarved(t *testing.T) {
	pinged := func(c *Config) { c.Ping, c.PingTimeout = 10*time.Second, 10*time.Second }
	inBubble(t, pinged, func(r *rig) {
		begin := time.Now()
		h := r.command(0x2a, 20_000, 20_000)
		r.send(h, nil)
		first := *r.want(iscsi.OpR2T)
		r.want(iscsi.OpR2T)
		at := 0
		answer := func() {
			h := r.want(iscsi.OpNOPIn)
			a := r.immediate(iscsi.OpNOPOut).NOPOut()
			a.SetITT(iscsi.ReservedTag)
			a.SetTTT(h.NOPIn().TTT())
			r.send(a.BHS, nil)
		}
		for range 4 { // 80 s
			answer()
		}
		d := r.request(iscsi.OpDataOut).DataOut()
		r.cmdSN--
		d.SetITT(h.ITT())
		d.SetTTT(first.R2T().TTT())
		d.SetFinal(false)
		d.SetBufferOffset(uint32(at))
		r.send(d.BHS, pattern(1000))
		for time.Since(begin) < 160*time.Second {
			answer()
		}
		if err := r.wantClosed(); err != ErrNoData {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(begin); d < 170*time.Second || d > 200*time.Second {
			t.Errorf("starved for %v", d)
		}
	})
}
