package brick

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"

	"petal/journal/vfs"
	"petal/placement"
)

func testSuper() *Super {
	s := &Super{Identity: testID, Sequence: 9, Incarnation: 4, Links: map[LinkID]LinkMark{
		{GMap: 1, Position: 2}: {77, true, 5}, {GMap: 1, Position: 1}: {5, false, 5}, {GMap: 3}: {1 << 60, true, 0}}}
	s.Router = Router{Version: 6, Bricks: [][16]byte{{2}, {8}}, Table: make([]uint16, placement.Buckets)}
	s.Router.Table[17] = 1
	return s
}

func TestSuperRoundTrip(t *testing.T) {
	for _, s := range []*Super{testSuper(), {Identity: testID, Links: map[LinkID]LinkMark{}}} {
		b := s.encode()
		got, err := parseSuper(append(b, make([]byte, 100)...))
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestSuperBounds(t *testing.T) {
	big := &Super{Links: map[LinkID]LinkMark{}}
	for i := range linksMax {
		big.Links[LinkID{GMap: uint32(i), Position: 0}] = LinkMark{}
	}
	big.Router.Bricks = make([][16]byte, bricksMax)
	big.Router.Table = make([]uint16, placement.Buckets)
	if n := len(big.encode()); n > superStride {
		t.Errorf("the largest superblock has %d bytes, a copy has room for %d", n, superStride)
	}
	big.Links[LinkID{GMap: linksMax, Position: 0}] = LinkMark{}
	if big.check() == nil {
		t.Error("one link too many is accepted")
	}
	if (&Super{Router: Router{Table: make([]uint16, 3)}}).check() == nil {
		t.Error("a short router table is accepted")
	}
	if (&Super{Router: Router{Table: make([]uint16, placement.Buckets)}}).check() == nil {
		t.Error("a router to no brick is accepted")
	}
}

// superDisk is a brick directory with nothing but a superblock.
func superDisk(t *testing.T, s *Super) vfs.FS {
	fsys, err := vfs.NewOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(superName, vfs.Direct)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(writeSuper(f, s), f.Close()); err != nil {
		t.Fatal(err)
	}
	return fsys
}

// patch changes one copy of the superblock on the disk.
func patch(t *testing.T, fsys vfs.FS, copyNumber int, change func([]byte)) {
	t.Helper()
	f, err := fsys.Open(superName, vfs.Direct)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := vfs.AlignedBuffer(superStride)
	off := int64(copyNumber) * superStride
	if _, err := f.ReadAt(buf, off); err != nil {
		t.Fatal(err)
	}
	change(buf)
	if _, err := f.WriteAt(buf, off); err != nil {
		t.Fatal(err)
	}
}

func TestSuperSurvivesThreeRottenCopies(t *testing.T) {
	for left := range superCopies {
		fsys := superDisk(t, testSuper())
		for i := range superCopies {
			if i != left {
				patch(t, fsys, i, func(b []byte) { b[100+i] ^= 4 })
			}
		}
		s, good, err := readSuper(fsys)
		if err != nil || good != 1 || !reflect.DeepEqual(s, testSuper()) {
			t.Errorf("copy %d left: %d good, %v", left, good, err)
		}
	}
}

func TestSuperAllRotten(t *testing.T) {
	fsys := superDisk(t, testSuper())
	for i := range superCopies {
		patch(t, fsys, i, func(b []byte) { b[30] ^= 1 })
	}
	if _, _, err := readSuper(fsys); !errors.Is(err, ErrRotten) {
		t.Errorf("%v, want ErrRotten", err)
	} else if h, ok := err.(interface{ Hint() string }); !ok || h.Hint() == "" {
		t.Errorf("%v has no hint", err)
	}
}

func TestSuperHighestSequenceCounts(t *testing.T) {
	fsys := superDisk(t, testSuper())
	next := testSuper()
	next.Sequence++
	next.Incarnation++
	patch(t, fsys, 1, func(b []byte) { copy(b, next.encode()) }) // crash amid step 1
	if s, good, err := readSuper(fsys); err != nil || good != 1 || s.Incarnation != next.Incarnation {
		t.Errorf("%+v, %d good, %v", s, good, err)
	}
}

func TestSuperNewerIsNotRotten(t *testing.T) {
	fsys := superDisk(t, testSuper())
	patch(t, fsys, 2, func(b []byte) { b[8]++ })
	if _, good, err := readSuper(fsys); err != nil || good != 3 {
		t.Errorf("one copy's format rotted: %d good, %v", good, err)
	}
	patch(t, fsys, 2, func(b []byte) {
		n := binary.LittleEndian.Uint32(b[12:])
		binary.LittleEndian.PutUint32(b[n-4:], crc32.Checksum(b[:n-4], castagnoli))
	})
	if _, _, err := readSuper(fsys); !errors.Is(err, ErrNewer) {
		t.Errorf("%v, want ErrNewer", err)
	}
}

func TestSuperForeign(t *testing.T) {
	o := realOptions(t)
	if err := openNew(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"cluster": func(o *Options) { o.Cluster = [16]byte{9} },
		"server":  func(o *Options) { o.Server = 9 },
	} {
		other := o
		change(&other)
		if _, _, err := Open(other); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, want ErrForeign", name, err)
		}
	}
	o.Cluster, o.Server = testID.Cluster, testID.Server
	if err := reopen(t, o).Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenWithoutBrick(t *testing.T) {
	if _, _, err := Open(realOptions(t)); !errors.Is(err, ErrMissing) {
		t.Errorf("%v, want ErrMissing", err)
	}
}

// TestCreateWipesNothing: what could be a brick that lost its superblock is
// left alone; the remains of a Create that was cut short are not.
func TestCreateWipesNothing(t *testing.T) {
	o := realOptions(t)
	openNew(t, o).Close()
	if err := o.FS.Remove(superName); err != nil {
		t.Fatal(err)
	}
	if err := Create(o, testID); !errors.Is(err, ErrForeign) {
		t.Fatalf("%v, want ErrForeign", err)
	}
	f, err := o.FS.Create(marker, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	b := openNew(t, o)
	defer b.Close()
	if _, err := o.FS.Stat(marker); err == nil {
		t.Error("the marker is left behind")
	}
}

func TestCreateTwice(t *testing.T) {
	o := realOptions(t)
	b := openNew(t, o)
	if err := Create(o, testID); err == nil {
		t.Error("made a brick over one that is open")
	}
	b.Close()
	if err := Create(o, testID); !errors.Is(err, ErrForeign) {
		t.Errorf("%v, want ErrForeign", err)
	}
}

func TestSuperIsKept(t *testing.T) {
	o := realOptions(t)
	b := openNew(t, o)
	if err := b.UpdateSuper(func(s *Super) error {
		s.Incarnation = 7
		s.Links[LinkID{GMap: 1, Position: 2}] = LinkMark{Ver: 3, Solo: true, Both: 2}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b, rec, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Super().Incarnation != 7 || b.Super().Links[LinkID{GMap: 1, Position: 2}] != (LinkMark{3, true, 2}) || rec.SuperCopies != superCopies {
		t.Errorf("%+v, super %+v", rec, b.Super())
	}
}

// FuzzSuper: nothing panics, and what parses encodes to the same bytes. The
// checksum is made right so that the fuzzer gets behind it.
func FuzzSuper(f *testing.F) {
	f.Add(testSuper().encode())
	f.Add((&Super{Identity: testID}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 16 {
			b = bytes.Clone(b)
			if n := int(binary.LittleEndian.Uint32(b[12:])); n >= 4 && n <= len(b) {
				binary.LittleEndian.PutUint32(b[n-4:], crc32.Checksum(b[:n-4], castagnoli))
				b = b[:n]
			}
		}
		s, err := parseSuper(b)
		if err != nil || len(s.Links) != int(binary.LittleEndian.Uint32(b[64:])) {
			return // refused, or links named twice
		}
		if again, err := parseSuper(s.encode()); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%x parses to %+v, which parses back to %+v, %v", b, s, again, err)
		}
	})
}
