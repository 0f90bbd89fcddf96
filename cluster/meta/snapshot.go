package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal/vfs"
)

// The snapshot file, little-endian:
//
//	 0  8  magic "PETALSNP"
//	 8  4  format version
//	12  4  CRC32C of all that follows
//	16  8  length of the message
//	24     Snapshot message (metapb)
//
// It is replaced whole: 1 write a temporary file, 2 sync it, 3 rename it over
// the old one, 4 sync the directory, 5 drop the log before it. A crash before
// 3 leaves the old snapshot and the whole log (and a temporary file that the
// next snapshot overwrites); after 3, either name is complete; after 4, the log may hold
// entries that the snapshot has: they are skipped by their index.
const (
	snapshotMagic  = "PETALSNP"
	snapshotFormat = 2 // 1: before there was raft, see legacy.go
	snapshotHeader = 24
	snapshotName   = "snapshot"
	snapshotTemp   = "snapshot.new"
	maxSnapshot    = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of opening.
var (
	ErrRotten = errors.New("meta: the stored state is damaged")
	ErrNewer  = errors.New("meta: the stored state was written by a newer release")
)

func writeSnapshot(fsys vfs.FS, dir string, s *State) error {
	return writeSnapshotAs(fsys, dir, s, snapshotFormat)
}

func writeSnapshotAs(fsys vfs.FS, dir string, s *State, format uint32) error {
	msg, err := s.marshal(format)
	if err != nil {
		return err
	}
	buf := make([]byte, snapshotHeader, snapshotHeader+len(msg))
	copy(buf, snapshotMagic)
	binary.LittleEndian.PutUint32(buf[8:], format)
	binary.LittleEndian.PutUint64(buf[16:], uint64(len(msg)))
	buf = append(buf, msg...)
	binary.LittleEndian.PutUint32(buf[12:], crc32.Checksum(buf[16:], castagnoli))
	return replaceFile(fsys, dir, buf)
}

// marshal returns the Snapshot message: equal states give equal bytes.
func (s *State) marshal(format uint32) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(&metapb.Snapshot{Format: format, Term: s.term, Index: s.index, State: s.encode()})
}

// unmarshal is the inverse of marshal.
func unmarshal(b []byte) (*State, error) {
	var msg metapb.Snapshot
	if err := proto.Unmarshal(b, &msg); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRotten, err)
	}
	if msg.State == nil {
		return nil, fmt.Errorf("%w: snapshot without a state", ErrRotten)
	}
	s, err := decode(msg.State)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRotten, err)
	}
	s.term, s.index = msg.Term, msg.Index
	return s, nil
}

// replaceFile does the steps 1 to 4 above.
func replaceFile(fsys vfs.FS, dir string, data []byte) error {
	temp := path.Join(dir, snapshotTemp)
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := fsys.Rename(temp, path.Join(dir, snapshotName)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// readSnapshot returns the stored state, or the zero State when there is none.
func readSnapshot(fsys vfs.FS, dir string) (*State, error) {
	f, err := fsys.Open(path.Join(dir, snapshotName), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return (&State{}).clone(), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < snapshotHeader || size > maxSnapshot {
		return nil, fmt.Errorf("%w: snapshot of %d bytes", ErrRotten, size)
	}
	buf := make([]byte, size)
	if _, err := f.ReadAt(buf, 0); err != nil {
		return nil, err
	}
	return parseSnapshot(buf)
}

func parseSnapshot(buf []byte) (*State, error) {
	if len(buf) < snapshotHeader || string(buf[:8]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a snapshot", ErrRotten)
	}
	if v := binary.LittleEndian.Uint32(buf[8:]); v > snapshotFormat {
		return nil, fmt.Errorf("%w: snapshot format %d, this one knows %d", ErrNewer, v, snapshotFormat)
	}
	if n := binary.LittleEndian.Uint64(buf[16:]); n != uint64(len(buf)-snapshotHeader) {
		return nil, fmt.Errorf("%w: snapshot says %d bytes, has %d", ErrRotten, n, len(buf)-snapshotHeader)
	}
	if crc32.Checksum(buf[16:], castagnoli) != binary.LittleEndian.Uint32(buf[12:]) {
		return nil, fmt.Errorf("%w: checksum of the snapshot", ErrRotten)
	}
	return unmarshal(buf[snapshotHeader:])
}

// storedFormat returns the format of the stored snapshot, 0 if there is none.
func storedFormat(fsys vfs.FS, dir string) (uint32, error) {
	f, err := fsys.Open(path.Join(dir, snapshotName), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var head [snapshotHeader]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return 0, fmt.Errorf("%w: the head of the snapshot: %v", ErrRotten, err)
	}
	return binary.LittleEndian.Uint32(head[8:]), nil
}
