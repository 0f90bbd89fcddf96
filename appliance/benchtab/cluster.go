package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
)

// deadNode is the one that dies; not the first, which the others join.
const deadNode = 3

// startCluster starts a cluster with a mirrored disk, reached at its first node,
// and at those of v.portals. If dead, one node is killed once the disk is there, and no supervisor
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
	for i := 2; i <= nodes; i++ {
		if !dead || i != deadNode {
			v.portals = append(v.portals, fmt.Sprintf("127.0.0.%d:%d", i, s.port))
		}
	}
	if s.held {
		g, err := groups()
		if err != nil {
			return fail(err)
		}
		for i := range nodes {
			release, err := g.hold(filepath.Join(dir, fmt.Sprintf("n%d", i+1), "pid"), fmt.Sprintf("petal-bench-%d-%d", s.port, i+1), s.options.cpu)
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
	if out, err := exec.CommandContext(ctx, binary, "demo", "kill", strconv.Itoa(deadNode), "--dir", dir).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("killing node %d: %w: %s", deadNode, err, out))
	}
	return v, nil
}
