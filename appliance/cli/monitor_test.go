package cli

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const relaxedCommand = "relaxed" // this test's binary under another name: see TestMain

// relaxed tells on standard output what relaxMonitor has made of the process.
func relaxed() {
	fmt.Println("started", os.Getpid(), os.Args[1:])
	relaxMonitor()
	var tids []int
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if tid, _ := strconv.Atoi(t.Name()); tid != os.Getpid() {
			tids = append(tids, tid)
		}
	}
	// The first after the process's own number, also where numbers begin anew.
	order := func(tid int) uint32 { return uint32(tid - os.Getpid()) }
	monitor := slices.MinFunc(tids, func(a, b int) int { return cmp.Compare(order(a), order(b)) })
	slack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", monitor))
	fmt.Println("monitor", strings.TrimSpace(string(slack)))
	var all sync.WaitGroup
	var tight atomic.Int32
	all.Add(8)
	for range 8 {
		go func() {
			runtime.LockOSThread()
			if n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil && n == int(defaultSlack) {
				tight.Add(1)
			}
			all.Done()
			all.Wait()
		}()
	}
	all.Wait()
	fmt.Println("others", tight.Load() > 0)
	fmt.Println("marker", os.Getenv(relaxedMarker))
}

// TestRelaxMonitor: the process starts again once, as itself and with its arguments;
// then the monitor has more slack than threads that run goroutines.
func TestRelaxMonitor(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Cmd{Path: self, Args: []string{relaxedCommand, "a", "b c"}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	monitor := "monitor " + strconv.Itoa(int(monitorSlack))
	if os.Geteuid() != 0 { // only who may may look
		monitor = "monitor "
	}
	started := fmt.Sprintf("started %d [a b c]\n", c.Process.Pid)
	if want := started + started + monitor + "\nothers true\nmarker \n"; string(out) != want {
		t.Errorf("%q, want %q", out, want)
	}
}
