package appliance

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"petal/cluster/brick"
	"petal/cluster/slab"
	"petal/journal/vfs"
)

// BrickReport is what CheckBrick found.
type BrickReport struct {
	Path     string   `json:"path"`
	Entries  int64    `json:"entries"`
	Extents  int64    `json:"extents"`
	Blocks   int64    `json:"blocks_compared"`
	Records  int64    `json:"journal_records"`
	Seconds  float64  `json:"seconds"`
	Found    int64    `json:"problems_found"`
	Problems []string `json:"problems"` // the first of them
}

// maxProblems bounds what a report lists; all are counted.
const maxProblems = 1000

// CheckBrick verifies the brick in a directory that no node has open: its
// superblock, journal, map and the checksum of every block. It changes nothing.
// nodeDir is the directory of the brick's node, where it has noted what its disks
// are called; without, problems are told by numbers.
func CheckBrick(dir, nodeDir string) (BrickReport, error) {
	r := BrickReport{Path: dir, Problems: []string{}}
	path, err := filepath.Abs(dir)
	if err != nil {
		return r, err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		if err == nil {
			err = &fs.PathError{Op: "open", Path: dir, Err: fs.ErrInvalid}
		}
		return r, problem{fmt.Errorf("brick %s: %w", dir, err), "name the directory of a brick: the path of a [[brick]] in petal.toml"}
	}
	osfs, err := vfs.NewOS(path)
	if err != nil {
		return r, err
	}
	pool := slab.New(checkMemory)
	names := readNotes(nodeDir)
	s, err := brick.Check(brick.Options{FS: osfs, Path: path, Pool: pool}, func(p brick.Problem) {
		if len(r.Problems) >= maxProblems {
			return
		}
		text := p.String()
		if w := where(p, names); w != "" {
			text = w + " (" + text + ")"
		}
		r.Problems = append(r.Problems, text)
	})
	r.Entries, r.Extents, r.Blocks, r.Records, r.Found, r.Seconds = s.Entries, s.Extents, s.Blocks, s.Records, s.Problems, s.Took.Seconds()
	return r, explainOpen(err)
}

const checkMemory = 64 << 20 // bytes of buffers
