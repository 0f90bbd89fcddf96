package cli

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that need not be a child of ours, held by a pidfd (Linux 5.3):
// its number can't come to mean another one meanwhile, and its end can be waited for.
type process struct{ fd int }

// openProcess takes hold of a process. os.ErrProcessDone: there is none of that
// number.
func openProcess(pid int) (process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrProcessDone
	}
	return process{fd}, os.NewSyscallError("pidfd_open", err)
}

func (p process) close() { unix.Close(p.fd) }

// signal sends a signal; to a process that has ended, nothing.
func (p process) signal(sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// wait waits until all threads have ended, and with them their files and sockets
// are closed. It reports false if that takes longer than limit. That the parent has
// asked for the status (until then it is a zombie) is not waited for.
func (p process) wait(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		left := unix.NsecToTimespec(int64(max(0, time.Until(deadline))))
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, &left, nil)
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}
