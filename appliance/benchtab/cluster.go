package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// startCluster starts a cluster with a mirrored disk, reached at its first node.
// If dead, the third node is killed once the disk is there, and no supervisor
// tells; what the cluster does about it is over before the first measured job,
// since the region is written in whole before.
func startCluster(ctx context.Context, s *setting, dead bool, flags ...string) (*server, error) {
	nodes := s.options.nodes
	if dead {
		flags = append(flags, "--unsupervised")
	}
	v, err := startPetal(ctx, s, nodes, flags...)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*server, error) {
		v.stop()
		return nil, err
	}
	dir := filepath.Join(s.dir, "data")
	if s.held {
		for i := range nodes {
			release, err := hold(filepath.Join(dir, fmt.Sprintf("n%d", i+1), "pid"), fmt.Sprintf("petal-bench-%d-%d", s.port, i+1), s.options.cpu)
			if err != nil {
				return fail(err)
			}
			v.after = append(v.after, release)
		}
		v.notes = append(v.notes, fmt.Sprintf("%s: each node is held to %g cores", filepath.Base(s.dir), s.options.cpu))
	}
	if !dead {
		return v, nil
	}
	binary, err := filepath.Abs(s.options.petal)
	if err != nil {
		return fail(err)
	}
	if out, err := exec.CommandContext(ctx, binary, "demo", "kill", "3", "--dir", dir).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("killing node 3: %w: %s", err, out))
	}
	return v, nil
}

// cpuPeriodMicros is over what time a CPU budget is reckoned.
const cpuPeriodMicros = 100_000

// hold gives the process whose id is in pidFile a control group of its own that
// may use so many cores; release removes it when the process has ended.
func hold(pidFile, name string, cores float64) (release func(), err error) {
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	group := filepath.Join("/sys/fs/cgroup/cpu", name) // version 1
	quota := int(cores * cpuPeriodMicros)
	files := [][2]string{{"cpu.cfs_period_us", strconv.Itoa(cpuPeriodMicros)}, {"cpu.cfs_quota_us", strconv.Itoa(quota)}}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.subtree_control"); err == nil { // version 2
		group = filepath.Join("/sys/fs/cgroup", name)
		files = [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriodMicros)}}
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("a CPU budget needs a control group: %w", err)
	}
	release = func() { os.Remove(group) } // refused while it has processes: then it stays
	for _, f := range append(files, [2]string{"cgroup.procs", strings.TrimSpace(string(pid))}) {
		if err := os.WriteFile(filepath.Join(group, f[0]), []byte(f[1]), 0o644); err != nil {
			release()
			return nil, fmt.Errorf("a CPU budget needs a control group with the cpu controller: %w", err)
		}
	}
	return release, nil
}
