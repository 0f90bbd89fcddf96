package appliance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/placement"
)

// disksFile, in the node's directory, tells people what the numbers in a brick
// mean: `petal brick check` reads it while no node runs. Nothing else depends on
// it, so it need not be durable.
const disksFile = "disks.json"

// diskNote is a disk as disksFile has it.
type diskNote struct {
	Disk      string           `json:"disk"`
	Family    placement.Family `json:"family"`
	BlockSize int              `json:"block_size"` // logical, in bytes
}

// noteDisks writes disksFile if it would say something new.
func (a *appliance) noteDisks(s *meta.State) {
	notes := []diskNote{}
	for _, d := range s.Disks() {
		notes = append(notes, diskNote{d.Name, d.Family, d.BlockSize})
	}
	text, err := json.MarshalIndent(notes, "", "  ")
	if err != nil || bytes.Equal(text, a.noted) {
		return
	}
	path := filepath.Join(a.conf.Node.Dir, disksFile)
	if err = os.WriteFile(path+".new", text, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		a.log.Warn("the names of the disks could not be written down for `petal brick check`", "err", err)
		return
	}
	a.noted = text
}

const maxDisksFile = 64 << 20 // bytes

// readNotes reads the disksFile in dir; what can't be read names nothing.
func readNotes(dir string) map[placement.Family]diskNote {
	path := filepath.Join(dir, disksFile)
	if info, err := os.Stat(path); err != nil || info.Size() > maxDisksFile {
		return nil
	}
	text, err := os.ReadFile(path)
	var notes []diskNote
	if err != nil || json.Unmarshal(text, &notes) != nil {
		return nil
	}
	out := map[placement.Family]diskNote{}
	for _, n := range notes {
		if n.BlockSize == 512 || n.BlockSize == placement.BlockSize {
			out[n.Family] = n
		}
	}
	return out
}

// where says which blocks of which disk a problem is about, as initiators number
// them; empty if that is not known.
func where(p brick.Problem, names map[placement.Family]diskNote) string {
	n, ok := names[p.Key.Family]
	if !ok || p.Blocks == 0 {
		return ""
	}
	var ranges []string
	for m := uint32(p.Blocks); m != 0; {
		first := bits.TrailingZeros32(m)
		length := bits.TrailingZeros32(^(m >> first))
		m &^= (1<<length - 1) << first
		at := uint64(p.Key.Chunk)*placement.ChunkSize + uint64(first)*placement.BlockSize
		end := at + uint64(length)*placement.BlockSize
		ranges = append(ranges, fmt.Sprintf("%d to %d", at/uint64(n.BlockSize), end/uint64(n.BlockSize)-1))
	}
	return fmt.Sprintf("disk %s, LBA %s", n.Disk, strings.Join(ranges, ", "))
}
