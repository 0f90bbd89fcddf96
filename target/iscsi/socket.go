package iscsi

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketReader reads from a socket into one buffer or several: the source of a
// Reader whose large data goes straight to where it belongs. Deadlines of the
// connection apply. It is not safe for concurrent use.
type SocketReader struct {
	conn net.Conn
	raw  syscall.RawConn
	iovs []unix.Iovec
	n    int
	err  error
	call func(fd uintptr) bool // the method value, made once
}

// NewSocketReader returns a SocketReader for a connection of package net.
func NewSocketReader[C interface {
	net.Conn
	syscall.Conn
}](c C) (*SocketReader, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &SocketReader{conn: c, raw: raw}
	s.call = s.readv
	return s, nil
}

// Read reads into one buffer.
func (s *SocketReader) Read(b []byte) (int, error) { return s.conn.Read(b) }

// ReadVector reads into several buffers, in order, and waits for at least one
// byte. See VectorReader.
func (s *SocketReader) ReadVector(v [][]byte) (int, error) {
	s.iovs = appendIovecs(s.iovs[:0], v)
	s.n, s.err = 0, nil
	err := s.raw.Read(s.call)
	clear(s.iovs)
	if err == nil {
		err = s.err
	}
	return s.n, err
}

// readv makes one attempt; false has RawConn wait and call again.
func (s *SocketReader) readv(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&s.iovs[0])), uintptr(len(s.iovs)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			s.err = errno
		case n == 0:
			s.err = io.EOF
		}
		s.n = int(n)
		if s.err != nil {
			s.n = 0
		}
		return true
	}
}

// appendIovecs appends at most iovMax vectors.
func appendIovecs(iovs []unix.Iovec, v [][]byte) []unix.Iovec {
	for _, b := range v[:min(len(v), iovMax)] {
		iov := unix.Iovec{Base: unsafe.SliceData(b)}
		iov.SetLen(len(b))
		iovs = append(iovs, iov)
	}
	return iovs
}
