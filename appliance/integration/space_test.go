package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFull: a brick without space refuses writes to new places, with the sense
// that initiators understand, and does everything else; deleting helps.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, fmt.Sprintf("[[brick]]\npath = %q\njournal = \"256MiB\"\ncapacity = \"300MiB\"", filepath.Join(dir, "brick")))
	n.createDisk(t, "thin", 1<<30)
	o := run(t, runLimit, binary, "bench", n.url("thin"), "--fill", "--read", "100", "--depth", "4", "--time", "100ms", "--quiet")
	if o.status != 1 || !strings.Contains(o.stdout, "DATA PROTECT 27/07") {
		t.Errorf("overfilling: status %d\n%s%s", o.status, ends(o.stdout), o.stderr)
	}
	if st := n.status(t); st.State != "degraded" || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "is full") {
		t.Errorf("status: %s %q", st.State, st.Problems)
	}
	if o := run(t, runLimit, binary, "bench", n.url("thin"), "--size", "64MiB", "--read", "50", "--time", "500ms", "--quiet"); o.status != 0 {
		t.Errorf("reads and overwrites on a full brick: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	eventually(t, healLimit, "the session of who has ended is over", func() bool {
		return n.client().DeleteDisk(context.Background(), "thin", false) == nil
	})
	eventually(t, healLimit, "the space is free again", func() bool { return n.status(t).State == "ok" })
	n.createDisk(t, "next", 1<<30)
	if o := run(t, runLimit, binary, "bench", n.url("next"), "--size", "64MiB", "--fill", "--verify", "--time", "500ms", "--quiet"); o.status != 0 {
		t.Errorf("after the deletion: status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}

// tmpfs mounts a small file system in memory, or skips, loudly.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("SKIPPED: cannot mount a tmpfs (%v): needs root", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestNoSpaceAtStart: too little room for the journal is said at the start.
func TestNoSpaceAtStart(t *testing.T) {
	small := tmpfs(t, "16m")
	n := &node{dir: t.TempDir()}
	file := n.writeConfig(t, fmt.Sprintf("[[brick]]\npath = %q", filepath.Join(small, "brick")))
	o := run(t, runLimit, binary, "serve", "--config", file)
	if o.status == 0 || !strings.Contains(o.stderr, small) || !strings.Contains(o.stderr, "hint: ") {
		t.Errorf("status %d\n%s", o.status, o.stderr)
	}
	if strings.Contains(o.stderr, "panic") {
		t.Errorf("a panic:\n%s", ends(o.stderr))
	}
}

// TestFileSystemFull: the file system fills up under the brick, by somebody
// else's doing. Writes that need space fail with the right sense, others go on.
func TestFileSystemFull(t *testing.T) {
	fs := tmpfs(t, "768m")
	n := startNode(t, fmt.Sprintf("[[brick]]\npath = %q\njournal = \"256MiB\"", filepath.Join(fs, "brick")))
	n.createDisk(t, "thin", 1<<30)
	if o := run(t, runLimit, binary, "bench", n.url("thin"), "--size", "64MiB", "--fill", "--read", "100", "--time", "100ms", "--quiet"); o.status != 0 {
		t.Fatalf("status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	hog, err := os.Create(filepath.Join(fs, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	piece := make([]byte, 1<<20)
	for err == nil {
		_, err = hog.Write(piece)
	}
	o := run(t, runLimit, binary, "bench", n.url("thin"), "--offset", "64MiB", "--fill", "--read", "100", "--time", "100ms", "--quiet")
	if o.status != 1 || !strings.Contains(o.stdout, "DATA PROTECT 27/07") {
		t.Errorf("writing to new places: status %d\n%s%s", o.status, ends(o.stdout), o.stderr)
	}
	if o := run(t, runLimit, binary, "bench", n.url("thin"), "--size", "64MiB", "--read", "50", "--time", "500ms", "--quiet"); o.status != 0 {
		t.Errorf("reads and overwrites: status %d\n%s%s", o.status, ends(o.stdout), o.stderr)
	}
	st := n.status(t)
	t.Logf("direct: %v, state %s, problems %q", st.Bricks[0].Direct, st.State, st.Problems)
	if st.Bricks[0].State != "ok" {
		t.Errorf("a full file system failed the brick: %s", st.Bricks[0].Error)
	}
}
