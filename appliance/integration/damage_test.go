package integration

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlippedBit: one bit rots in the brick's data. The block that it hits reads
// with MEDIUM ERROR, its neighbours read as before, and nobody ever gets wrong
// data. `petal brick check` finds it too.
func TestFlippedBit(t *testing.T) {
	need(t, "qemu-io", "qemu-utils")
	dir := t.TempDir()
	d := startDemo(t, dir, "--size", "64MiB")
	// A block of 4 KiB that no other looks like, between its neighbours.
	must(t, runLimit, "qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 0x11 1M 64k", "-c", "write -P 0xa7 1060864 4k", "-c", "flush", d.url)
	d.stop()
	flipped := flipBit(t, filepath.Join(dir, "n1", "brick"), bytes.Repeat([]byte{0xa7}, 4096))
	t.Logf("flipped a bit at %s", strings.Join(flipped, ", "))

	o := run(t, runLimit, binary, "brick", "check", filepath.Join(dir, "n1", "brick"))
	if o.status != 6 {
		t.Errorf("petal brick check: status %d, want 6\n%s%s", o.status, o.stdout, o.stderr)
	}
	if !strings.Contains(o.stdout, "disk demo, LBA 2072 to 2079") { // 1060864 / 512
		t.Errorf("petal brick check does not name the block:\n%s", o.stdout)
	}
	d = startDemo(t, dir)
	if o := run(t, runLimit, "qemu-io", "-f", "raw", "-t", "none", "-c", "read -v 1060864 4k", d.url); !strings.Contains(o.stdout+o.stderr, "error") {
		t.Errorf("a rotten block was read:\n%s%s", o.stdout, o.stderr)
	}
	must(t, runLimit, "qemu-io", "-f", "raw", "-t", "none", "-c", "read -P 0x11 1M 12k", "-c", "read -P 0x11 1064960 48k", d.url)
	if st := d.status(); st.Bricks[0].ChecksumErrors == 0 || st.State != "degraded" {
		t.Errorf("status says nothing of it: %+v", st)
	}
	// Written anew it is well again.
	must(t, runLimit, "qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 0x5b 1060864 4k", "-c", "read -P 0x5b 1060864 4k", d.url)
}

// flipBit flips one bit in the middle of every place of dir's files that holds
// content, and returns the places. (Journal and extents may both hold it.)
func flipBit(t *testing.T, dir string, content []byte) (places []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(text, content)
		if at < 0 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for ; at >= 0; at = next(text, content, at) {
			if _, err := f.WriteAt([]byte{content[0] ^ 0x10}, int64(at+len(content)/2)); err != nil {
				return err
			}
			places = append(places, path)
		}
		return f.Sync()
	})
	if err != nil || len(places) == 0 {
		t.Fatalf("content is nowhere in %s (%v)", dir, err)
	}
	return places
}

func next(text, content []byte, at int) int {
	i := bytes.Index(text[at+len(content):], content)
	if i < 0 {
		return -1
	}
	return at + len(content) + i
}
