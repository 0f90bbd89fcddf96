package brick

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"sort"

	"petal/journal/vfs"
	"petal/placement"
)

// The file super holds four copies of the superblock, 64 KiB apart. Each copy
// is little-endian:
//
//	  0  magic        8   "petalbrk"
//	  8  format      u32  1
//	 12  length      u32  bytes of the copy, CRC included
//	 16  sequence    u64  the highest intact one counts
//	 24  cluster     16
//	 40  brick       16   uuid; seeds the journal's checksums
//	 56  server      u32
//	 60  incarnation u32  of the server's last start that opened it; set by its owner (R14)
//	 64  links       u32  count, then for each: gmap u32, position u32, ver u64, solo u8, 7 of zero
//	  .  router      u64 version, u32 count of bricks, 16 each, u32 0 or 4096, then a u16 index for each bucket
//	end  crc         u32  CRC32C of everything before it
//
// Magic, format, length and the CRC at the end are where they are in every format
// that will ever be, so that a rotten copy is not taken for a newer one.
//
// To replace the superblock: 1. write copies 0 and 1, 2. sync, 3. write copies
// 2 and 3, 4. sync. A crash before 2 is over leaves 2 and 3 as they were; after
// it, 0 and 1 carry the new one; so there always is an intact copy, and the
// highest sequence is either what was there or what was being written. A failed
// sync fails the brick.
const (
	superName   = "super"
	superMagic  = "petalbrk"
	superFormat = 1
	superCopies = 4
	superStride = 64 << 10
	superFixed  = 68
	linkSize    = 24
	linksMax    = 1024
	bricksMax   = 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Identity says whose brick this is.
type Identity struct {
	Cluster [16]byte
	Brick   [16]byte // uuid of the brick itself
	Server  uint32
}

// LinkID names a link: a position of the ring of a gmap.
type LinkID = placement.LinkID

// LinkMark is the second witness of a link's configuration (R14): the highest
// version under which this brick took part in it, and whether it was alone. Of a
// link of two members also the version up to which there may be records that do
// not name the other one, though it is out of sync now (R8); 0: any.
type LinkMark struct {
	Ver  uint64
	Solo bool
	Both uint32
}

// Router says which brick of a server holds which bucket. Every brick of the
// server keeps it; the highest version counts.
type Router struct {
	Version uint64
	Bricks  [][16]byte
	Table   []uint16 // index into Bricks for each bucket; none: everything is on Bricks[0]
}

// Super is the superblock of a brick.
type Super struct {
	Identity
	Sequence    uint64
	Incarnation uint32
	Links       map[LinkID]LinkMark
	Router      Router
}

func (s *Super) clone() *Super {
	c := *s
	c.Links = make(map[LinkID]LinkMark, len(s.Links))
	for k, v := range s.Links {
		c.Links[k] = v
	}
	c.Router.Bricks = slices.Clone(s.Router.Bricks)
	c.Router.Table = slices.Clone(s.Router.Table)
	return &c
}

// check refuses what does not fit the format's bounds.
func (s *Super) check() error {
	if len(s.Links) > linksMax || len(s.Router.Bricks) > bricksMax {
		return fmt.Errorf("brick: superblock cannot hold %d links and %d bricks", len(s.Links), len(s.Router.Bricks))
	}
	if n := len(s.Router.Table); n != 0 && n != placement.Buckets {
		return fmt.Errorf("brick: a router table has %d entries, not %d", n, placement.Buckets)
	}
	for b, i := range s.Router.Table {
		if int(i) >= len(s.Router.Bricks) {
			return fmt.Errorf("brick: the router sends bucket %d to brick %d of %d", b, i, len(s.Router.Bricks))
		}
	}
	return nil
}

// encode returns one copy.
func (s *Super) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, 1024), superMagic...)
	b = le.AppendUint32(b, superFormat)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, s.Sequence)
	b = append(b, s.Cluster[:]...)
	b = append(b, s.Brick[:]...)
	b = le.AppendUint32(b, s.Server)
	b = le.AppendUint32(b, s.Incarnation)
	b = le.AppendUint32(b, uint32(len(s.Links)))
	for _, id := range s.linkIDs() {
		b = le.AppendUint32(b, id.GMap)
		b = le.AppendUint32(b, id.Position)
		b = le.AppendUint64(b, s.Links[id].Ver)
		solo := uint32(0)
		if s.Links[id].Solo {
			solo = 1
		}
		b = le.AppendUint32(b, solo)
		b = le.AppendUint32(b, s.Links[id].Both)
	}
	b = le.AppendUint64(b, s.Router.Version)
	b = le.AppendUint32(b, uint32(len(s.Router.Bricks)))
	for _, id := range s.Router.Bricks {
		b = append(b, id[:]...)
	}
	b = le.AppendUint32(b, uint32(len(s.Router.Table)))
	for _, i := range s.Router.Table {
		b = le.AppendUint16(b, i)
	}
	le.PutUint32(b[12:], uint32(len(b)+4))
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (s *Super) linkIDs() []LinkID {
	ids := make([]LinkID, 0, len(s.Links))
	for id := range s.Links {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool {
		if ids[i].GMap != ids[j].GMap {
			return ids[i].GMap < ids[j].GMap
		}
		return ids[i].Position < ids[j].Position
	})
	return ids
}

// parseSuper decodes one copy: ErrNewer if its format is from the future,
// ErrRotten if it is damaged.
func parseSuper(b []byte) (*Super, error) {
	le := binary.LittleEndian
	if len(b) < superFixed || string(b[:8]) != superMagic {
		return nil, rotten("super", "does not begin with %q", superMagic)
	}
	n := le.Uint32(b[12:])
	if n < superFixed+4 || int64(n) > int64(len(b)) {
		return nil, rotten("super", "claims a length of %d bytes", n)
	}
	b = b[:n]
	if crc32.Checksum(b[:n-4], castagnoli) != le.Uint32(b[n-4:]) {
		return nil, rotten("super", "fails its checksum")
	}
	if f := le.Uint32(b[8:]); f != superFormat {
		return nil, newer("super", int(f), superFormat)
	}
	s := &Super{
		Sequence:    le.Uint64(b[16:]),
		Identity:    Identity{Cluster: [16]byte(b[24:40]), Brick: [16]byte(b[40:56]), Server: le.Uint32(b[56:])},
		Incarnation: le.Uint32(b[60:]),
		Links:       map[LinkID]LinkMark{},
	}
	return s, s.parseTables(b[64 : n-4])
}

// parseTables decodes what follows the fixed part.
func (s *Super) parseTables(b []byte) error {
	le := binary.LittleEndian
	take := func(n int) []byte {
		if len(b) < n {
			b = nil
			return nil
		}
		p := b[:n]
		b = b[n:]
		return p
	}
	count := func(limit int) (int, bool) {
		p := take(4)
		if p == nil || int64(le.Uint32(p)) > int64(limit) {
			return 0, false
		}
		return int(le.Uint32(p)), true
	}
	short := rotten("super", "has tables that leave it")
	n, ok := count(linksMax)
	for i := 0; ok && i < n; i++ {
		p := take(linkSize)
		if p == nil {
			return short
		}
		s.Links[LinkID{GMap: le.Uint32(p), Position: le.Uint32(p[4:])}] = LinkMark{le.Uint64(p[8:]), p[16] == 1, le.Uint32(p[20:])}
	}
	p := take(8)
	if !ok || p == nil {
		return short
	}
	s.Router.Version = le.Uint64(p)
	n, ok = count(bricksMax)
	for i := 0; ok && i < n; i++ {
		p := take(16)
		if p == nil {
			return short
		}
		s.Router.Bricks = append(s.Router.Bricks, [16]byte(p))
	}
	if !ok {
		return short
	}
	n, ok = count(placement.Buckets)
	if p = take(2 * n); !ok || p == nil && n > 0 || len(b) != 0 {
		return short
	}
	for i := range n {
		s.Router.Table = append(s.Router.Table, le.Uint16(p[2*i:]))
	}
	if err := s.check(); err != nil {
		return rotten("super", "is inconsistent: %v", err)
	}
	return nil
}

// readSuper returns the intact copy with the highest sequence, and how many of
// the four are intact and equal to it. One copy from a newer petal refuses the
// brick even if others are readable: a newer petal was there last.
func readSuper(fsys vfs.FS) (*Super, int, error) {
	f, err := fsys.Open(superName, vfs.Direct)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, &FormatError{ErrMissing, "super", "there is no file super",
			"check that the disk is mounted; a node makes a new brick in an empty directory"}
	} else if err != nil {
		return nil, 0, fmt.Errorf("brick: super: %w", err)
	}
	defer f.Close()
	var best *Super
	var bestBytes []byte
	var copies [superCopies][]byte
	var bad error
	for i := range copies {
		b := vfs.AlignedBuffer(superStride)
		if _, err := f.ReadAt(b, int64(i)*superStride); err != nil {
			bad = rotten("super", "copy %d cannot be read: %v", i, err)
			continue
		}
		s, err := parseSuper(b)
		if errors.Is(err, ErrNewer) {
			return nil, 0, err
		} else if err != nil {
			bad = err
			continue
		}
		copies[i] = s.encode()
		if best == nil || s.Sequence > best.Sequence {
			best, bestBytes = s, copies[i]
		}
	}
	if best == nil {
		return nil, 0, bad
	}
	good := 0
	for _, c := range copies {
		if c != nil && bytes.Equal(c, bestBytes) {
			good++
		}
	}
	return best, good, nil
}

// Peek reads the superblock of the brick in a directory without locking or
// changing anything. Errors as of Open, ErrForeign excepted.
func Peek(fsys vfs.FS) (*Super, error) {
	s, _, err := readSuper(fsys)
	return s, err
}

// writeSuper replaces the superblock in the four numbered steps.
func writeSuper(f vfs.File, s *Super) error {
	if err := s.check(); err != nil {
		return err
	}
	b := vfs.AlignedBuffer(superStride)
	copy(b, s.encode())
	for i := range superCopies {
		if _, err := f.WriteAt(b, int64(i)*superStride); err != nil {
			return fmt.Errorf("brick: super: %w", err)
		}
		if i%2 == 1 {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("brick: super: %w", err)
			}
		}
	}
	return nil
}

// foreign checks an identity against what was expected of it. Zero expectations
// are not checked.
func (id Identity) foreign(cluster [16]byte, server uint32) error {
	if cluster != [16]byte{} && cluster != id.Cluster {
		return &FormatError{ErrForeign, "super", fmt.Sprintf("this brick is of cluster %x, not of %x", id.Cluster, cluster),
			"this disk came from another cluster; wipe it only if that cluster no longer needs it"}
	}
	if server != 0 && server != id.Server {
		return &FormatError{ErrForeign, "super", fmt.Sprintf("this brick is of server %d, not of %d", id.Server, server),
			"this disk was moved from another node; put it back, or wipe it to use it here"}
	}
	return nil
}
