package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// The state file, little-endian: what a later process needs to judge the disk.
//
//	magic "PETALVS2" | stateHeader | units times u64 op, or ^0 if several are possible
//	| for each of those, in order: u32 count, count times u64 op | u32 CRC32C of all before
//
// Version 1 had no Disk in the header; nothing of it is kept up.
var stateMagic = [8]byte{'P', 'E', 'T', 'A', 'L', 'V', 'S', '2'}

// stateHeader is the fixed part.
type stateHeader struct {
	Disk                [16]byte // region.disk
	Run, First, LastOp  uint64
	UnitSectors, Atomic uint32
	Zero, Volatile      bool
	Units               uint64
}

// Bounds of what is believed in a state file.
const (
	maxUnits    = 1 << 32
	maxVersions = 1 << 16 // of one unit
)

// several stands in the file for a unit with more than one possible content.
const several = ^uint64(0)

var errState = errors.New("not a verify state, or damaged")

// saveState writes m and r to path, all or nothing.
func saveState(path string, r *region, m *model) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	b.Write(stateMagic[:])
	h := stateHeader{
		Disk: r.disk, Run: r.run, First: r.first, LastOp: m.lastOp, UnitSectors: uint32(r.unitSectors), Atomic: uint32(r.atomic),
		Zero: r.zero, Volatile: m.volatile, Units: uint64(len(m.units)),
	}
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		return err
	}
	var word [8]byte
	put := func(v uint64) {
		binary.LittleEndian.PutUint64(word[:], v)
		b.Write(word[:])
	}
	for i := range m.units {
		if m.units[i].versions != 0 {
			put(several)
		} else {
			put(m.units[i].op)
		}
	}
	for _, u := range m.units {
		if u.versions == 0 {
			continue
		}
		versions := m.lists[u.versions].versions
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(versions))))
		for _, v := range versions {
			put(v.op)
		}
	}
	b.Write(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b.Bytes(), castagnoli)))
	return replaceFile(path, b.Bytes())
}

// replaceFile puts data in the place of path; after a crash the old file or
// the whole new one is there.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// loadState reads a state file. Every write in it has ended, and those of
// units with several contents are not sure.
func loadState(path string) (*region, *model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	r, m, err := parseState(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, m, nil
}

func parseState(data []byte) (*region, *model, error) {
	var h stateHeader
	if len(data) < len(stateMagic)+binary.Size(h)+4 || !bytes.Equal(data[:len(stateMagic)], stateMagic[:]) {
		return nil, nil, errState
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, nil, errState
	}
	in := bytes.NewReader(body[len(stateMagic):])
	if err := binary.Read(in, binary.LittleEndian, &h); err != nil {
		return nil, nil, errState
	}
	if h.Units > maxUnits || h.Units > uint64(in.Len())/8 || h.Atomic == 0 || h.Atomic > maxAtomicSectors ||
		h.UnitSectors == 0 || h.UnitSectors%h.Atomic != 0 {
		return nil, nil, errState
	}
	m := newModel(int(h.Units), h.Volatile)
	m.lastOp, m.clock = h.LastOp, 1
	var word [8]byte
	for i := range m.units {
		if _, err := io.ReadFull(in, word[:]); err != nil {
			return nil, nil, errState
		}
		m.units[i].op = binary.LittleEndian.Uint64(word[:])
	}
	for i := range m.units {
		if m.units[i].op == several {
			if err := parseVersions(in, m.list(i)); err != nil {
				return nil, nil, err
			}
		}
	}
	r := &region{disk: h.Disk, run: h.Run, first: h.First, unitSectors: int(h.UnitSectors), atomic: int(h.Atomic), zero: h.Zero}
	return r, m, nil
}

// parseVersions reads the possible contents of one unit.
func parseVersions(in *bytes.Reader, l *list) error {
	var count uint32
	if binary.Read(in, binary.LittleEndian, &count) != nil || count == 0 || count > maxVersions || int(count) > in.Len()/8 {
		return errState
	}
	l.versions = l.versions[:0]
	for range count {
		var op uint64
		if binary.Read(in, binary.LittleEndian, &op) != nil {
			return errState
		}
		l.versions = append(l.versions, version{op: op})
	}
	return nil
}
