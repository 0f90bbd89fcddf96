package main

import (
	"fmt"
	"strings"

	"petal/target/initiator/load"
)

// What a cluster is to reach, however many nodes it has: a write has two copies
// anyway.
const (
	goalCPUTLS   = 180.0 // us of CPU in the whole cluster, for a mirrored 4 KiB write at depth 32
	goalCPUPlain = 150.0
	goalAdded    = 150.0 // us that mirroring adds to a 4 KiB write at depth 1
	goalDegraded = 0.85  // of the share that the living nodes are
)

// heldJobs are those of the pair with CPU budgets: sessions on all nodes that
// live, as many on each, whether one is dead or not.
func heldJobs(nodes int) []load.Job {
	sessions := nodes * (nodes - 1)
	return []load.Job{
		{BlockSize: 4 << 10, Depth: 4, Sessions: sessions, ReadPercent: 100},
		{BlockSize: 4 << 10, Depth: 4, Sessions: sessions},
		{BlockSize: 64 << 10, Depth: 1, Sessions: sessions, ReadPercent: 100},
		{BlockSize: 64 << 10, Depth: 1, Sessions: sessions},
	}
}

// verdicts are a pair's figures beside what is to be reached, in words.
func (p *pair) verdicts(nodes int) (out []string) {
	say := func(met bool, format string, args ...any) {
		word := "MISSED"
		if met {
			word = "met"
		}
		out = append(out, fmt.Sprintf(format, args...)+": "+word)
	}
	if p.Result == nil || !strings.HasPrefix(p.Subject, "cluster") {
		return nil
	}
	for _, j := range p.Result.Jobs {
		if len(j.Disks) < 2 {
			continue
		}
		ours, other := j.Disks[0], j.Disks[1]
		smallWrite := j.Job.BlockSize == 4<<10 && j.Job.ReadPercent == 0 && j.Job.Sessions <= 1
		switch {
		case p.Held:
			ideal := float64(nodes-1) / float64(nodes)
			share := j.Ratios[0].IOPS
			line := fmt.Sprintf("%s: %.0f %% of the healthy cluster's", j.Job.Name, 100*share)
			if j.Job.ReadPercent == 100 {
				say(share >= goalDegraded*ideal, "%s, %.0f %% of the ideal %.0f %% (wanted %.0f %%)", line, 100*share/ideal, 100*ideal, 100*goalDegraded)
			} else {
				out = append(out, line+" (each write has one copy less to make)")
			}
		case smallWrite && j.Job.Depth == 32:
			goal, how := goalCPUTLS, "with TLS"
			if p.Subject == "cluster-plain" {
				goal, how = goalCPUPlain, "without TLS"
			}
			say(ours.CPUPerIO <= goal, "CPU of a 4 KiB write at depth 32, all nodes together, %s: %.0f us (wanted %.0f us at most; %s: %.0f us)", how, ours.CPUPerIO, goal, p.Peer, other.CPUPerIO)
		case smallWrite && j.Job.Depth == 1 && p.Peer == "petal":
			added := ours.Write.P50 - other.Write.P50
			say(added <= goalAdded, "latency that the cluster adds to a 4 KiB write at depth 1, difference of the medians: %.0f us (wanted %.0f us at most)", added, goalAdded)
		}
	}
	return out
}
