package cli

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestProcess: the end of a process that is not waited for as a child is noticed, by
// whoever holds it; a signal to what has ended is no error; a number that nobody has
// is told from other troubles.
func TestProcess(t *testing.T) {
	cmd := exec.Command("cat") // until its input ends
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if p.wait(10 * time.Millisecond) {
		t.Error("it has ended before it was killed")
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if !p.wait(time.Minute) { // a zombie by now
		t.Error("it does not end")
	}
	cmd.Wait()
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to what has ended: %v", err)
	}
	if _, err := openProcess(cmd.Process.Pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a number that nobody has: %v", err)
	}
}
