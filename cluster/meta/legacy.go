package meta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal"
	"petal/journal/vfs"
	"petal/placement"
)

// Directories of the release that had one node: a snapshot of format 1, and
// the commands after it in the journal log/. Their state becomes that of a cluster with one
// voter. The snapshot of format 2 is what makes the change: before it
// everything is as it was, and after it log/ is only in the way. That release
// refuses what it finds then.

// legacyUUID seeds the checksums of the old log.
var legacyUUID = func() (u [16]byte) {
	sum := sha256.Sum256([]byte("petal meta log"))
	copy(u[:], sum[:])
	return u
}()

// Sizes of the old log.
const (
	legacySegment  = 1 << 20
	legacyCapacity = 8 << 20
)

// legacy returns the state of such a directory as a cluster has it, nil if it is none.
func legacy(fsys vfs.FS, dir string) (*State, error) {
	format, err := storedFormat(fsys, dir)
	if err != nil {
		return nil, err
	}
	log := path.Join(dir, "log")
	switch _, err := fsys.Stat(log); {
	case errors.Is(err, fs.ErrNotExist) && format == 1:
		return nil, fmt.Errorf("%w: there is a snapshot but no log in %s", ErrRotten, log)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if format > 1 {
		return nil, removeLog(fsys, log)
	}
	s, err := readSnapshot(fsys, dir)
	if err != nil {
		return nil, err
	}
	if s, err = replayLegacy(fsys, log, s); err != nil {
		return nil, err
	}
	if s.index == 0 { // nothing was ever agreed there
		return nil, removeLog(fsys, log)
	}
	return convert1(s), nil
}

// convert1 makes a cluster of one voter of what one node alone had.
func convert1(s *State) *State {
	n := s.clone()
	n.term, n.conf = max(n.term, 1), Conf{Voters: []placement.Server{1}}
	// That release stamped records with the server's incarnation: new stamps must
	// come after them.
	for _, id := range n.Links() {
		l := n.LinkInfo(id)
		l.Ver = n.servers[1].Incarnation + 1
		n.links[id] = &l
	}
	return n
}

// replayLegacy applies the commands of the old log that are not in s yet.
func replayLegacy(fsys vfs.FS, dir string, s *State) (*State, error) {
	log, rec, err := journal.Open(journal.Options{FS: fsys, Dir: dir, Segment: legacySegment, Capacity: legacyCapacity, UUID: legacyUUID})
	if errors.Is(err, fs.ErrNotExist) && s.index == 0 {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("meta: log of the former release: %w", err)
	}
	defer log.Close()
	if len(rec.Rotten) > 0 {
		return nil, fmt.Errorf("%w: log records %v", ErrRotten, rec.Rotten)
	}
	return s, log.Replay(0, func(e journal.Entry) error {
		var entry metapb.Entry
		var cmd metapb.Command
		err := proto.Unmarshal(e.Head, &entry)
		if err == nil {
			err = proto.Unmarshal(entry.Command, &cmd)
		}
		if err != nil {
			return fmt.Errorf("%w: log record %d: %v", ErrRotten, e.LSN, err)
		}
		if entry.Index <= s.index {
			return nil // the snapshot has it
		}
		if entry.Index != s.index+1 {
			return fmt.Errorf("%w: command %d follows %d in the log", ErrRotten, entry.Index, s.index)
		}
		n, err := apply(s, &cmd)
		if err != nil {
			return fmt.Errorf("%w: command %d: %v", ErrRotten, entry.Index, err)
		}
		n.term, n.index = entry.Term, entry.Index
		s = n
		return nil
	})
}

// adopt makes the change durable.
func adopt(fsys vfs.FS, dir string, s *State) error {
	if err := writeSnapshot(fsys, dir, s); err != nil {
		return err
	}
	return removeLog(fsys, path.Join(dir, "log"))
}

func removeLog(fsys vfs.FS, log string) error {
	names, err := fsys.List(log)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fsys.Remove(path.Join(log, name)); err != nil {
			return err
		}
	}
	if err := fsys.Remove(log); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(log))
}
