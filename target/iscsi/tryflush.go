package iscsi

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovMax is how many vectors one writev(2) takes (UIO_MAXIOV).
const iovMax = 1024

// TryFlusher sends what a Writer has pending as far as the connection takes it
// without waiting. One goroutine can thus answer a command without a handover
// to another one, and leave to it what the socket did not take.
type TryFlusher struct {
	raw  syscall.RawConn
	iovs []unix.Iovec
	n    uintptr // bytes sent
	err  error
	wait bool                  // for the connection to take something
	call func(fd uintptr) bool // the method value, made once
}

// NewTryFlusher returns a TryFlusher for a socket in non-blocking mode, as all
// of package net are.
func NewTryFlusher(c syscall.Conn) (*TryFlusher, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &TryFlusher{raw: raw}
	t.call = t.writev
	return t, nil
}

// Flush sends what it can and reports whether all has been sent. It does not
// wait; if something is left, Writer.Flush is to be called, or this again. It
// is not safe for concurrent use.
func (t *TryFlusher) Flush(w *Writer) (bool, error) {
	t.wait = false
	for w.Pending() > 0 {
		n, err := t.once(w)
		if n == 0 || err != nil {
			return false, err
		}
	}
	w.reset()
	return true, nil
}

// FlushWait sends all that is pending, and counts taken on whenever the
// connection has taken a part of it. Its write deadline holds. It is not safe for
// concurrent use.
func (t *TryFlusher) FlushWait(w *Writer, taken *atomic.Uint32) error {
	t.wait = true
	for w.Pending() > 0 {
		if _, err := t.once(w); err != nil {
			return err
		}
		if w.Pending() > 0 {
			taken.Add(1)
		}
	}
	w.reset()
	return nil
}

// once makes one successful call, and returns how many bytes it has sent: none
// if it would have had to wait and is not to.
func (t *TryFlusher) once(w *Writer) (int, error) {
	t.iovs = appendIovecs(t.iovs[:0], w.vectors[w.first:])
	t.n, t.err = 0, nil
	err := t.raw.Write(t.call)
	clear(t.iovs)
	if err == nil {
		err = t.err
	}
	if err != nil {
		return 0, err
	}
	w.advance(int(t.n))
	return int(t.n), nil
}

// writev makes one attempt. It returns false if RawConn is to wait and call it
// again.
func (t *TryFlusher) writev(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&t.iovs[0])), uintptr(len(t.iovs)))
		switch errno {
		case 0:
			t.n = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return !t.wait
		default:
			t.err = errno
		}
		return true
	}
}

// advance drops the first n pending bytes.
func (w *Writer) advance(n int) {
	w.sent += uint64(n)
	for n > 0 {
		v := w.vectors[w.first]
		if n < len(v) {
			w.vectors[w.first] = v[n:]
			return
		}
		n -= len(v)
		w.vectors[w.first] = nil
		w.first++
	}
}
