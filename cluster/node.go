package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"petal/cluster/brick"
	"petal/cluster/cache"
	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/slab"
	"petal/journal/vfs"
	"petal/placement"
)

// Options of a node.
type Options struct {
	// Dir is the node's own directory: the agreed state and the key that
	// secrets are sealed with. It is made if it is missing.
	Dir string
	// Name is the server's name in the cluster, at most 63 bytes.
	Name string
	// Bricks are the node's disks. This release serves exactly one.
	Bricks []BrickOptions
	// AcceptLoss opens a brick whose journal has lost acknowledged writes, so
	// that unknown blocks hold older data. Otherwise that is an error.
	AcceptLoss bool
	// CacheBytes is the budget of the read cache.
	CacheBytes int64
	Log        *slog.Logger
}

// BrickOptions is one disk of a node.
type BrickOptions struct {
	Path     string // directory on a file system of the disk
	Journal  int64  // bytes of journal, 0 for the default
	Capacity int64  // bytes of data at most, 0 for what the file system has
}

// Node is one server of the cluster: its part of the agreed state, its bricks
// and the volumes it coordinates. Methods are safe for concurrent use.
type Node struct {
	opt     Options
	store   *meta.Store
	seal    *meta.Sealer
	pool    *slab.Pool
	cache   *cache.Cache
	brick   *brick.Brick
	brickFS *vfs.OS

	coord *coordinator

	incarnation uint64
	recovery    time.Duration
	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	dropping    sync.WaitGroup

	resizing sync.Mutex // one UpdateDisk at a time; never taken under mu

	mu       sync.Mutex
	volumes  map[meta.ID]*Volume
	reserves map[meta.ID]*Reservations
	freeing  map[uint32]bool // families whose space is being freed
	closed   bool
}

// Open starts a node on its directory and bricks. Fresh ones are initialized;
// a brick of another cluster, one newer than the agreed state, a damaged state
// or directories in use by another process are errors that say so.
func Open(opt Options) (*Node, error) {
	if len(opt.Bricks) != 1 {
		return nil, &meta.Error{Kind: meta.ErrInvalid, Thing: fmt.Sprintf("%d bricks", len(opt.Bricks)), Advice: "this release serves exactly one brick a node"}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	begin := time.Now()
	n := &Node{opt: opt, volumes: map[meta.ID]*Volume{}, reserves: map[meta.ID]*Reservations{}, freeing: map[uint32]bool{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		n.release()
		return nil, err
	}
	n.recovery = time.Since(begin)
	n.store.Watch(n.changed)
	n.resume()
	return n, nil
}

func (n *Node) open() (err error) {
	if err := os.MkdirAll(n.opt.Dir, 0o700); err != nil {
		return err
	}
	osfs, err := vfs.NewOS(n.opt.Dir)
	if err != nil {
		return err
	}
	if n.store, err = meta.Open(osfs, "meta"); err != nil {
		return fmt.Errorf("state in %s: %w", filepath.Join(n.opt.Dir, "meta"), err)
	}
	key, err := sealKey(filepath.Join(n.opt.Dir, "seal.key"))
	if err != nil {
		return err
	}
	if n.seal, err = meta.NewSealer(key); err != nil {
		return err
	}
	n.pool = slab.New(n.opt.CacheBytes + slabHeadroom)
	n.cache = cache.New(n.pool, n.opt.CacheBytes)
	return n.openBrick()
}

// slabHeadroom is memory for commands in flight and journal buffers, beyond
// the cache's budget, in bytes.
const slabHeadroom = 256 << 20

// sealKey reads the key that secrets are sealed with, or makes one. The file
// is durable before it is used.
func sealKey(path string) (key [32]byte, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if len(b) != len(key) {
			return key, fmt.Errorf("%s: %d bytes where a key has %d; restore it from a backup, or remove it and set all CHAP secrets anew", path, len(b), len(key))
		}
		copy(key[:], b)
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	rand.Read(key[:])
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return key, err
	}
	_, err = f.Write(key[:])
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return key, err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return key, err
	}
	defer d.Close()
	return key, d.Sync()
}

// propose hands a command to the state machine.
func (n *Node) propose(ctx context.Context, cmd *metapb.Command) (*meta.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return n.store.Propose(cmd)
}

// State returns the present agreed state.
func (n *Node) State() *meta.State { return n.store.State() }

// Watch registers f to be called after every change of the state, in order. f
// must return soon and must not change the state itself.
func (n *Node) Watch(f func(*meta.State)) { n.store.Watch(f) }

// openBrick opens the node's brick, or makes it when the node is new. What the
// agreed state and the brick's superblock say of each other has to fit (rule
// R14): a brick that is missing, foreign, or has seen a later start than the
// state knows of means that one of the two was replaced or restored.
func (n *Node) openBrick() error {
	bo := n.opt.Bricks[0]
	if err := os.MkdirAll(bo.Path, 0o700); err != nil {
		return err
	}
	bfs, err := vfs.NewOS(bo.Path)
	if err != nil {
		return fmt.Errorf("brick %s: %w", bo.Path, err)
	}
	if !bfs.Direct() {
		n.opt.Log.Warn("the file system has no O_DIRECT: the brick goes through the page cache, with O_DSYNC", "brick", bo.Path)
	}
	n.brickFS = bfs
	o := brick.Options{FS: bfs, Path: bo.Path, Pool: n.pool, Cache: n.cache, JournalBytes: bo.Journal, CapacityBytes: bo.Capacity,
		AcceptLoss: n.opt.AcceptLoss, OnFail: n.brickFailed, Log: n.opt.Log.With("brick", bo.Path)}
	id, err := n.identify(o)
	if err != nil {
		return fmt.Errorf("brick %s: %w", bo.Path, err)
	}
	o.Cluster, o.Server = id.Cluster, id.Server
	if err := n.begin(id); err != nil {
		return err
	}
	b, rec, err := brick.Open(o)
	if err != nil {
		return fmt.Errorf("brick %s: %w", bo.Path, err)
	}
	n.brick = b
	n.opt.Log.Info("brick open", "brick", bo.Path, "took", rec.Took, "replayed", rec.Replayed, "verified", rec.Verified, "torn", rec.Torn,
		"lost", len(rec.Lost), "entries", rec.Entries)
	// The superblock bears witness of this start.
	err = b.UpdateSuper(func(s *brick.Super) error { s.Incarnation = uint32(n.incarnation); return nil })
	n.coord = newCoordinator(b, n.pool, id.Server, n.incarnation)
	return err
}

// identify reads whose brick it is, and initializes what is new.
func (n *Node) identify(o brick.Options) (brick.Identity, error) {
	s := n.State()
	super, err := brick.Peek(o.FS)
	if err != nil && !errors.Is(err, brick.ErrMissing) {
		return brick.Identity{}, err
	}
	if s.ClusterID() == (meta.ID{}) {
		if super != nil {
			return brick.Identity{}, &meta.Error{Kind: meta.ErrInUse, Thing: fmt.Sprintf("brick %x of cluster %x", super.Brick, super.Cluster),
				Why:    "the node's own state is empty",
				Advice: "start the node with the directory it had before (dir), or give it an empty brick directory"}
		}
		cluster := newID()
		if s, err = n.store.Propose(&metapb.Command{Kind: &metapb.Command_Init{Init: &metapb.Init{ClusterId: cluster[:], ServerName: n.opt.Name, Release: meta.Release}}}); err != nil {
			return brick.Identity{}, err
		}
	}
	srv := s.Server(1)
	id := brick.Identity{Cluster: s.ClusterID(), Server: uint32(srv.ID)}
	if super != nil && super.Cluster != id.Cluster {
		return id, &meta.Error{Kind: meta.ErrInUse, Thing: fmt.Sprintf("brick %x", super.Brick), Why: fmt.Sprintf("it belongs to cluster %x, this node to %x", super.Cluster, id.Cluster),
			Advice: "correct the path in the configuration, or give the node an empty directory"}
	}
	switch {
	case super != nil:
		id.Brick = super.Brick
	case len(srv.Bricks) > 0:
		return id, &meta.Error{Kind: meta.ErrNotFound, Thing: fmt.Sprintf("brick %x", srv.Bricks[0][:]), Why: "the node has kept its data there before",
			Advice: "mount the disk that holds it, or correct the path in the configuration"}
	default:
		id.Brick = newID()
		if err := brick.Create(o, id); err != nil {
			return id, err
		}
	}
	if len(srv.Bricks) > 0 && srv.Bricks[0] != meta.ID(id.Brick) {
		return id, &meta.Error{Kind: meta.ErrInvalid, Thing: fmt.Sprintf("brick %x", id.Brick), Why: fmt.Sprintf("this node's brick is %x", srv.Bricks[0][:]),
			Advice: "correct the path in the configuration"}
	}
	if super != nil && uint64(super.Incarnation) > srv.Incarnation {
		return id, &meta.Error{Kind: meta.ErrInvalid, Thing: "the node's state", Why: fmt.Sprintf("it knows of %d starts, the brick of %d: it is older than the data", srv.Incarnation, super.Incarnation),
			Advice: "put back the node directory that belongs to this brick"}
	}
	return id, nil
}

// begin gives this process its incarnation. The agreed state has it before the
// brick does, so that a crash in between never makes the brick look newer.
func (n *Node) begin(id brick.Identity) error {
	s, err := n.store.Propose(&metapb.Command{Kind: &metapb.Command_Start{Start: &metapb.Start{Server: id.Server, Bricks: [][]byte{id.Brick[:]}, Release: meta.Release}}})
	if err != nil {
		return err
	}
	n.incarnation = s.Server(placement.Server(id.Server)).Incarnation
	return nil
}

// brickFailed notes that the brick is gone for good. Status shows it; volumes
// answer with errors that the device server turns into silence.
func (n *Node) brickFailed(err error) {
	n.opt.Log.Error("brick failed; the node keeps serving what it can", "error", err)
}

// Status reports how the node is. It does not block on a disk.
func (n *Node) Status() Status {
	st := Status{Incarnation: n.incarnation, Recovery: n.recovery}
	used, avail, total := n.brick.Space()
	jused, jcap := n.brick.JournalFill()
	bs := n.brick.Stats()
	st.Bricks = []BrickStatus{{Path: n.opt.Bricks[0].Path, Failed: n.brick.Failed(), Direct: n.brickFS.Direct(), Used: used, Available: avail, Total: total,
		JournalUsed: uint64(jused), JournalCapacity: uint64(jcap), ChecksumErrors: bs.BadBlocks}}
	cs := n.cache.Stats()
	st.Cache = CacheStatus{Used: uint64(cs.Bytes), Budget: uint64(cs.Budget), Hits: cs.Hits, Misses: cs.Misses}
	return st
}

// release closes what open has opened.
func (n *Node) release() error {
	var err error
	if n.brick != nil {
		err = n.brick.Close()
	}
	if n.store != nil {
		err = errors.Join(err, n.store.Close())
	}
	if n.cache != nil && n.store != nil {
		for _, d := range n.State().Disks() {
			n.cache.DropFamily(d.Family)
		}
	}
	if n.pool != nil {
		err = errors.Join(err, n.pool.Close())
	}
	return err
}
