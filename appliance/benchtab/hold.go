package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cpuPeriodMicros is over what time a CPU budget is reckoned: short, so that a
// node that has used its part up stands still for less than it takes to be missed.
const cpuPeriodMicros = 25_000

// cpuGroups is where control groups with the cpu controller can be made.
type cpuGroups struct {
	root string // where the hierarchy is mounted
	v2   bool
}

// errNoGroups says what is missing, and what to do without.
var errNoGroups = errors.New("a CPU budget for each node needs control groups with the cpu controller, version 1 or 2, and none is mounted; " +
	"the other pairs need none: --only names one (make bench ONLY=)")

// findGroups looks for the cpu controller in a list of mounts as /proc/mounts has
// it. controllers returns the cgroup.controllers of a version 2 hierarchy.
func findGroups(mounts string, controllers func(root string) string) (cpuGroups, error) {
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch root, kind, options := f[1], f[2], strings.Split(f[3], ","); {
		case kind == "cgroup" && slices.Contains(options, "cpu"):
			return cpuGroups{root: root}, nil
		case kind == "cgroup2" && slices.Contains(strings.Fields(controllers(root)), "cpu"):
			return cpuGroups{root: root, v2: true}, nil
		}
	}
	return cpuGroups{}, errNoGroups
}

// groups finds this machine's.
func groups() (cpuGroups, error) {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return cpuGroups{}, err
	}
	return findGroups(string(mounts), func(root string) string {
		text, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		return string(text)
	})
}

// budget is what to write into which files of a group.
func (g cpuGroups) budget(cores float64) [][2]string {
	quota := strconv.Itoa(int(cores * cpuPeriodMicros))
	if g.v2 {
		return [][2]string{{"cpu.max", fmt.Sprintf("%s %d", quota, cpuPeriodMicros)}}
	}
	return [][2]string{{"cpu.cfs_period_us", strconv.Itoa(cpuPeriodMicros)}, {"cpu.cfs_quota_us", quota}}
}

// hold gives the process whose id is in pidFile a group of its own that may use
// so many cores; release removes it when the process has ended.
func (g cpuGroups) hold(pidFile, name string, cores float64) (release func(), err error) {
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	explain := func(err error) error {
		return fmt.Errorf("a CPU budget for each node: %w (is this root, and may it change %s?)", err, g.root)
	}
	if g.v2 { // the children of the root have only the controllers that are passed on
		if err := os.WriteFile(filepath.Join(g.root, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
			return nil, explain(err)
		}
	}
	group := filepath.Join(g.root, name)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, explain(err)
	}
	release = func() { os.Remove(group) } // refused while it has processes: then it stays
	for _, f := range append(g.budget(cores), [2]string{"cgroup.procs", strings.TrimSpace(string(pid))}) {
		if err := os.WriteFile(filepath.Join(group, f[0]), []byte(f[1]), 0o644); err != nil {
			release()
			return nil, explain(err)
		}
	}
	return release, nil
}
