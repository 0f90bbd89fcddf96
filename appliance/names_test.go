package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"petal/cluster/brick"
	"petal/placement"
)

// TestWhere: a chunk and a mask of blocks in a disk's own terms.
func TestWhere(t *testing.T) {
	dir := t.TempDir()
	notes := `[{"disk": "a", "family": 3, "block_size": 512}, {"disk": "b", "family": 4, "block_size": 4096}, {"disk": "c", "family": 5, "block_size": 0}]`
	if err := os.WriteFile(filepath.Join(dir, disksFile), []byte(notes), 0o600); err != nil {
		t.Fatal(err)
	}
	names := readNotes(dir)
	for _, c := range []struct {
		family placement.Family
		chunk  placement.Chunk
		blocks placement.Mask
		want   string
	}{
		{3, 0, 1, "disk a, LBA 0 to 7"},
		{3, 2, 1<<3 | 1<<4 | 1<<15, "disk a, LBA 280 to 295, 376 to 383"},
		{4, 1, placement.Full, "disk b, LBA 16 to 31"},
		{5, 1, 1, ""}, // a block size that cannot be
		{6, 1, 1, ""}, // a disk that nobody has noted
		{3, 1, 0, ""},
	} {
		p := brick.Problem{Key: placement.Key{Family: c.family, Chunk: c.chunk}, Blocks: c.blocks}
		if got := where(p, names); got != c.want {
			t.Errorf("chunk %d, blocks %#x of family %d: %q, want %q", c.chunk, c.blocks, c.family, got, c.want)
		}
	}
	for _, text := range []string{"", "{", strings.Repeat("x", 100)} {
		if err := os.WriteFile(filepath.Join(dir, disksFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readNotes(dir); len(got) > 0 {
			t.Errorf("%q: %v", text, got)
		}
	}
}
