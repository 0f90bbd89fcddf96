package meta

import (
	"errors"
	"io/fs"
	"path"

	"petal/journal/vfs"
	"petal/placement"
)

// Directories of the release that had one node: a snapshot of format 1, and
// commands in log/. Their state becomes that of a cluster with one voter. The
// snapshot of format 2 is what makes the change: before it everything is as it
// was, and after it log/ is only in the way.

// legacy returns the state of such a directory, nil if it is none.
func legacy(fsys vfs.FS, dir string) (*State, error) {
	format, err := storedFormat(fsys, dir)
	if err != nil {
		return nil, err
	}
	log := path.Join(dir, "log")
	switch _, err := fsys.Stat(log); {
	case errors.Is(err, fs.ErrNotExist) && format != 1:
		return nil, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if format > 1 {
		return nil, removeLog(fsys, log)
	}
	old, err := Open(fsys, dir)
	if err != nil {
		return nil, err
	}
	s := old.State()
	if err := old.Close(); err != nil {
		return nil, err
	}
	if s.index == 0 {
		return nil, removeLog(fsys, log)
	}
	n := s.clone()
	n.term, n.conf = max(n.term, 1), Conf{Voters: []placement.Server{1}}
	// That release stamped records with the server's incarnation: new stamps must
	// come after them.
	for _, id := range n.Links() {
		l := n.LinkInfo(id)
		l.Ver = n.servers[1].Incarnation + 1
		n.links[id] = &l
	}
	return n, nil
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
