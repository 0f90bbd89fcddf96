package appliance

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair is a connection through a cut, and its other end.
func pair(t *testing.T, c *cut) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		far, _ := c.listener(l).Accept()
		accepted <- far
	}()
	if near, err = c.dial(context.Background(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestCut: nothing arrives while the cut lasts, deadlines and Close hold all the
// same, and what waited goes on when it is healed.
func TestCut(t *testing.T) {
	c := &cut{}
	near, far := pair(t, c)
	if _, err := near.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "one" {
		t.Fatal(err, string(b))
	}
	c.set(true)
	c.set(true)
	near.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := near.Write([]byte("two")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("written while cut: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("connected while cut: %v", err)
	}
	near.SetWriteDeadline(time.Time{})
	written, read := make(chan error, 1), make(chan error, 1)
	go func() { _, err := near.Write([]byte("two")); written <- err }()
	go func() { _, err := io.ReadFull(far, b); read <- err }()
	select {
	case <-written:
		t.Error("written while cut")
	case <-read:
		t.Error("read while cut")
	case <-time.After(20 * time.Millisecond):
	}
	c.set(false)
	if err := errors.Join(<-written, <-read); err != nil || string(b) != "two" {
		t.Error(err, string(b))
	}
	c.set(true)
	go func() { _, err := near.Write(b); written <- err }()
	near.Close()
	if err := <-written; err == nil {
		t.Error("written to what is closed")
	}
}
