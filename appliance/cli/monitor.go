package cli

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// monitorSlack is how late the Go runtime's monitor may wake up. While a goroutine
// waits in a system call, as in every write of the journal, it means to look every
// 20 us whether to take the processor away, and with the kernel's default slack does
// every 70: a fifth of a cluster's CPU where one write follows the other. Processors
// are there in plenty (addProcessors), so it need not hurry. Measured, 250 us beside
// 50: 3 and 17 % off the median of a mirrored 4 KiB write at depth 1, 11 and 20 % off
// its CPU (two runs); nothing lost in reads from disk at depth 1 to 128.
const (
	monitorSlack  = 250 * time.Microsecond
	defaultSlack  = 50 * time.Microsecond // the kernel's
	relaxedMarker = "PETAL_RELAXED"       // in the environment of who has been started again
)

// relaxMonitor gives the monitor more slack. A thread has what its creator had, and
// the monitor is the first thread that the runtime creates: so the process starts
// itself again with more, as the same process with the same arguments, and then the
// other threads take theirs back. Where that cannot be, all stays as it is.
func relaxMonitor() {
	if os.Getenv(relaxedMarker) != "" {
		os.Unsetenv(relaxedMarker)
		tightenThreads()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now != int(defaultSlack) {
		return // somebody has chosen it
	}
	self, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(monitorSlack), 0, 0, 0) != nil {
		return
	}
	unix.Exec(self, os.Args, append(os.Environ(), relaxedMarker+"=1"))
	setSlack() // it has failed
}

// setSlack gives the calling thread the kernel's default.
func setSlack() { unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(defaultSlack), 0, 0, 0) }

// tightenThreads gives the kernel's default to the threads that run goroutines at
// present, and so to those that they will create; the one or two that the runtime
// has for itself, and what they create, keep the monitor's. Threads that steal work
// from others sleep a little before: with more slack what they steal would wait.
func tightenThreads() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	var all, over sync.WaitGroup
	all.Add(len(threads))
	for range threads {
		over.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			setSlack()
			all.Done()
			all.Wait() // so that each has a thread of its own
		})
	}
	over.Wait()
	setSlack()
}
