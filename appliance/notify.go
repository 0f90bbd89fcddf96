package appliance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells the service manager, if there is one (sd_notify(3)).
func notify(state string) { daemon.SdNotify(false, state) }

// feedWatchdog tells the service manager that the node lives, twice as often as
// it wants to know, as long as alive returns. If a lock deep down hangs, alive
// does not return, and the manager restarts us.
func feedWatchdog(ctx context.Context, alive func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			notify(daemon.SdNotifyWatchdog)
		}
	}
}

// writePID leaves the process id in dir/pid, for scripts and service managers.
func writePID(dir string) (remove func(), err error) {
	path := filepath.Join(dir, "pid")
	self := strconv.Itoa(os.Getpid())
	next := fmt.Sprintf("%s.%s", path, self)
	if err := os.WriteFile(next, []byte(self+"\n"), 0o644); err != nil {
		return nil, err
	}
	if err := os.Rename(next, path); err != nil {
		return nil, err
	}
	return func() {
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == self {
			os.Remove(path)
		}
	}, nil
}
