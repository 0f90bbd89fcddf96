package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"petal/target/initiator/load"
)

// machine says what the figures were measured on.
func machine(dir string) []string {
	var u unix.Utsname
	unix.Uname(&u)
	m := []string{
		fmt.Sprintf("%d cores, %s", runtime.NumCPU(), firstAfter("/proc/cpuinfo", "model name")),
		fmt.Sprintf("memory %s", firstAfter("/proc/meminfo", "MemTotal")),
		"Linux " + unix.ByteSliceToString(u.Release[:]),
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs: no durability"}
		name, ok := names[int64(fs.Type)]
		if !ok {
			name = fmt.Sprintf("type %#x", fs.Type)
		}
		m = append(m, "data on "+name)
	}
	return m
}

// firstAfter is what follows "key" and a colon in a file of /proc.
func firstAfter(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

// writeTables prints all pairs in Markdown.
func writeTables(w io.Writer, o *options, machine []string, list []*pair) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", strings.Join(machine, "; "))
	fmt.Fprintf(&b, "Each job %v on each server in %d rounds that alternate; ratios are medians of the rounds' ratios. Region %d MiB, written and read once in whole before: reads come from memory on both.\n",
		o.time, o.rounds, o.size>>20)
	for _, p := range list {
		fmt.Fprintf(&b, "\n### %s\n\n", p.Name)
		for _, n := range p.Notes {
			fmt.Fprintf(&b, "%s.\n\n", strings.TrimSuffix(n, "."))
		}
		if p.Left != "" {
			fmt.Fprintf(&b, "Not measured: %s\n", p.Left)
			continue
		}
		p.table(&b)
		if len(p.Verdicts) > 0 {
			fmt.Fprintf(&b, "\n* %s\n", strings.Join(p.Verdicts, "\n* "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *pair) table(b *strings.Builder) {
	fmt.Fprintf(b, "| job | %[1]s IOPS | %[2]s IOPS | ratio | %[1]s p50 / p99 | %[2]s p50 / p99 | %[1]s CPU/IO | %[2]s CPU/IO | ratio |\n", p.Subject, p.Peer)
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, j := range p.Result.Jobs {
		l, r := j.Disks[0], j.Disks[1]
		fmt.Fprintf(b, "| %s | %.0f | %.0f | **%.2f** | %s | %s | %.1f us | %.1f us | %.2f |\n", j.Job.Name, l.IOPS, r.IOPS, j.Ratios[0].IOPS,
			latency(l), latency(r), l.CPUPerIO, r.CPUPerIO, j.Ratios[0].CPU)
	}
}

// latency is p50 / p99 of a job, of reads and writes if it has both.
func latency(d load.JobOnDisk) string {
	one := func(l load.Latency) string { return fmt.Sprintf("%.0f / %.0f us", l.P50, l.P99) }
	switch {
	case d.Write.Max == 0:
		return one(d.Read)
	case d.Read.Max == 0:
		return one(d.Write)
	}
	return "r " + one(d.Read) + ", w " + one(d.Write)
}
