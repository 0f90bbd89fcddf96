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
	opt   Options
	store *meta.Store
	seal  *meta.Sealer
	pool  *slab.Pool
	cache *cache.Cache
	brick *brick.Brick

	incarnation uint64
	recovery    time.Duration

	mu        sync.Mutex
	volumes   map[meta.ID]*Volume
	reserves  map[meta.ID]*Reservations
	dropping  sync.WaitGroup
	closed    bool
	brickFail error
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
	n := &Node{opt: opt, volumes: map[meta.ID]*Volume{}, reserves: map[meta.ID]*Reservations{}}
	if err := n.open(); err != nil {
		n.release()
		return nil, err
	}
	n.recovery = time.Since(begin)
	n.store.Watch(n.changed)
	n.resumeDrops()
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
	return key, err
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
