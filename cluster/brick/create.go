package brick

import (
	"errors"
	"fmt"
	"slices"

	"petal/journal"
	"petal/journal/vfs"
)

// marker is a file that says that a brick is being made: 1. the marker, 2. the
// parts, 3. the superblock under another name, 4. its own name, 5. the marker
// goes. A crash before 4 leaves no brick, and a marker by which the next Create
// knows that it may clear the remains away; after 4, a brick, whose Open does
// step 5.
const marker = "creating"

// Create makes a new, empty brick in an empty directory, or over the remains
// of a Create that was cut short. It is ErrForeign if the directory holds
// anything else: that may be a brick that has lost its superblock. The brick is
// durable on return.
func Create(o Options, id Identity) error {
	o.setDefaults()
	if id.Cluster == [16]byte{} || id.Brick == [16]byte{} || id.Server == 0 {
		return errors.New("brick: an identity needs a cluster, a brick and a server")
	}
	lock, err := o.FS.Lock("lock")
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	defer lock.Close()
	if err := o.vacant(); err != nil {
		return err
	}
	if err := o.makeParts(id); err != nil {
		return err
	}
	f, err := o.FS.Create(superName+".new", vfs.Direct)
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	s := &Super{Identity: id, Sequence: 1, Links: map[LinkID]LinkMark{}}
	if err := errors.Join(writeSuper(f, s), f.Close()); err != nil {
		return err
	}
	if err := errors.Join(o.FS.Rename(superName+".new", superName), o.FS.SyncDir(".")); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	return o.unmark()
}

// vacant makes sure that the directory may be used, marks it, and clears it.
func (o *Options) vacant() error {
	if _, _, err := readSuper(o.FS); !errors.Is(err, ErrMissing) {
		if err == nil {
			err = &FormatError{ErrForeign, "super", "there is a brick already", "use it, or give an empty directory"}
		}
		return err
	}
	names, err := o.FS.List(".")
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if slices.Contains(names, marker) {
		if err := o.clearParts(); err != nil {
			return fmt.Errorf("brick: %w", err)
		}
		return nil
	}
	for _, n := range names {
		if n != "lost+found" && n != "lock" {
			return &FormatError{ErrForeign, "directory", fmt.Sprintf("it is not empty: it holds %q", n),
				"give an empty directory; if this was a brick, its superblock is lost and `petal disk check` can tell more"}
		}
	}
	f, err := o.FS.Create(marker, 0)
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if err := errors.Join(f.Close(), o.FS.SyncDir(".")); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	return nil
}

// unmark removes the marker, if it is there.
func (o *Options) unmark() error {
	if _, err := o.FS.Stat(marker); err != nil {
		return nil
	}
	if err := errors.Join(o.FS.Remove(marker), o.FS.SyncDir(".")); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	return nil
}

// makeParts makes the directories, the map and the journal.
func (o *Options) makeParts(id Identity) error {
	for _, dir := range []string{"data", "journal"} {
		if err := o.FS.MkdirAll(dir); err != nil {
			return fmt.Errorf("brick: %w", err)
		}
	}
	m, err := openMap(o.MapFS, o.mapDir(), false, o.Log)
	if err != nil {
		return err
	}
	if err := m.close(); err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	jo := o.journalOptions(id.Brick)
	jo.Create = true
	j, _, err := journal.Open(jo)
	if err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	if err := errors.Join(j.Close(), o.FS.SyncDir(".")); err != nil {
		return fmt.Errorf("brick: %w", err)
	}
	return nil
}

func (o *Options) clearParts() error {
	if err := o.MapFS.RemoveAll(o.mapDir()); err != nil {
		return err
	}
	for _, dir := range []string{"data", "journal"} {
		names, err := o.FS.List(dir)
		if err != nil {
			continue // not there
		}
		for _, n := range names {
			if err := o.FS.Remove(dir + "/" + n); err != nil {
				return err
			}
		}
	}
	if _, err := o.FS.Stat(superName + ".new"); err == nil {
		return o.FS.Remove(superName + ".new")
	}
	return nil
}
