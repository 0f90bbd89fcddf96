package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"petal/target/initiator"
	"petal/target/iscsi"
)

// pair is two ends of a connection, both with digests.
func pair(t *testing.T) (a, b *initiator.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = initiator.Connect(within(t), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b = initiator.NewConn(nc)
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []*initiator.Conn{a, b} {
		c.HeaderDigest, c.DataDigest = true, true
		c.NetConn().SetDeadline(time.Now().Add(patience))
	}
	return a, b
}

func samplePDU(data int) *initiator.PDU {
	p := &initiator.PDU{AHS: []byte{0, 1, 2, 3}, Data: random(data)}
	p.Reset(iscsi.OpNOPOut)
	return p
}

func TestConnRoundTrip(t *testing.T) {
	a, b := pair(t)
	for _, n := range []int{0, 1, 3, 4, 5, 8192} {
		want := samplePDU(n)
		if err := a.Send(want); err != nil {
			t.Fatal(err)
		}
		got, err := b.Recv()
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got.BHS != want.BHS || !bytes.Equal(got.AHS, want.AHS) || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%d bytes: sent %v, got %v", n, want, got)
		}
	}
	a.Close()
	if _, err := b.Recv(); err != io.EOF {
		t.Errorf("after a close: %v", err)
	}
}

// Each fault must do what it says: a test that thinks that it misbehaves and
// does not proves nothing.
func TestConnFaults(t *testing.T) {
	for fault, want := range map[initiator.Fault]string{
		initiator.BadHeaderDigest: "initiator: digest error",
		initiator.BadDataDigest:   "initiator: digest error",
		initiator.HalfSent:        "unexpected EOF",
	} {
		a, b := pair(t)
		if err := a.Send(samplePDU(100), fault); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Recv(); err == nil || err.Error() != want {
			t.Errorf("fault %d: %v", fault, err)
		}
	}
	c := initiator.NewConn(nil)
	p := samplePDU(5)
	p.SetDataLength(77)
	if raw := c.Encode(p, initiator.KeepLength); raw[7] != 77 {
		t.Errorf("KeepLength: length %d", raw[7])
	}
	if whole, cut := len(c.Encode(p, 0)), len(c.Encode(p, initiator.NoPadding)); whole-cut != 3 {
		t.Errorf("NoPadding: %d bytes in place of %d", cut, whole)
	}
}

func TestRecvBoundsData(t *testing.T) {
	a, b := pair(t)
	b.MaxData = 100
	if err := a.Send(samplePDU(101)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(); err == nil {
		t.Error("101 bytes were taken, allowed are 100")
	}
}

// A login that does not come to an end ends with its context.
func TestLoginEndsWithContext(t *testing.T) {
	a, _ := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := a.Login(ctx, testTarget, initiator.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// Whatever a target sends, the session ends or goes on, and does not panic.
func FuzzSession(f *testing.F) {
	h := (&fake{t: f}).respond(&initiator.PDU{})
	f.Add(h.BHS[:])
	h.Reset(iscsi.OpDataIn)
	h.SetDataLength(512)
	f.Add(append(h.BHS[:], make([]byte, 512)...))
	h.Reset(iscsi.OpR2T)
	f.Add(h.BHS[:])
	h.Reset(iscsi.OpNOPIn)
	f.Add(h.BHS[:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		fk := &fake{t: t}
		fk.run(len(raw)%2 == 0, func(c *initiator.Conn, p *initiator.PDU) {
			// The tag is not to be guessed.
			if len(raw) >= 20 {
				copy(raw[16:20], p.BHS[16:20])
			}
			c.Write(raw)
			c.NetConn().(*net.TCPConn).CloseWrite()
		})
	})
}
