package appliance

import (
	"net"
	"testing"
	"time"
)

// TestFewConnections: beyond the bound connections are closed at once; one that
// ends makes room for the next.
func TestFewConnections(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &fewConnections{Listener: raw, free: make(chan struct{}, 2)}
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	dial()
	first, second := <-accepted, <-accepted
	third := dial()
	third.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil || len(accepted) > 0 {
		t.Errorf("a third connection is kept: %v", err)
	}
	first.Close()
	first.Close() // counts once
	dial()
	fourth := <-accepted
	fourth.Close()
	second.Close()
	if len(l.free) != 0 {
		t.Errorf("%d connections count and none is open", len(l.free))
	}
	raw.Close()
	if _, open := <-accepted; open {
		t.Error("accepts after it was closed")
	}
}
