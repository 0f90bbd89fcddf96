package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"petal/target/initiator"
)

const tgtdTarget = "iqn.2026-11.tgtd:bench"

// cachingOff is the caching mode page with WCE=0, as tgt-admin's `write-cache
// off` sets it; tgtd then calls fdatasync after every write.
const cachingOff = "mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0"

// tgtdLimits are what we raise in tgtd beyond its defaults (8 KiB segments, 64
// KiB first burst, R2T for everything), which would cost it the larger jobs.
var tgtdLimits = [][2]string{
	{"MaxRecvDataSegmentLength", "262144"}, {"MaxXmitDataSegmentLength", "262144"},
	{"FirstBurstLength", "262144"}, {"MaxBurstLength", "16776192"}, {"InitialR2T", "No"},
}

// startTGTD starts Debian's tgtd with a file as LUN 1. It wants root.
func startTGTD(ctx context.Context, s *setting) (*server, error) {
	file, err := s.file()
	if err != nil {
		return nil, err
	}
	// The control port names a socket in /run; no two of ours may share one.
	control := strconv.Itoa(s.port)
	v, err := s.launch("tgtd", "-f", "-C", control, "--iscsi", "portal=127.0.0.1:"+strconv.Itoa(s.port))
	if err != nil {
		return nil, err
	}
	v.end = syscall.SIGKILL // it takes no notice of SIGTERM
	if err := v.await(ctx, s, s.portOpen); err != nil {
		return nil, err
	}
	admin := func(args string) error {
		out, err := exec.CommandContext(ctx, "tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, strings.Fields(args)...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tgtadm %s: %w: %s", args, err, out)
		}
		return nil
	}
	steps := []string{
		"--op new --mode target --tid 1 -T " + tgtdTarget,
		"--op new --mode logicalunit --tid 1 --lun 1 -b " + file,
		"--op bind --mode target --tid 1 -I ALL",
	}
	if !s.options.stock {
		for _, kv := range tgtdLimits {
			steps = append(steps, "--op update --mode target --tid 1 --name "+kv[0]+" --value "+kv[1])
		}
	}
	if !s.writeBack {
		steps = append(steps, "--op update --mode logicalunit --tid 1 --lun 1 --params "+cachingOff)
	}
	v.url = fmt.Sprintf("iscsi://127.0.0.1:%d/%s/1", s.port, tgtdTarget)
	for _, step := range steps {
		if err := admin(step); err != nil {
			v.stop()
			return nil, err
		}
	}
	if !s.writeBack {
		note, err := v.countSyncs(ctx, s)
		if err != nil {
			v.stop()
			return nil, err
		}
		v.notes = append(v.notes, note)
	}
	return v, nil
}

// countSyncs watches with strace that tgtd syncs what it acknowledges.
func (v *server) countSyncs(ctx context.Context, s *setting) (string, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return "tgtd's fdatasync was not watched: strace is not installed", nil
	}
	out := filepath.Join(s.dir, "strace")
	trace := exec.Command("strace", "-f", "-c", "-e", "trace=fdatasync,fsync", "-o", out, "-p", strconv.Itoa(v.pid))
	stderr, err := trace.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := trace.Start(); err != nil {
		return "", err
	}
	if _, err := stderr.Read(make([]byte, 1)); err != nil { // "Process N attached"
		return "", errors.Join(errors.New("strace does not attach"), trace.Wait())
	}
	const writes = 50
	err = writeSome(ctx, v.url, writes)
	trace.Process.Signal(syscall.SIGINT)
	for buf := make([]byte, 4096); ; {
		if _, err := stderr.Read(buf); err != nil {
			break
		}
	}
	trace.Wait() // its status is the signal's
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	syncs := 0
	if m := regexp.MustCompile(`(\d+)\s+f(?:data)?sync`).FindSubmatch(data); m != nil {
		syncs, _ = strconv.Atoi(string(m[1]))
	}
	if syncs < writes {
		return "", fmt.Errorf("tgtd called fdatasync %d times for %d writes with WCE=0", syncs, writes)
	}
	return fmt.Sprintf("seen with strace: tgtd calls fdatasync %d times for %d writes", syncs, writes), nil
}

// writeSome writes n blocks one after the other.
func writeSome(ctx context.Context, url string, n int) error {
	u, err := initiator.ParseURL(url)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	session, err := initiator.Dial(ctx, u, initiator.Options{})
	if err != nil {
		return err
	}
	defer session.Close()
	d, err := initiator.OpenDisk(ctx, session)
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	for i := range n {
		if err := d.Write(ctx, uint64(i)*8, block); err != nil {
			return err
		}
	}
	return nil
}
